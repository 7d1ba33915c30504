"""Liger's kernels in a loaded model, with proof: what was replaced, and that the loss is the same.

Liger's patch says nothing of what it did: it returns at once for an architecture that it does not
know, and leaves out modules of some that it knows. How it replaces (liger_kernel.transformers.
monkey_patch, read in version 0.8): a module's `forward` in its instance by a function of its own,
the model's `forward` by one with the fused loss, and in the architecture's modeling module the
rotary function and the classes. The classes are put back here: they would change every model that
this process loads later, a second load of the same one included.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch

from engine.training.failures import of_the_machine
from engine.training.trial import agree, trial_loss
from queue_store.errors import ConfigError

PACKAGE = "liger_kernel"
ROTARY = "apply_rotary_pos_emb"
Replaced = Mapping[str, tuple[int, int]]
"""Kind ("norm", "mlp", "rotary", "loss") to how many of how many were replaced."""

_originals: dict[tuple[str, str], Any] = {}
"""What stood in modules of other packages before Liger, by (module, name)."""


def of_liger(function: Any) -> bool:
    """Whether a function, method or class is one of Liger's."""
    function = getattr(function, "__func__", function)
    return str(getattr(function, "__module__", "")).split(".")[0] == PACKAGE


def replaced(model: Any) -> Replaced:
    """What of `model` is Liger's now, module by module; kinds that the model has."""
    counts: dict[str, list[int]] = {}
    for module in model.modules():
        name = type(module).__name__
        part = "norm" if name.endswith("Norm") else "mlp" if name.endswith("MLP") else ""
        if part:
            found = counts.setdefault(part, [0, 0])
            found[0] += of_liger(module.forward)
            found[1] += 1
    rotary = getattr(sys.modules[type(model).__module__], ROTARY, None)
    if rotary is not None:
        counts["rotary"] = [int(of_liger(rotary)), 1]
    loss = of_liger(model.forward) or of_liger(torch.nn.functional.cross_entropy)
    counts["loss"] = [int(loss), 1]
    return {kind: (some, all_) for kind, (some, all_) in counts.items()}


def words(found: Replaced) -> str:
    """For a line of a log: what is Liger's, and what stayed."""
    return ", ".join(f"{kind} {some} of {all_}" for kind, (some, all_) in found.items())


def put_back() -> None:
    """Undo what an earlier model's patch left in the modules of other packages."""
    for (module, name), original in _originals.items():
        setattr(sys.modules[module], name, original)
    _originals.clear()


def patch(model: Any, *, own_head: bool) -> None:
    """Liger's patch of `model`; the loss stays plain with an `own_head`."""
    places = [sys.modules[type(model).__module__], torch.nn.functional]
    before = [dict(vars(place)) for place in places]
    apply = importlib.import_module(f"{PACKAGE}.transformers")._apply_liger_kernel_to_instance
    apply(model=model, **({"fused_linear_cross_entropy": False} if own_head else {}))
    for place, names in zip(places, before, strict=True):
        for name, original in names.items():
            now = getattr(place, name)
            if now is original or not of_liger(now):
                continue
            if inspect.isclass(now):
                setattr(place, name, original)
            else:
                _originals[place.__name__, name] = original


def apply_liger(model: Any, *, own_head: bool, wanted: str) -> Replaced:
    """Patch `model` (bare, no adapter yet) and prove it; {} where Liger does not know it.

    `own_head`: an adapter will stand on the head, whose product Liger's fused loss would leave
    out; the loss stays plain then. Raises ConfigError where `wanted` is "on" and nothing was
    replaced, and where the patched model does not run or gives another loss.
    """
    plain = trial_loss(model)
    patch(model, own_head=own_head)
    found = replaced(model)
    if not any(some for some, _ in found.values()):
        if wanted == "on":
            raise ConfigError(
                f"Liger has no kernels for {model.config.model_type}: nothing was replaced",
                where='training.liger = "on"',
                mend='use "auto" or "off"',
            )
        return {}
    accepts = inspect.signature(model.forward).parameters
    try:
        patched = trial_loss(model, **({"skip_logits": True} if "skip_logits" in accepts else {}))
    except Exception as error:  # another release of either library fails in ways of its own
        if of_the_machine(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        wrong = f"does not run with Liger's kernels: {reason}"
    else:
        if agree(patched, plain, model.dtype):
            return found
        wrong = f"has the loss {patched:.6g} with Liger's kernels and {plain:.6g} without"
    raise ConfigError(
        f"the model {wrong}",
        where=f'training.liger = "{wanted}"',
        mend='use training.liger = "off"; the versions of liger-kernel and transformers may not'
        " fit each other",
    )
