"""An optimizer's complete state as safetensors and JSON, keyed by parameter names; exact back.

No pickle. Tensors are put straight into the optimizer, not through `load_state_dict`, which casts
them and which bitsandbytes makes a deep copy for (8 GB for a model of 4 B parameters).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engine.training.sharded import is_part, part_of, whole
from queue_store.errors import VerificationFailed

TENSORS = "optimizer.safetensors"
GROUPS = "optimizer.json"


def _kind(optimizer: torch.optim.Optimizer) -> str:
    return type(optimizer).__name__


def _names(model: torch.nn.Module) -> dict[int, str]:
    return {id(p): name for name, p in model.named_parameters()}


@dataclass(frozen=True)
class OptimizerState:
    """What the two files will hold: `tensors` by "parameter/key" (still the optimizer's own, until
    somebody copies them) and the text of `optimizer.json`."""

    tensors: dict[str, torch.Tensor]
    text: str


def capture_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, rule: str, rank: int = 0
) -> OptimizerState:
    """The optimizer's state at this moment, by the names of the model's parameters. Of a split
    model it is gathered to rank 0, and all ranks call it.

    Tensors that share memory (bitsandbytes' quantization maps, one for all parameters) are
    named once and listed as `shared`. `rule` is the optimizer's name in config.toml.
    """
    names = _names(model)
    tensors: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}
    scalars: dict[str, dict[str, Any]] = {}
    on_cpu: list[str] = []
    seen: dict[tuple[int, int, str], str] = {}
    for parameter, state in optimizer.state.items():
        name = names[id(parameter)]
        for key, value in state.items():
            if not isinstance(value, torch.Tensor):
                scalars.setdefault(name, {})[key] = value
                continue
            full = f"{name}/{key}"
            value = whole(value, rank)
            if value.device.type == "cpu" and parameter.device.type != "cpu":
                on_cpu.append(full)
            mark = (value.data_ptr(), value.numel(), str(value.dtype))
            if value.numel() and mark in seen:
                shared[full] = seen[mark]
                continue
            seen[mark] = full
            tensors[full] = value.detach().contiguous()
    groups = [
        {
            "params": [names[id(p)] for p in group["params"]],
            "values": {k: v for k, v in group.items() if k != "params"},
        }
        for group in optimizer.param_groups
    ]
    text = json.dumps(
        {
            "rule": rule,
            "kind": _kind(optimizer),
            "groups": groups,
            "scalars": scalars,
            "shared": shared,
            "on_cpu": on_cpu,
        }
    )
    return OptimizerState(tensors, text)


def write_optimizer(folder: Path, state: OptimizerState) -> None:
    """Write `optimizer.safetensors` and `optimizer.json` into `folder`."""
    save_file(state.tensors, folder / TENSORS)
    (folder / GROUPS).write_text(state.text, encoding="utf-8")


def _like(old: Any, new: Any) -> Any:
    """JSON has no tuples: give the value the type that the optimizer has there."""
    return tuple(new) if isinstance(old, tuple) else new


def _place(
    optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, value: torch.Tensor, key: str
) -> torch.Tensor:
    """The tensor in memory of its own on the parameter's device; in paged memory where the
    optimizer pages it. Loaded tensors are views of the mapped file, whose alignment differs."""
    if value.shape == parameter.shape and is_part(parameter):
        return part_of(value, parameter)
    paged = getattr(optimizer, "is_paged", False) and key in ("state1", "state2")
    if paged and parameter.device.type == "cuda" and value.shape == parameter.shape:
        buffer: torch.Tensor = optimizer.get_state_buffer(parameter, dtype=value.dtype)  # type: ignore[attr-defined]
        torch.cuda.synchronize()  # some machines let the host touch no page while the card works
        buffer.copy_(value)
        return buffer
    return value.clone() if parameter.device.type == "cpu" else value.to(parameter.device)


def restore_optimizer(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Make `optimizer` (new or used, of the same rule and parameters) what it was when saved.

    Raises VerificationFailed where the files are missing, damaged, or of another optimizer.
    """
    where = str(folder / GROUPS)
    try:
        saved = json.loads((folder / GROUPS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, RuntimeError) as error:
        raise VerificationFailed(f"cannot be read: {error}", where=where) from None
    except Exception as error:  # safetensors raises a class of its own from Rust
        raise VerificationFailed(f"damaged: {error}", where=str(folder / TENSORS)) from None
    names = _names(model)
    groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    if saved["kind"] != _kind(optimizer) or [g["params"] for g in saved["groups"]] != groups:
        raise VerificationFailed(
            f"the state of {saved['rule']} ({saved['kind']}) does not fit {_kind(optimizer)}"
            " over these parameters",
            where=where,
            mend="set training.optimizer as it was",
        )
    for group, old in zip(optimizer.param_groups, saved["groups"], strict=True):
        for key, value in old["values"].items():
            group[key] = _like(group.get(key), value)
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    on_cpu = set(saved["on_cpu"])
    placed: dict[str, torch.Tensor] = {}
    for full, value in tensors.items():
        name, key = full.rsplit("/", 1)
        stay = full in on_cpu and not getattr(optimizer, "is_paged", False)
        parameter = parameters[name]
        placed[full] = value.clone() if stay else _place(optimizer, parameter, value, key)
        optimizer.state[parameter][key] = placed[full]
    for full, first in saved["shared"].items():
        name, key = full.rsplit("/", 1)
        optimizer.state[parameters[name]][key] = placed[first]
    for name, values in saved["scalars"].items():
        optimizer.state[parameters[name]].update(values)
