"""A complete training state in a folder, and back, bit for bit.

Plain files only: the model as Hugging Face's layout (or the adapter), the tokenizer's files, the
optimizer, the generators, and `training_state.json`. Capturing (between two steps) and writing
(then, or later beside training) are two acts. Whoever calls syncs, digests and publishes the
folder. No pickle is ever written or read.
"""

from __future__ import annotations

import copy
import errno
import importlib.metadata
import json
import platform
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.training.fingerprint import fingerprint
from engine.training.layout import write_index
from engine.training.model import LoadedModel
from engine.training.optim import rule_of
from engine.training.optimizer_state import (
    OptimizerState,
    capture_optimizer,
    restore_optimizer,
    write_optimizer,
)
from engine.training.parallel import ALONE, Ranks
from engine.training.quantized import PACKAGE
from engine.training.rng import ranks_rng_to_json, set_ranks_rng
from engine.training.schedule import GlobalSchedule
from engine.training.sharded import gathered, local, part_of, plain_class
from queue_store.errors import VerificationFailed

INFO = "training_state.json"
RNG = "rng.json"
ADAPTER = "adapter_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def libraries(method: str = "full") -> dict[str, str]:
    """Versions that a bit-identical continuation depends on."""
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if method == "qlora":  # which makes the 4-bit base anew at each loading
        found[PACKAGE] = importlib.metadata.version(PACKAGE)
    return found


