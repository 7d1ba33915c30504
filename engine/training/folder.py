"""A model's folder before anything of it is loaded: what trainctl never runs is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from queue_store.errors import TrainctlError

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_folder(folder: Path) -> None:
    """Raises TrainctlError where the weights are pickled (reading them can run any code), or where
    the model needs code of its own."""
    if any(folder.glob("*.safetensors")):
        _check_code(folder)
        return
    pickled = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
    if pickled:
        raise TrainctlError(
            f"has its weights as pickle alone ({pickled[0]}), and reading a pickle can run any"
            " code: trainctl reads safetensors",
            where=str(folder),
            mend="take a copy of the model with model.safetensors, or convert it on a machine that"
            " may run it (AutoModelForCausalLM.from_pretrained(…).save_pretrained(…))",
        )


def _check_code(folder: Path) -> None:
    try:
        config: Any = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return  # who loads it says what is wrong
    if isinstance(config, dict) and "auto_map" in config:
        kind = config.get("model_type")
        if kind not in CONFIG_MAPPING:
            raise TrainctlError(
                f"needs Python code that comes with it (auto_map in its config.json, model_type"
                f" {kind!r}), and trainctl runs no code of a model",
                where=str(folder),
                mend="take a model of an architecture that transformers has itself",
            )
