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
_PLAIN = {**_SAVING, "training.rounding": "nearest"}
"""As TRL rounds."""
_IN_BACKWARD = {**_SAVING, "training.in_backward": True, "training.max_grad_norm": 0.0}
_LEAST = {**_IN_BACKWARD, "training.activation_offload": True}

MODES = {
    mode.name: mode
    for mode in (
        Mode("adamw", _PLAIN, {"optim": "adamw_torch_fused"}),
        Mode("8-bit", {**_PLAIN, "training.optimizer": "adamw_8bit"}, {"optim": "adamw_bnb_8bit"}),
        Mode(
            "paged 8-bit",
            {**_PLAIN, "training.optimizer": "paged_adamw_8bit"},
            {"optim": "paged_adamw_8bit"},
        ),
        Mode("in backward, 8-bit", {**_IN_BACKWARD, "training.optimizer": "adamw_8bit"}),
        Mode("in backward, paged", {**_IN_BACKWARD, "training.optimizer": "paged_adamw_8bit"}),
        Mode("least, 8-bit", {**_LEAST, "training.optimizer": "adamw_8bit"}),
        Mode("least, paged", {**_LEAST, "training.optimizer": "paged_adamw_8bit"}),
        Mode("lora", {**_SAVING, "model.method": "lora"}, {"optim": "adamw_torch_fused"}),
        Mode("qlora", {**_SAVING, "model.method": "qlora"}),
    )
}
TINY = ("in backward, 8-bit", "lora")
"""Those of the dry run on a CPU: one that TRL has, and one that it has not."""


@dataclass(frozen=True)
class Claim:
    """At most so many bytes of the card by NVML, in that shape and mode."""

    shape: str
    mode: str
    most: float
    words: str


CLAIMS = (
    Claim("qwen3-4b", "least, 8-bit", 19e9, "4B full with nothing paged in 19 GB"),
    Claim("qwen3-4b", "least, paged", 11e9, "4B full with paged states in 11 GB"),
    Claim("qwen3-8b", "least, paged", 18e9, "8B full in 18 GB"),
)


@dataclass(frozen=True)
class Case:
    """One run: who trains which shape in which mode, on `cap` bytes of the card (0: on all
    of it)."""

    shape: str
    mode: str
    who: str = "trainctl"
    device: str = "cuda:0"
    cap: int = 0
    warm: int = 2
    steps: int = 8
    rows_a_step: int = 32
    """A step has as many tokens as so many rows of the mean length."""
    rows: tuple[str, ...] = field(default=())
