"""A model's profile: from the store where it was measured before, else by a child process.

No torch here: the child has it.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import orjson
from blake3 import blake3

from engine.memory.cards import Device
from engine.memory.estimate import Estimate, Profile, estimate
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


def asked(folder: Path, model: Model, size: int) -> dict[str, Any]:
    """What a profile depends on, beside the model's config.json."""
    return {
        "folder": str(folder),
        "dtype": "bfloat16" if size == 2 else "float32",
        # Flash attention needs a card; it keeps what sdpa's own flash keeps.
        "attention": "eager" if model.attention == "eager" else "sdpa",
        "lora": msgspec.to_builtins(model.lora) if model.method == "lora" else None,
    }


def kept(home: Home, folder: Path, model: Model, size: int) -> Profile | None:
    """The profile that the store has. Raises NotFound where the folder has no config.json."""
    try:
        return Profile.of(json.loads(_place(home, folder, model, size).read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def profile(
    home: Home | None,
    folder: Path,
    model: Model,
    size: int,
    *,
    nice: int = 0,
    stop: child.Stop | None = None,
    progress: child.Progress | None = None,
) -> Profile:
    """The profile of the model in `folder`, kept in `home`'s store. A child of seconds where it
    was not measured yet, at the priority `nice`: `progress` hears how many of how many measurements
    are done, `stop` breaks it off. Raises NotFound, child.Unfinished with the child's reason."""
    config = folder / CONFIG
    if not config.is_file():
        raise NotFound("no config.json of a model", where=str(folder), mend="give a model's folder")
    found = kept(home, folder, model, size) if home is not None else None
    if found is not None:
        return found
    told = child.run(
        MODULE,
        (),
        where=str(config),
        stop=stop,
        progress=progress,
        seconds=SECONDS,
        stdin=orjson.dumps(asked(folder, model, size)),
        nice=nice,
        what="measuring the model",
        mend="a config.json that transformers reads, of a causal language model",
    )
    del told["ok"]
    if home is not None and home.store.is_dir():
        place = _place(home, folder, model, size)
        durable.make_folder(place.parent)
        durable.write_atomic(place, orjson.dumps(told))
    return Profile.of(told)


@cache
def liger_installed() -> bool:
    """Whether this interpreter has Liger's kernels and what they need, as engine.training.model
    has it."""
    return all(importlib.util.find_spec(name) for name in ("triton", "liger_kernel"))


def fused_loss(training: Training) -> bool:
    """Whether Liger's loss will hold no logits: only where it is installed."""
    return training.liger == "on" or (training.liger == "auto" and liger_installed())


class Estimator:
    """Estimates configurations of the model in `folder` on `device`; measures it once a dtype and
    method, at the priority `nice`: 0 where somebody waits for it. Raises as `profile`."""

    def __init__(self, home: Home | None, folder: Path, device: Device, *, nice: int = 0) -> None:
        self.home, self.folder, self.device, self.nice = home, folder, device, nice
        self._known: dict[tuple[int, str], Profile] = {}

    def on(self, device: Device, *, nice: int = 0) -> Estimator:
        """For another device; what is measured is measured for both."""
        other = copy.copy(self)
        other.device, other.nice = device, nice
        return other

    def key(self, config: Config) -> tuple[int, str]:
        """Bytes a number and method: the profile that `config` needs."""
        return number_bytes(config.model, self.device.gpu), config.model.method

    def profile(
        self,
        config: Config,
        *,
        stop: child.Stop | None = None,
        progress: child.Progress | None = None,
    ) -> Profile:
        key = self.key(config)
        if key not in self._known:
            found = profile(
                *(self.home, self.folder, config.model, key[0]),
                **{"nice": self.nice, "stop": stop, "progress": progress},
            )
            self._known[key] = found
        return self._known[key]

    def known(self, config: Config) -> bool:
        """Whether estimating `config` measures nothing."""
        return self.key(config) in self._known

    def __call__(self, config: Config) -> Estimate:
        gpu, training = self.device.gpu, config.training
        size = number_bytes(config.model, gpu)
        liger = gpu and fused_loss(training)
        return estimate(self.profile(config), training, size=size, gpu=gpu, liger=liger)


def _place(home: Home, folder: Path, model: Model, size: int) -> Path:
    try:
        config = (folder / CONFIG).read_bytes()
    except OSError:
        raise NotFound("no config.json of a model", where=str(folder)) from None
    depends = {**asked(folder, model, size), "folder": ""}
    made_by = [version(name) for name in ("torch", "transformers")]
    key = blake3(orjson.dumps([depends, made_by], option=orjson.OPT_SORT_KEYS) + config)
    return home.memory / f"{key.hexdigest()[:32]}.json"
