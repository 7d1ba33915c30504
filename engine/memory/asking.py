"""A model's profile: from the store where it was measured before, else by a child process.

No torch here: the child has it.
"""

from __future__ import annotations

import importlib.util
import json
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
FORM = 2
"""Of what is measured: a profile in the store of another one is measured again."""


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
        "lora": msgspec.to_builtins(model.lora) if model.method != "full" else None,
    }


def kept(home: Home, folder: Path, model: Model, size: int) -> Profile | None:
    """The profile that the store has. Raises NotFound where the folder has no config.json."""
    try:
        return Profile.of(json.loads(_place(home, folder, model, size).read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def profile(home: Home | None, folder: Path, model: Model, size: int) -> Profile:
    """The profile of the model in `folder`, kept in `home`'s store. A child of seconds where it
    was not measured yet. Raises NotFound, child.Unfinished with the child's reason."""
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
        seconds=SECONDS,
        stdin=orjson.dumps(asked(folder, model, size)),
        what="measuring the model",
        mend="a config.json that transformers reads, of a causal language model",
    )
    del told["ok"]
    if home is not None and home.store.is_dir():
        place = _place(home, folder, model, size)
        durable.make_folder(place.parent)
        durable.write_atomic(place, orjson.dumps(told))
    return Profile.of(told)


def fused_loss(training: Training) -> bool:
    """Whether Liger's loss will hold no logits: only where it is installed, as
    engine.training.model has it."""
    installed = all(importlib.util.find_spec(name) for name in ("triton", "liger_kernel"))
    return training.liger == "on" or (training.liger == "auto" and installed)


class Estimator:
    """Estimates configurations of the model in `folder` on `device`; measures it once a dtype and
    method. Raises as `profile`."""

    def __init__(self, home: Home | None, folder: Path, device: Device) -> None:
        self.home, self.folder, self.device = home, folder, device
        self._known: dict[tuple[int, bool], Profile] = {}

    def profile(self, config: Config) -> Profile:
        # Beside a 4-bit base layers keep what they keep beside a full one.
        key = number_bytes(config.model, self.device.gpu), config.model.method != "full"
        if key not in self._known:
            self._known[key] = profile(self.home, self.folder, config.model, key[0])
        return self._known[key]

    def __call__(self, config: Config) -> Estimate:
        gpu, training = self.device.gpu, config.training
        four_bit = config.model.method == "qlora"
        size = number_bytes(config.model, gpu)
        liger = gpu and fused_loss(training)
        found = self.profile(config)
        return estimate(found, training, size=size, gpu=gpu, liger=liger, four_bit=four_bit)


def _place(home: Home, folder: Path, model: Model, size: int) -> Path:
    try:
        config = (folder / CONFIG).read_bytes()
    except OSError:
        raise NotFound("no config.json of a model", where=str(folder)) from None
    depends = {**asked(folder, model, size), "folder": ""}
    made_by = [version(name) for name in ("torch", "transformers")]
    key = blake3(orjson.dumps([FORM, depends, made_by], option=orjson.OPT_SORT_KEYS) + config)
    return home.memory / f"{key.hexdigest()[:32]}.json"
