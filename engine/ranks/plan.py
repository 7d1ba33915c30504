"""How many processes train, on which hosts, and in which way: config.toml against this machine."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from engine.memory import cards, refusing
from engine.memory.asking import Estimator
from engine.memory.cards import Device
from engine.memory.estimate import Ranks
from queue_store.config import Config
from queue_store.errors import ConfigError, NotFound
from queue_store.home import Home
from queue_store.sharing import check_shared
from snapshots.child import Unfinished

STALL_SHARE = 0.9
"""Of watchdog.stall_minutes: the engine ends a launch that stands before the supervisor ends it."""


@dataclass(frozen=True)
class Processes:
    """`each` processes on each of `nodes` hosts, `kind` "ddp" or "fsdp". `stall_seconds` 0: never
    taken for hung."""

    each: int
    nodes: int
    kind: str
    device: str
    rendezvous: str
    join_seconds: float
    timeout_seconds: float
    stall_seconds: float

    @property
    def size(self) -> int:
        """Of the whole training."""
        return self.each * self.nodes


def gpus() -> int:
    """GPUs of this host, counted without taking one."""
    torch = importlib.import_module("torch")
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def each_host(config: Config, found: int) -> int:
    """Processes on each host, on one with so many GPUs. Raises ConfigError."""
    wanted = config.training.processes
    if wanted == "auto":
        return max(1, found)
    if found and wanted > found:
        raise ConfigError(
            f"{wanted} processes are asked for, and this host has {found} GPUs",
            where="training.processes",
            mend=f'set it to {found}, or "auto"',
        )
    return wanted


def several(config: Config) -> bool:
    """Whether more than one process trains. Raises ConfigError."""
    return config.launch.nodes > 1 or (
        config.training.processes != 1 and each_host(config, gpus()) > 1
    )


def processes(home: Home, folder: Path, config: Config, own: Collection[int] = ()) -> Processes:
    """The processes that train the model in `folder`. What the processes `own` hold of the memory
    is free then. Raises ConfigError where they cannot, or where it does not fit."""
    found = gpus()
    each, launch = each_host(config, found), config.launch
    size = each * launch.nodes
    check_shared(config.training, size)
    return Processes(
        each=each,
        nodes=launch.nodes,
        kind=_kind(home, folder, config, each, size, own),
        device="cuda" if found else "cpu",
        rendezvous=launch.rendezvous if launch.nodes > 1 else "",
        join_seconds=60 * launch.join_minutes,
        timeout_seconds=60 * launch.timeout_minutes,
        stall_seconds=60 * config.watchdog.stall_minutes * STALL_SHARE,
    )


def _kind(
    home: Home, folder: Path, config: Config, each: int, size: int, own: Collection[int]
) -> str:
    """Whole copies where they fit; else the model is split. Raises ConfigError."""
    device = cards.share(cards.here(own=own), each)
    wanted = config.training.parallel
    if wanted != "fsdp":
        try:
            refusing.check(home, folder, config, device)
        except ConfigError:
            if wanted == "ddp" or not _fits_split(home, folder, config, device, size):
                raise
            return "fsdp"
        return "ddp"
    if config.training.check_memory and not _fits_split(home, folder, config, device, size):
        raise ConfigError(
            f"split over {size} processes, the model does not fit {device.name} either",
            where='training.parallel = "fsdp"',
            mend="a smaller model, length or batch (trainctl vram shows the parts), or more cards",
        )
    return "fsdp"


def _fits_split(home: Home, folder: Path, config: Config, device: Device, size: int) -> bool:
    """Whether each part of the split model fits beside a whole micro-batch's activations; also
    where that is not known."""
    try:
        part = Estimator(home, folder, device)(config, Ranks(size, sharded=True))
    except (Unfinished, NotFound):
        return True
    return part.total <= device.usable
