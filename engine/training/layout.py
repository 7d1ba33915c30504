"""The saved folder as other programs read it: what Hugging Face's writer leaves open."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"


def write_index(folder: Path) -> None:
    """An index for a single weights file, too (shards have theirs).

    vLLM takes every `*.safetensors` of a folder for weights unless an index says which are
    (weight_utils.filter_duplicate_safetensors_files); a checkpoint has its optimizer beside them.
    llama.cpp and transformers read the index if it is there, and want it complete.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        return
    with safe_open(path, "pt") as file:
        names = sorted(file.keys())
    size = path.stat().st_size - _header(path)
    index = {"metadata": {"total_size": size}, "weight_map": {name: WEIGHTS for name in names}}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _header(path: Path) -> int:
    """Bytes before the tensors: the header's length in eight bytes, and the header."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
