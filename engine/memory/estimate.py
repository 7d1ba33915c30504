"""From a model's profile and config.toml to the bytes that training takes: arithmetic alone.

Three moments are looked at, for the highest of them is the peak:

    backward   weights + optimizer + activations of a micro-batch + the head's gradient
               (+ all gradients, where micro-batches add up to a step)
    gradients  weights + optimizer + all gradients + the activations of the last layer that is left,
               or a second gradient of a tied embedding
    step       weights + optimizer + all gradients + what the optimizer makes in passing

Sources: torch keeps AdamW's two states and Muon's momentum in the parameter's dtype; bitsandbytes
keeps two bytes a number and two float32 a block of 256, and 32-bit states of small tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from queue_store.config import Training

BLOCK = 256
"""Numbers that share a scale in bitsandbytes' 8-bit states."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * BLOCK)
"""Bytes of a number in 4 bits: a scale of 8 bits every 64, and of those a float32 every 256."""
SCALES = 2 * 4 / 64
"""Bytes a number that its scales take in passing, in float32 and twice, while it is unpacked."""
LOGITS = 12
"""Bytes a vocabulary entry and token that the plain loss takes and a fused one (Liger) does not:
the logits in float32, their log-softmax and their gradient."""
CONTEXT_GPU = 600_000_000
"""CUDA's context, kernels and cuBLAS's workspace; an assumption, not measured on a card."""
CONTEXT_CPU = 550_000_000
"""Resident memory of a process with torch and transformers before it loads a model: 541 MB measured
with Python 3.11, torch 2.13 for CPUs and engine.training.run imported."""
SLACK = 0.05
"""The share of a card that its allocator cannot use: what is free lies in pieces."""


@dataclass(frozen=True)
class Way:
    """What activations take: bytes a token and layer, and bytes a token beside the layers; the
    squares are bytes a token and token before it (masks; attention without flash)."""

    layer: float
    layer_square: float
    rest: float
    rest_square: float

    def bytes_per_token(self, layers: int, length: int, spared: float = 0.0) -> float:
        """Of a sequence of so many tokens; `spared` bytes of the rest are not taken."""
        rest = self.rest + length * self.rest_square - spared
        return layers * self.bytes_per_layer(length) + max(0.0, rest)

    def bytes_per_layer(self, length: int) -> float:
        """Of a token of a sequence of so many, in one layer."""
        return self.layer + length * self.layer_square


@dataclass(frozen=True)
class Profile:
    """What engine.memory.profile measured; counts are of numbers, `trained_bytes` of bytes."""

    frozen: int
    trained: int
    trained_bytes: int
    hidden: int
    small: int
    outer: int
    muon_workspace: int
    layers: int
    vocabulary: int
    tied: bool
    plain: Way
    checkpointed: Way
    quantized: int = 0
    """Of the frozen, how many a 4-bit base has in 4 bits."""
    largest: int = 0
    """Numbers of the largest of their layers: it is unpacked for each product."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Profile:
        """From the JSON of a child or of the store. Raises TypeError, KeyError."""
        ways = {name: Way(**told[name]) for name in ("plain", "checkpointed")}
        return cls(**{**told, **ways})


@dataclass(frozen=True)
class Estimate:
    """Bytes, by part. `total` is the peak, at the `moment` named; the parts that stand at that
    moment sum up to it, and `pageable` of the optimizer may leave the card for the host."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    context: int
    pageable: int
    moment: str

    @property
    def total(self) -> int:
        parts = (self.weights, self.gradients, self.optimizer, self.activations, self.workspace)
        return sum(parts) + self.context - self.pageable

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def estimate(
    profile: Profile,
    training: Training,
    *,
    size: int,
    gpu: bool,
    liger: bool = False,
    four_bit: bool = False,
) -> Estimate:
    """The peak of training; `size` bytes a number of the weights (2 or 4), `gpu` whether it is a
    card's memory or the host's, `four_bit` whether the base is in 4 bits (model.method qlora)."""
    quantized = profile.quantized if four_bit else 0
    base = (profile.frozen - quantized) * size + int(quantized * NF4)
    weights = base + profile.trained_bytes
    each = profile.trained_bytes // max(1, profile.trained)
    gradients = profile.trained_bytes
    states = optimizer_bytes(profile, training.optimizer, each)
    tokens = training.batch_size * training.max_length
    way = profile.checkpointed if training.gradient_checkpointing else profile.plain
    spared = profile.vocabulary * LOGITS if liger else 0
    each_token = way.bytes_per_token(profile.layers, training.max_length, spared)
    activations = int(tokens * each_token)
    layer = int(tokens * profile.plain.bytes_per_layer(training.max_length))
    adds_up = training.effective_batch > training.batch_size
    outer = profile.outer * each
    second = outer if profile.tied or adds_up else 0
    workspace = profile.muon_workspace if training.optimizer == "muon" else 0
    # Beside the layers, when the logits have gone: the unpacked layer, and what is computed anew.
    unpacked = int(profile.largest * (size + SCALES)) if four_bit else 0
    anew = layer if training.gradient_checkpointing else 0
    beside = activations - int(tokens * profile.layers * way.bytes_per_layer(training.max_length))
    inner = max(0, unpacked + anew - beside) if unpacked else 0
    moments = (
        ("backward", gradients if adds_up else 0, activations, max(outer, inner)),
        ("gradients", gradients, layer, max(0, second - layer)),
        ("step", gradients, 0, workspace),
    )
    moment, held, active, passing = max(moments, key=lambda one: sum(one[1:]))
    paged = training.optimizer.startswith("paged")
    return Estimate(
        weights=weights,
        gradients=held,
        optimizer=states,
        activations=active,
        workspace=passing,
        context=CONTEXT_GPU if gpu else CONTEXT_CPU,
        pageable=states if paged and gpu else 0,
        moment=moment,
    )


def optimizer_bytes(profile: Profile, optimizer: str, each: int) -> int:
    """Bytes of the optimizer's states; `each` is the bytes of a trained number."""
    if optimizer == "adamw":
        return 2 * profile.trained_bytes
    if optimizer == "muon":
        return (profile.hidden + 2 * (profile.trained - profile.hidden)) * each
    large = profile.trained - profile.small
    return 2 * (large + 4 * -(-large // BLOCK)) + 2 * 4 * profile.small
