"""The versions and checkpoints of an older system (formats F8, F9): which hold whole weights.

A folder is one if its name says so, or if config.json names it as the current model. Each is
looked at before anything is copied: torn, pickled, linked or missing weights are refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from queue_store.errors import TrainctlError
from snapshots.digest import tensors, weight_files, weights_digest
from snapshots.fits import ADAPTER, ADAPTER_CONFIG
from snapshots.imported import Source
from trainctl.importing.folder import LeftOut, entries, odd, read_json, walk

PLACES = ("models", "current_model", "checkpoints", "outputs")
DEPTH = 4
KEPT = {
    *("config.json", "generation_config.json", ADAPTER_CONFIG, "tokenizer.json"),
    *("tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
    *("chat_template.json", "model.safetensors.index.json"),
}
"""Files beside the weights that a version keeps; optimizer states and pickles are none of them."""

_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})(?:-.*)?")
_VERSION = re.compile(r"v\d+_.*")
Json = dict[str, Any]


class Unfit(Exception):
    """Why a folder's weights are not taken over."""


def look(root: Path, settings: Json) -> tuple[list[Source], list[LeftOut]]:
    """The weights to take over, oldest first, and what is left out. `settings` is config.json."""
    found: list[Source] = []
    left: list[LeftOut] = []
    current = _current(root, settings, left)
    for folder, kind in _candidates(root, current, left):
        relative = str(folder.relative_to(root))
        try:
            found.append(source(root, folder, current=kind == "current"))
        except Unfit as unfit:
            # The current model's folder may hold nothing but its checkpoints.
            if kind != "current" or weight_files(folder):
                left.append(LeftOut(relative, str(unfit), True))
        except TrainctlError as error:
            left.append(LeftOut(relative, error.what, True))
        except OSError as error:
            left.append(LeftOut(relative, error.strerror or str(error), True))
    return sorted(found, key=lambda one: (one.step, one.created, one.name)), left


def _current(root: Path, settings: Json, left: list[LeftOut]) -> Path | None:
    """The folder of the model that was being trained."""
    named = settings.get("current_model_dir")
    if not isinstance(named, str) or not named:
        named = "current_model"
    path = (root / named).resolve() if not (root / named).is_symlink() else root / named
    if path.is_symlink() or not path.is_relative_to(root.resolve()):
        if settings.get("current_model_dir"):
            left.append(LeftOut(named, "current_model_dir is outside of this folder", True))
        return None
    place = root / path.relative_to(root.resolve())
    return place if place.is_dir() and place != root else None


def _candidates(
    root: Path, current: Path | None, left: list[LeftOut]
) -> Iterator[tuple[Path, str]]:
    """Folders that are weights by their name, each once, with what they are."""
    done: set[Path] = set()
    inside: list[Path] = []
    places = [root / place for place in PLACES] + ([current] if current else [])
    for top in places:
        for folder in walk(top, DEPTH):
            left += _links(root, folder, left)
            if folder in done or any(folder.is_relative_to(one) for one in inside):
                continue
            done.add(folder)
            if _CHECKPOINT.fullmatch(folder.name):
                inside.append(folder)
                yield folder, "checkpoint"
            elif _VERSION.fullmatch(folder.name):
                inside.append(folder)
                yield folder, "version"
            elif folder == current or folder == root / "models" / "current_model":
                yield folder, "current"
            elif weight_files(folder):
                because = "a base model, by its name: model.base may name its folder"
                left.append(LeftOut(str(folder.relative_to(root)), because))


def _links(root: Path, folder: Path, left: list[LeftOut]) -> list[LeftOut]:
    """Links to folders, such as versions/latest: what they point to is found by itself, or it
    lies outside."""
    told = {one.path for one in left}
    names = [str(p.relative_to(root)) for p in entries(folder) if p.is_symlink() and p.is_dir()]
    return [LeftOut(name, "a symbolic link") for name in names if name not in told]


