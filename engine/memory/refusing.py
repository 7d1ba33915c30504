"""What does not fit is refused before it is loaded, with what would fit.

A model far below the device's memory passes at once, by the size of its files; else its profile
decides. Where that cannot be measured nothing is refused: the estimate helps, it is no gate.
"""

from __future__ import annotations

import logging
from pathlib import Path

from engine.memory import cards, fitting
from engine.memory.asking import Estimator
from engine.memory.cards import Device
from queue_store.config import Config
from queue_store.errors import ConfigError, NotFound
from queue_store.home import Home
from snapshots.child import Unfinished

log = logging.getLogger("trainctl.memory")

FAR_BELOW = 0.25
"""The share of a device that a model may need by the roughest of guesses to pass unmeasured."""
COPIES = 10
"""Weights, gradients and states in fp32 of a model stored in bf16 are eight times its files."""
TOKEN_BYTES = 1 << 20
"""More than a token of a batch takes in any model of a few hundred MB."""


_held: set[str] = set()
"""Settings that this process has found to fit: the device's memory is partly its own by then."""


def check(home: Home, folder: Path, config: Config, device: Device | None = None) -> None:
    """Raises ConfigError where training the model in `folder` does not fit `device` (default: this
    machine's), unless training.check_memory is off: then the log says so. What fitted before in
    this process fits."""
    device = device or cards.here()
    settings = f"{folder} on {device.name}: {fitting.words(config)}"
    if settings in _held or _far_below(folder, config, device):
        return
    estimated = Estimator(home, folder, device)
    try:
        whole = estimated(config)
        if whole.total <= device.usable:
            _held.add(settings)
            return
        near = fitting.nearest(config, device, estimated)
    except (Unfinished, NotFound) as error:
        log.warning("whether it fits is not known: %s", error)
        return
    text = (
        f"training needs about {whole.total / 1e9:.1f} GB of the {device.usable / 1e9:.1f} GB that"
        f" are free on {device.name}"
    )
    if not config.training.check_memory:
        log.warning("%s; training.check_memory is off", text)
        return
    mend = "; or ".join(f"{one.words()} ({one.estimate.total / 1e9:.1f} GB)" for one in near)
    raise ConfigError(
        text,
        where="config.toml",
        mend=f"{mend or 'a smaller model'} (trainctl vram shows the parts); or"
        " training.check_memory = false tries it all the same",
    )


def _far_below(folder: Path, config: Config, device: Device) -> bool:
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    batch = config.training.batch_size * config.training.max_length * TOKEN_BYTES
    return bool(files) and files * COPIES + batch < FAR_BELOW * device.usable