@dataclass(frozen=True)
class Captured:
    """A training state at one moment, in the form in which it will be written.

    As `capture_state` gives it the tensors are still those that train: write it before the next
    step, or have it copied (background.HostBuffers) and write it whenever there is time. Nothing
    else in it is touched by training.
    """

    model: Any
    """For a full state a stand-in of the model with a configuration of its own: who writes may
    set things in that one. For an adapter None."""
    adapter: Any
    """The adapter's configuration, else None."""
    weights: dict[str, torch.Tensor]
    optimizer: OptimizerState | None
    texts: dict[str, str]
    """Small files, by name."""
    tokenizer: Path

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors, by a name that is the same from one save to the next."""
        found = {f"weights/{name}": value for name, value in self.weights.items()}
        if self.optimizer is not None:
            found |= {f"optimizer/{name}": v for name, v in self.optimizer.tensors.items()}
        return found

    def with_tensors(self, tensors: dict[str, torch.Tensor]) -> Captured:
        """The same state with other tensors in the place of its own, by the names of `tensors`."""
        state = self.optimizer
        if state is not None:
            values = {name: tensors[f"optimizer/{name}"] for name in state.tensors}
            state = OptimizerState(values, state.text)
        weights = {name: tensors[f"weights/{name}"] for name in self.weights}
        return replace(self, weights=weights, optimizer=state)


def _stand_in(model: Any) -> Any:
    """The same modules under a configuration of its own. The saved config.json is for serving, so
    it says use_cache; training keeps it off, and must not see it change while a thread writes."""
    # As copy.copy, which cannot copy a split model: its class makes others anew.
    kind: Any = plain_class(model)
    twin: Any = kind.__new__(kind)
    twin.__dict__.update(model.__dict__)
    twin.config = copy.deepcopy(model.config)
    twin.config.use_cache = True
    if getattr(model, "generation_config", None) is not None:
        twin.generation_config = copy.deepcopy(model.generation_config)
    return twin


@overload
def capture_state(
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer,
    schedule: GlobalSchedule,
    info: dict[str, Any],
    *,
    weights_only: bool = False,
) -> Captured: ...


@overload
def capture_state(
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer,
    schedule: GlobalSchedule,
    info: dict[str, Any],
    *,
    weights_only: bool = False,
    ranks: Ranks | None,
) -> Captured | None: ...


def capture_state(
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer,
    schedule: GlobalSchedule,
    info: dict[str, Any],
    *,
    weights_only: bool = False,
    ranks: Ranks | None = None,
) -> Captured | None:
    """The state as it stands: model, tokenizer, and unless `weights_only` optimizer, generators
    and `training_state.json`.

    `info` is the caller's (branch, cursors, finished items …); global step, optimizer, threads,
    device, versions and world size are added. With `ranks` all of them call it: rank 0 has the
    state, the others None. Raises RanksDiffer where their weights are not the same.
    """
    ranks = ranks or ALONE
    model = loaded.model
    if ranks.size > 1 and not ranks.sharded:
        ranks.same("the weights", fingerprint(model))
    twin = adapter = None
    if loaded.method == "full":
        twin = _stand_in(model)
        weights = dict(model.state_dict(keep_vars=ranks.sharded))
    else:
        import peft

        # peft's own save_pretrained would write a model card and may ask the hub.
        weights = dict(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
        adapter = copy.deepcopy(model.peft_config["default"])
    if ranks.sharded:
        weights = gathered(weights, ranks.rank)
    if weights_only:
        captured = Captured(twin, adapter, weights, None, {}, loaded.folder)
        return captured if ranks.rank == 0 else None
    full = {
        **info,
        "global_step": schedule.global_step,
        "optimizer": rule_of(schedule.training),
        "method": loaded.method,
        "attention": model.config._attn_implementation,
        "dtype": loaded.dtype,
        "device": loaded.device,
        "threads": torch.get_num_threads(),
        "versions": libraries(loaded.method),
        "world_size": ranks.size,
    }
    texts = {
        RNG: json.dumps(ranks_rng_to_json(ranks)),
        INFO: json.dumps(full, indent=1, sort_keys=True) + "\n",
    }
    state = capture_optimizer(model, optimizer, rule_of(schedule.training), ranks.rank)
    captured = Captured(twin, adapter, weights, state, texts, loaded.folder)
    return captured if ranks.rank == 0 else None


def write_state(folder: Path, captured: Captured) -> None:
    """Write a captured state into the existing `folder`. On any thread; the long writes let other
    threads run. Raises OSError: then discard the folder."""
    try:
        _write(folder, captured)
    except SafetensorError as error:
        # It says a full disk as text; for callers it is what a plain write would have raised.
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error), str(folder)) from error


def _write(folder: Path, captured: Captured) -> None:
    if captured.model is not None:
        captured.model.save_pretrained(folder, state_dict=dict(captured.weights))
        write_index(folder)
    else:
        weights = {name: value.contiguous() for name, value in captured.weights.items()}
        save_file(weights, folder / ADAPTER)
        captured.adapter.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        source = captured.tokenizer / name
        if source.is_file():
            shutil.copyfile(source, folder / name)
    if captured.optimizer is not None:
        write_optimizer(folder, captured.optimizer)
    for name, text in captured.texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def save_state(
    folder: Path,
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer,
    schedule: GlobalSchedule,
    info: dict[str, Any],
    *,
    weights_only: bool = False,
) -> None:
    """Capture and write at once. Raises OSError: then discard the folder."""
    captured = capture_state(loaded, optimizer, schedule, info, weights_only=weights_only)
    write_state(folder, captured)


def read_info(folder: Path) -> dict[str, Any]:
    """`training_state.json` of a saved state. Raises VerificationFailed."""
    try:
        info: dict[str, Any] = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VerificationFailed(f"cannot be read: {error}", where=str(folder / INFO)) from None
    return info


def _tensors(folder: Path, pattern: str) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise VerificationFailed("has no weights", where=str(folder))
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except Exception as error:  # safetensors raises a class of its own from Rust
            raise VerificationFailed(f"damaged: {error}", where=str(file)) from None
    return tensors


@torch.no_grad()
def restore_weights(folder: Path, loaded: LoadedModel, *, cast: bool = False) -> None:
    """Copy a saved model's (or adapter's) weights into the live one, in place; `cast`: weights of
    another program, whose dtype may be another one."""
    model = loaded.model
    if loaded.method == "full":
        tensors = _tensors(folder, "model*.safetensors")
        own = model.state_dict(keep_vars=True)
        if not tensors.keys() <= own.keys():
            # The saved names are the architecture's original ones: let transformers map them.
            fresh = type(model).from_pretrained(folder, dtype=model.dtype, local_files_only=True)
            tensors = fresh.state_dict()
    else:
        tensors = _tensors(folder, ADAPTER)
        own = {
            # An embedding's adapters are parameters, a linear layer's modules with a weight each.
            name.replace(".default.", ".").removesuffix(".default"): p
            for name, p in model.named_parameters()
            if p.requires_grad
        }
    done = set()
    for name, value in tensors.items():
        target = own.get(name)
        same = target is not None and (cast or target.dtype == value.dtype)
        if target is None or target.shape != value.shape or not same:
            raise VerificationFailed(f"tensor {name} does not fit the model", where=str(folder))
        target.copy_(part_of(value, target))
        done.add(local(target).data_ptr())
    missing = [name for name, p in own.items() if p.numel() and local(p).data_ptr() not in done]
    if missing:
        raise VerificationFailed(f"tensor {missing[0]} is missing", where=str(folder))


def restore_state(
    folder: Path,
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer,
    schedule: GlobalSchedule,
    *,
    weights: bool = True,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Bring model, optimizer, schedule and generators to a saved state; returns its info.

    `weights=False` where `load_model(weights=folder)` has just read them. Rates come from the
    schedule's settings, not from the saved groups. Raises VerificationFailed, and then the live
    state is undefined: load again.
    """
    info = read_info(folder)
    if info["method"] != loaded.method or info["dtype"] != loaded.dtype:
        raise VerificationFailed(
            f"is {info['method']} in {info['dtype']}, the model here {loaded.method} in"
            f" {loaded.dtype}",
            where=str(folder),
            mend="set model.method and model.precision as they were",
        )
    if weights or loaded.method != "full":
        restore_weights(folder, loaded)
    restore_optimizer(folder, loaded.model, optimizer)
    schedule.set(int(info["global_step"]))
    try:
        raw = json.loads((folder / RNG).read_text(encoding="utf-8"))
        step, seed = schedule.global_step, schedule.training.seed
        set_ranks_rng(raw, ranks, seed=seed, step=step)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerificationFailed(f"cannot be read: {error}", where=str(folder / RNG)) from None
    return info
