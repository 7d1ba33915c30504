"""`python -m engine.memory.profile`: what one token and one layer of a model take, by measuring.

The model's own classes run one step on fake tensors (shapes without memory) with one layer and
with two: the difference is what a layer takes, the rest is what embeddings, head and loss take.
So nothing is guessed from a name, and a model of 8 B parameters needs no more memory here than
one of 8 M. On standard input a JSON object (see `profile`); the answer is a Profile, as JSON.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from engine.training import liger
from engine.training.model import add_lora, checkpoint_activations
from engine.training.optim import hidden_matrices
from engine.training.parts import in_parts
from engine.training.quiet import quiet
from queue_store.config import Lora

log = logging.getLogger("trainctl.memory")
Config = transformers.PreTrainedConfig
SMALL = 4096
"""Numbers of a tensor below which bitsandbytes keeps 32-bit states (its min_8bit_size)."""
LENGTHS = (512, 1024)
"""Tokens of a sequence that are measured: two, because the mask of packed rows under sdpa grows
with the square of the length."""

PARTED = 64
"""Tokens of a row, and of a part, where it is asked whether layers take parts."""

MEASUREMENTS = 2 * 2 * len(LENGTHS)
"""Of a profile: with one and two layers, plain and checkpointed, at each length."""
KERNELS = (("jit", "JITFunction"), ("autotuner", "Autotuner"), ("autotuner", "Heuristics"))
"""What carries Triton's kernels out: modules of triton.runtime, and their classes."""
FIXED = ("outer", "inner", "muon_workspace", "largest")
"""Counts that do not grow with the layers."""


