"""Whether weights that came from elsewhere fit the model that this home trains.

Compares headers and configuration alone, before anything is loaded: names and shapes of tensors
with the base model's, an adapter's settings with config.toml. Must never fetch or make a model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from queue_store.config import Config
from queue_store.home import Home
from snapshots.digest import tensors, weight_files

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
TIED = "lm_head.weight"
"""Where it is the embedding, some programs save it and others leave it out."""


def base_folder(home: Home, config: Config) -> Path | None:
    """The base model's folder where it is here already, else None."""
    base, folder = config.model.base, Path(config.model.base).expanduser()
    tiny = home.models / f"builtin-tiny-{config.training.seed}"
    fetched = home.models / base.replace("/", "--")
    own = folder if folder.is_absolute() else home.root / folder
    places = [tiny] if base == "builtin:tiny" else [own, home.models / base, fetched]
    return next((place for place in places if (place / "config.json").is_file()), None)


def misfit(folder: Path, home: Home, config: Config) -> str:
    """Why training cannot go on from the weights in `folder`, "" where it can. Where the base
    model is not here yet only the method is compared. Raises OSError, VerificationFailed."""
    adapter, method = (folder / ADAPTER).is_file(), config.model.method
    if adapter != (method != "full"):
        what = "an adapter" if adapter else "a full model's weights"
        return f'it holds {what}, and model.method is "{method}"'
    if adapter:
        return _adapter(json.loads((folder / ADAPTER_CONFIG).read_bytes()), config)
    base = base_folder(home, config)
    if base is None:
        return ""
    ours, theirs = _shapes(base), _shapes(folder)
    if TIED not in ours or _tied(base):
        ours.pop(TIED, None)
        theirs.pop(TIED, None)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            return f"{name} is {_said(theirs.get(name))}, in the base model {_said(ours.get(name))}"
    return ""


def _tied(base: Path) -> bool:
    return bool(json.loads((base / "config.json").read_bytes()).get("tie_word_embeddings"))


def _adapter(said: dict[str, Any], config: Config) -> str:
    lora, targets = config.model.lora, said.get("target_modules")
    theirs = {"r": said.get("r"), "alpha": said.get("lora_alpha")}
    for name, value in theirs.items():
        if value != getattr(lora, name):
            return f"its {name} is {value}, model.lora.{name} is {getattr(lora, name)}"
    if not isinstance(targets, list) or set(map(str, targets)) != set(lora.targets):
        return f"its layers are {targets}, model.lora.targets is {lora.targets}"
    return ""


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for path in weight_files(folder) for tensor in tensors(path)}


def _said(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else " x ".join(map(str, shape))
