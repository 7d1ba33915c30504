"""A model's profile: from the store where it was measured before, else by a child process.

No torch here: the child has it.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import orjson
from blake3 import blake3

from engine.kernels import FLASH, flash_installed, liger_missing
from engine.memory.cards import Device
from engine.memory.estimate import Estimate, Profile, Ranks, estimate
from queue_store import durable
from queue_store.config import Config, Model, Training
from queue_store.errors import NotFound
from queue_store.home import Home
from snapshots import child

MODULE = "engine.memory.profile"
SECONDS = 300.0
CONFIG = "config.json"


def number_bytes(model: Model, gpu: bool) -> int:
    """Bytes a number of weights and compute: as engine.training.model.choose_dtype decides."""
    return 2 if model.precision == "bf16" or (model.precision == "auto" and gpu) else 4


Needs = tuple[int, str, bool]
"""Which profile of a model: bytes a number, method, whether Liger's kernels compute it."""


def asked(folder: Path, model: Model, size: int, liger: bool = False) -> dict[str, Any]:
    """What a profile depends on, beside the model's config.json."""
    return {
        "folder": str(folder),
        "dtype": "bfloat16" if size == 2 else "float32",
        # Flash attention needs a card; it keeps what sdpa's own flash keeps. By itself it is sdpa
        # where the architecture can (Gemma 2 cannot).
        "attention": None if model.attention in ("auto", FLASH) else model.attention,
        "lora": msgspec.to_builtins(model.lora) if model.method != "full" else None,
        **({"base": "nf4"} if model.method == "qlora" else {}),
        **({"liger": True} if liger else {}),
    }


def kept(home: Home, folder: Path, model: Model, size: int, liger: bool = False) -> Profile | None:
    """The profile that the store has. Raises NotFound where the folder has no config.json."""
    try:
        return Profile.of(json.loads(_place(home, folder, model, size, liger).read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def profile(
    home: Home | None,
    folder: Path,
    model: Model,
    size: int,
    liger: bool = False,
    *,
    stop: child.Stop | None = None,
    progress: child.Progress | None = None,
    nice: int = 0,
) -> Profile:
    """The profile of the model in `folder`, kept in `home`'s store; with Liger's kernels where
    `liger`, which must be installed. A child of seconds, at the priority `nice`, where it was not
    measured yet: `progress` hears how many of how many measurements are done, `stop` breaks it off.
    Raises NotFound, child.Unfinished with the child's reason."""
    config = folder / CONFIG
    if not config.is_file():
        raise NotFound("no config.json of a model", where=str(folder), mend="give a model's folder")
    found = kept(home, folder, model, size, liger) if home is not None else None
    if found is not None:
        return found
    told = child.run(
        MODULE,
        (),
        where=str(config),
        stop=stop,
        progress=progress,
        seconds=SECONDS,
        nice=nice,
        stdin=orjson.dumps(asked(folder, model, size, liger)),
        what="measuring the model",
        mend="a config.json that transformers reads, of a causal language model",
    )
    del told["ok"]
    if home is not None and home.store.is_dir():
        place = _place(home, folder, model, size, liger)
        durable.make_folder(place.parent)
        durable.write_atomic(place, orjson.dumps(told))
    return Profile.of(told)


def fused_loss(training: Training) -> bool:
    """Whether Liger's loss will hold no logits on a card: only where it is installed."""
    return training.liger == "on" or (training.liger == "auto" and liger_installed())


@cache
def liger_installed() -> bool:
    """Whether Liger's kernels can be measured here: on a machine without a card, too."""
    return not liger_missing()


def processes(config: Config) -> int:
    """How many share a step, as far as config.toml tells."""
    each = config.training.processes
    return (each if isinstance(each, int) else 1) * config.launch.nodes


class Estimator:
    """Estimates configurations of the model in `folder` on `device`; measures it once a dtype and
    method, with `stop` and `nice` as `profile`. Raises as it does."""

    def __init__(
        self,
        home: Home | None,
        folder: Path,
        device: Device,
        *,
        stop: child.Stop | None = None,
        nice: int = 0,
    ) -> None:
        self.home, self.folder, self.device = home, folder, device
        self.stop, self.nice = stop, nice
        self._known: dict[Needs, Profile] = {}

    def on(self, device: Device) -> Estimator:
        """For another device; what is measured is measured for both."""
        other = copy.copy(self)
        other.device = device
        return other

    def key(self, config: Config) -> Needs:
        """The profile that `config` needs."""
        gpu = self.device.gpu
        liger = gpu and fused_loss(config.training) and liger_installed()
        return number_bytes(config.model, gpu), config.model.method, liger

    def known(self, config: Config) -> bool:
        """Whether estimating `config` measures nothing."""
        return self.key(config) in self._known

    @property
    def measured(self) -> int:
        """How many profiles are known."""
        return len(self._known)

    def measure(
        self, config: Config, stop: child.Stop, progress: child.Progress, nice: int
    ) -> None:
        """Measure what estimating `config` needs, as `profile` does."""
        key = self.key(config)
        self._known[key] = profile(
            *(self.home, self.folder, config.model, key[0], key[2]),
            stop=stop,
            progress=progress,
            nice=nice,
        )

    def profile(self, config: Config) -> Profile:
        key = self.key(config)
        if key not in self._known:
            self._known[key] = profile(
                *(self.home, self.folder, config.model, key[0], key[2]),
                stop=self.stop,
                nice=self.nice,
            )
        return self._known[key]

    def __call__(self, config: Config, ranks: Ranks | None = None) -> Estimate:
        """Of one of the `ranks`: by default as many as config.toml names, with whole copies unless
        it says "fsdp"."""
        gpu, training = self.device.gpu, config.training
        size = number_bytes(config.model, gpu)
        liger = gpu and fused_loss(training)
        if ranks is None:
            together = processes(config)
            ranks = Ranks(together, together > 1 and training.parallel == "fsdp")
        profile = self.profile(config)
        flash = gpu and flash_installed() and config.model.attention in ("auto", FLASH)
        return estimate(
            profile, training, size=size, gpu=gpu, liger=liger, flash=flash, ranks=ranks
        )


def _place(home: Home, folder: Path, model: Model, size: int, liger: bool) -> Path:
    try:
        config = (folder / CONFIG).read_bytes()
    except OSError:
        raise NotFound("no config.json of a model", where=str(folder)) from None
    depends = {**asked(folder, model, size, liger), "folder": ""}
    made_by = [version(name) for name in ("torch", "transformers")]
    made_by += [version("liger-kernel")] if liger else []
    key = blake3(orjson.dumps([depends, made_by], option=orjson.OPT_SORT_KEYS) + config)
    return home.memory / f"{key.hexdigest()[:32]}.json"