class _Watch(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, for as long as each lives."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.live = self.peak = self.first = 0
        self._known: Any = WeakIdKeyDictionary(ref_type=weakref.ref)
        for one in (*model.parameters(), *model.buffers()):
            self.standing(one)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self._count(one.untyped_storage())
        return out

    def standing(self, tensor: torch.Tensor) -> None:
        """It was there before, and is not counted."""
        self._known[tensor.untyped_storage()] = 0

    def again(self) -> None:
        """Look for the peak anew; the one so far is the first."""
        self.first, self.peak = self.peak, self.live

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.live -= size


def measured(
    read: Config, asked: dict[str, Any], layers: int, length: int, checkpointed: bool
) -> tuple[int, int]:
    """Bytes that one sequence takes at most beside parameters and gradients, forward and backward,
    with so many layers; and the same from when head and loss have given theirs back. Embeddings
    and head stand still: what their gradients take does not depend on tokens or layers."""
    model = _model(read, asked, layers)
    model.enable_input_require_grads()  # as in training: what enters the layers wants a gradient
    for outer in _outer(model):
        outer.requires_grad_(False)
    if checkpointed:
        checkpoint_activations(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _fake(model)
        for one in model.parameters():
            if one.requires_grad:
                one.register_post_accumulate_grad_hook(_let_go)
        ids = torch.zeros((1, length), dtype=torch.long)
        positions = torch.arange(length)[None]
        with _Watch(model) as watch:

            def made(module: Any, given: Any, out: Any) -> None:
                out.last_hidden_state.register_hook(lambda slope: watch.again())

            _backbone(model).register_forward_hook(made)
            model(input_ids=ids, position_ids=positions, labels=ids).loss.backward()
    # A gradient is alive when the layers take most: it depends on no token.
    inner = watch.peak - max((p.nbytes for p in model.parameters() if p.requires_grad), default=0)
    return max(watch.first, inner), inner


def _takes_parts(read: Config, asked: dict[str, Any]) -> bool:
    """Whether checkpointed layers take a batch of two rows one by one."""
    model = _model(read, asked, 1)
    model.enable_input_require_grads()
    checkpoint_activations(model)
    with FakeTensorMode(allow_non_fake_inputs=True), in_parts(model, PARTED) as taken:
        _fake(model)
        ids = torch.zeros((2, PARTED), dtype=torch.long)
        positions = torch.arange(PARTED).expand(2, -1)
        model(input_ids=ids, position_ids=positions, labels=ids)
    return not taken.whole


def _backbone(model: Any) -> Any:
    """The model without its head."""
    return getattr(model, "get_base_model", lambda: model)().base_model


def _let_go(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _model(read: Config, asked: dict[str, Any], layers: int) -> Any:
    """The model with so many layers, on the meta device."""
    config = type(read).from_dict(read.to_dict())
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = (text.layer_types * layers)[:layers]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, asked["dtype"]), attn_implementation=asked["attention"]
        )
        if asked.get("liger"):
            liger.patch(model, own_head=True)  # the chunks of its loss are known
        if asked["lora"] is not None:
            model = add_lora(model, Lora(**asked["lora"]), seed=0)
    model.config.use_cache = False
    return model.train()


@contextmanager
def _no_kernels() -> Iterator[None]:
    """While this lasts, Triton computes nothing: what Liger's kernels are given and give is made,
    and kept for the backward pass, by its own code in Python."""
    places = [
        getattr(importlib.import_module(f"triton.runtime.{module}"), name)
        for module, name in KERNELS
    ]
    own = [place.run for place in places]
    try:
        for place in places:
            place.run = lambda *args, **kwargs: None
        yield
    finally:
        for place, run in zip(places, own, strict=True):
            place.run = run


def _outer(model: Any) -> list[torch.nn.Parameter]:
    """The weights of embeddings and head."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    found = {id(one.weight): one.weight for one in modules if one is not None}
    return [*found.values()]


def _fake(model: Any) -> None:
    """Fakes in the place of a model's tensors; a tied weight stays one."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, one in module._parameters.items():
            if one is not None:
                if id(one) not in made:
                    empty = torch.empty(one.shape, dtype=one.dtype)
                    made[id(one)] = torch.nn.Parameter(empty, one.requires_grad)
                module._parameters[name] = made[id(one)]
        for name, one in module._buffers.items():
            if one is not None:
                module._buffers[name] = torch.empty(one.shape, dtype=one.dtype)


def muon_workspace(matrix: torch.Tensor) -> int:
    """Bytes that torch's Muon makes in passing for one matrix: the update, two of it in bf16 and
    two Gram matrices of the shorter side (Newton-Schulz in bf16)."""
    return matrix.nbytes + 4 * matrix.numel() + 4 * min(matrix.shape) ** 2


def _counts(read: Config, asked: dict[str, Any], layers: int) -> dict[str, int]:
    """Parameters by what they are; `small` counts those of tensors that 8-bit optimizers leave
    in 32 bits."""
    model = _model(read, asked, layers)
    hidden, outer = hidden_matrices(model), {id(p) for p in _outer(model)}
    named = list(model.named_parameters())
    trained = [(name, p) for name, p in named if p.requires_grad]
    packed = _packed(model) if asked.get("base") == "nf4" else []
    return {
        "frozen": sum(p.numel() for _, p in named if not p.requires_grad),
        "trained": sum(p.numel() for _, p in trained),
        "trained_bytes": sum(p.nbytes for _, p in trained),
        "hidden": sum(p.numel() for name, p in trained if name in hidden),
        "small": sum(p.numel() for _, p in trained if p.numel() < SMALL),
        "outer": sum(p.numel() for p in _outer(model) if p.requires_grad),
        "inner": max((p.numel() for _, p in trained if id(p) not in outer), default=0),
        "muon_workspace": max((muon_workspace(p) for n, p in trained if n in hidden), default=0),
        "quantized": sum(packed),
        "largest": max(packed, default=0),
    }


def _packed(model: Any) -> list[int]:
    """Numbers of each layer that a 4-bit base has in 4 bits: the linear ones, without the head."""
    outer = {id(one) for one in _outer(model)}
    return [
        one.weight.numel()
        for one in model.modules()
        if isinstance(one, torch.nn.Linear)
        and not one.weight.requires_grad
        and id(one.weight) not in outer
    ]


def profile(
    asked: dict[str, Any], done: Callable[[int], None] = lambda count: None
) -> dict[str, Any]:
    """`asked`: {folder, dtype, attention, lora: {…} or null, base: "nf4" where it is in 4 bits,
    liger: true with Liger's kernels, where they let themselves be measured}; a Profile as a dict.
    Layers are run in full: what they keep for the backward pass is the same. `done` hears of
    measurements, MEASUREMENTS in all."""
    if asked.get("liger"):
        try:
            with _no_kernels():
                return _profile(asked, done)
        except Exception:  # another release of either: the plain kernels take more
            log.warning("measuring Liger's kernels failed", exc_info=True)
        finally:
            liger.put_back()
    return _profile({**asked, "liger": False}, done)


def _profile(asked: dict[str, Any], done: Callable[[int], None]) -> dict[str, Any]:
    read = transformers.AutoConfig.from_pretrained(asked["folder"], local_files_only=True)
    text = read.get_text_config()
    layers = int(text.num_hidden_layers)
    counts = [_counts(read, asked, n) for n in (1, 2)]
    whole = {
        key: two + (layers - 2) * (two - one) if key not in FIXED else two
        for key, one, two in ((key, counts[0][key], counts[1][key]) for key in counts[0])
    }
    return {
        **whole,
        "layers": layers,
        "vocabulary": int(text.vocab_size),
        "tied": bool(getattr(text, "tie_word_embeddings", False)),
        "parts": _takes_parts(read, asked),
        **_ways(read, asked, checkpointed=False, done=done),
        **_ways(read, asked, checkpointed=True, done=done),
    }


def _ways(
    read: Config, asked: dict[str, Any], *, checkpointed: bool, done: Callable[[int], None]
) -> dict[str, dict[str, float]]:
    """Two Ways, of all and of what is inside: each the plane through what one and two layers take
    at two lengths. `done` hears of each measurement."""
    taken: dict[int, list[tuple[int, int]]] = {}
    for length in LENGTHS:
        both = [measured(read, asked, n, length, checkpointed) for n in (1, 2)]
        taken[length] = [(two - one, 2 * one - two) for one, two in zip(*both, strict=True)]
        done(2)
    name = "checkpointed" if checkpointed else "plain"
    return {
        called: _plane({length: values[at] for length, values in taken.items()})
        for at, called in enumerate((name, f"{name}_inner"))
    }


def _plane(taken: dict[int, tuple[int, int]]) -> dict[str, float]:
    """A Way from (a layer's bytes, the rest's) by length."""
    short, long = LENGTHS
    found = {}
    for place, name in ((0, "layer"), (1, "rest")):
        a, b = (taken[length][place] / length for length in LENGTHS)
        square = (b - a) / (long - short)
        found[name], found[f"{name}_square"] = a - square * short, square
    return found


class _Teller:
    """Tells the one who waits how many of all measurements are done."""

    def __init__(self) -> None:
        self.done = 0
        self(0)

    def __call__(self, count: int) -> None:
        self.done += count
        print(json.dumps({"read": self.done, "of": MEASUREMENTS}), flush=True)


def main() -> int:
    quiet()
    transformers.utils.logging.set_verbosity_error()
    try:
        answer = {"ok": True, **profile(json.load(sys.stdin), _Teller())}
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        answer = {"ok": False, "unfinished": reason}
    print(json.dumps(answer), flush=True)
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