def _ledger(root: Path, folder: Path) -> Json:
    """What was written down of a checkpoint: in its folder, else in the ledger of all of them."""
    own = read_json(folder / ".ledger.json")
    if isinstance(own, dict):
        return own
    whole = read_json(root / "status" / "checkpoint_ledger.json")
    listed = whole.get("checkpoints") if isinstance(whole, dict) else None
    for record in listed.values() if isinstance(listed, dict) else ():
        if isinstance(record, dict) and record.get("canonical_name") == folder.name:
            return record
    return {}


def source(root: Path, folder: Path, *, current: bool = False) -> Source:
    """What a folder holds, every header looked at and all weights read once for their digest.

    Raises Unfit, VerificationFailed (torn), OSError.
    """
    place = folder / "adapter" if (folder / "adapter").is_dir() else folder
    if place.is_symlink():
        raise Unfit("its adapter is a symbolic link")
    heavy = weight_files(place)
    for path in heavy:
        if why := odd(path):
            raise Unfit(f"{path.name} is {why}")
    if not heavy:
        pickles = [p.name for p in entries(place) if p.suffix in (".bin", ".pt", ".pth")]
        if pickles:
            raise Unfit(f"{pickles[0]} is a pickle: convert its weights to safetensors")
        raise Unfit("it has no weights")
    adapter = (place / ADAPTER).is_file()
    if adapter and len(heavy) > 1:
        raise Unfit("it holds an adapter and a full model: which one counts is not said")
    needed = ADAPTER_CONFIG if adapter else "config.json"
    if not isinstance(read_json(place / needed), dict):
        raise Unfit(f"it has no usable {needed}")
    names = {tensor.name for path in heavy for tensor in tensors(path)}
    _index(place, names, {path.name for path in heavy})
    kept = [path for path in entries(place) if path.name in KEPT and path.is_file()]
    small = [path.name for path in kept if not odd(path)]
    said, ledger = read_json(folder / "metadata.json"), _ledger(root, folder)
    about = said if isinstance(said, dict) else {}
    if current:
        status = read_json(root / "status" / "training_status.json")
        step = status.get("current_step") if isinstance(status, dict) else None
        about = {"total_steps": step, **about}
    name = str(folder.relative_to(root))
    return Source(
        folder=place,
        files=tuple(sorted([*small, *(path.name for path in heavy)])),
        name=name,
        description=_description(folder.name, about, ledger),
        step=_step(folder, about, ledger),
        created=str(about.get("created_at") or ledger.get("timestamp") or ""),
        loss=_number(about.get("final_loss"), ledger.get("train_loss")),
        val_loss=_number(ledger.get("val_loss")),
        method="lora" if adapter else "full",
        base=_base(read_json(place / ADAPTER_CONFIG)) if adapter else "",
        weights_digest=weights_digest(place),
    )


def _index(place: Path, names: set[str], files: set[str]) -> None:
    """Raise Unfit where an index of shards names what is not there."""
    index = read_json(place / "model.safetensors.index.json")
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        if len(files) > 1:
            raise Unfit("it has shards without a usable index")
        return
    for tensor, file in shards.items():
        if file not in files or tensor not in names:
            raise Unfit(f"its index names {tensor} in {file}, where it is not")


def _base(said: Any) -> str:
    return str(said.get("base_model_name_or_path") or "") if isinstance(said, dict) else ""


def _description(name: str, about: Json, ledger: Json) -> str:
    said = str(about.get("description") or "")
    made = str(about.get("created_at") or ledger.get("timestamp") or "")
    parts = [f"imported {name}", said, f"of {made}" if made else ""]
    return ", ".join(part for part in parts if part)[:1000]


def _step(folder: Path, about: Json, ledger: Json) -> int:
    """The steps that it had trained; 0 where nothing says it."""
    trainer = read_json(folder / "trainer_state.json")
    named = _CHECKPOINT.fullmatch(folder.name)
    candidates = (
        ledger.get("step"),
        about.get("total_steps"),
        trainer.get("global_step") if isinstance(trainer, dict) else None,
        int(named[1]) if named else None,
    )
    return next((v for v in candidates if type(v) is int and 0 <= v < 1 << 53), 0)


def _number(*values: Any) -> float | None:
    for value in values:
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None
