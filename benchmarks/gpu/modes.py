"""The modes that are measured: keys of config.toml, TRL's arguments for the same, and what each has
to keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Mode:
    """`settings` are keys of config.toml; `trl` the arguments of TRL's SFTConfig for the same,
    None where it has no such mode."""

    name: str
    settings: Mapping[str, Any]
    trl: Mapping[str, Any] | None = None

    @property
    def method(self) -> str:
        return str(self.settings.get("model.method", "full"))


_SAVING = {"training.gradient_checkpointing": True}

MODES = {
    mode.name: mode
    for mode in (
        Mode("adamw", {**_SAVING}, {"optim": "adamw_torch_fused"}),
        Mode("8-bit", {**_SAVING, "training.optimizer": "adamw_8bit"}, {"optim": "adamw_bnb_8bit"}),
        Mode(
            "paged 8-bit",
            {**_SAVING, "training.optimizer": "paged_adamw_8bit"},
            {"optim": "paged_adamw_8bit"},
        ),
        Mode("lora", {**_SAVING, "model.method": "lora"}, {"optim": "adamw_torch_fused"}),
    )
}
TINY = ("adamw", "8-bit", "lora")
"""Those of the dry run on a CPU."""


@dataclass(frozen=True)
class Claim:
    """At most so many bytes of the card by NVML, in that shape and mode."""

    shape: str
    mode: str
    most: float
    words: str


CLAIMS: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Case:
    """One run: who trains which shape in which mode. `cap` bytes of the card, 0 for all of it."""

    shape: str
    mode: str
    who: str = "trainctl"
    device: str = "cuda:0"
    cap: int = 0
    warm: int = 2
    steps: int = 8
    rows: tuple[str, ...] = field(default=())
