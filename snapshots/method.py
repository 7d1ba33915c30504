"""How the weights in a folder of this home trained: model.method, as they say it themselves."""

from __future__ import annotations

import json
from pathlib import Path

from snapshots.versions import INFO

STATE = "training_state.json"


def method_of(folder: Path) -> str:
    """ "full", "lora" or "qlora" of a checkpoint's or version's folder, "" where it does not say."""
    for name, keys in ((STATE, ("method",)), (INFO, ("model", "method"))):
        try:
            said = json.loads((folder / name).read_bytes())
            for key in keys:
                said = said[key]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(said, str):
            return said
    return ""


def beside_4_bit(folder: Path) -> bool:
    """Whether it is an adapter that trained beside a 4-bit base. Whoever loads it beside the
    full-precision one, which is what workers and merges do, has a slightly other model."""
    return method_of(folder) == "qlora"
