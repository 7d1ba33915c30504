"""From a model's profile and config.toml to the bytes that training takes: arithmetic alone.

Four moments are looked at, for the highest of them is the peak; weights and states always stand:

    backward   activations of a micro-batch + its logits, or what is left of them and the head's
               gradient
               (+ all gradients, where micro-batches add up to a step)
    layers     activations, of the last layer computed anew where they are checkpointed + the
               gradient of a layer's matrix (+ all gradients, where micro-batches add up)
    gradients  all gradients + the activations of the last layer that is left, or a second gradient
               of a tied embedding and their sum
    step       all gradients + what the optimizer makes in passing

With training.in_backward no gradients stand but the one that arrives and a tied head's first half,
and the step of a tensor falls into the moment in which its gradient is whole; checkpointed layers
take the batch in parts, with what a part computes anew and the gradients of a layer. A loss in
chunks (Liger's, training.chunked_loss) has no logits but a chunk's. With both (but Liger's)
embedding and head are stepped in slices: no more of their gradients stands than a slice's.

Sources: torch keeps AdamW's two states and Muon's momentum in the parameter's dtype; bitsandbytes
keeps two bytes a number and two float32 a block of 256, and 32-bit states of small tensors; what
stochastic rounding makes in passing stands in engine.training.rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.kernels import chunk_tokens, chunks_loss, rows_of_part, slice_rows
from queue_store.config import Training

BLOCK = 256
"""Numbers that share a scale in bitsandbytes' 8-bit states."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * BLOCK)
"""Bytes of a number in 4 bits: a scale of 8 bits every 64, and of those a float32 every 256."""
SCALES = 2 * 4 / 64
"""Bytes a number that its scales take in passing, in float32 and twice, while it is unpacked."""
ROUNDED = 1 << 22
"""Numbers that are rounded stochastically at once (engine.training.rounding.CHUNK)."""
CHUNKED = {2: 6, 4: 8}
"""Bytes of a chunk's logits, a number, by the bytes of a number of the weights: the logits, and
their gradient in float32."""
HEAD = 16
"""Bytes a number of the hidden states that stand at the head: as the last layer gave them, normed
in float32, a chunk's, and their gradient; what counted tensors of small models come to."""
ON_CARD = 2
"""Layers whose checkpointed inputs are on the card where the others wait in host memory."""
CONTEXT_GPU = 600_000_000
"""CUDA's context, kernels and cuBLAS's workspace; an assumption, not measured on a card."""
CONTEXT_CPU = 550_000_000
"""Resident memory of a process with torch and transformers before it loads a model: 541 MB measured
with Python 3.11, torch 2.13 for CPUs and engine.training.run imported."""
WAYS = ("plain", "checkpointed", "plain_inner", "checkpointed_inner")
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

    def bytes_per_token(self, layers: int, length: int) -> float:
        """Of a sequence of so many tokens."""
        return layers * self.bytes_per_layer(length) + self.bytes_beside(length)

    def bytes_beside(self, length: int) -> float:
        """Of a token beside the layers, and of what is computed anew of a checkpointed one."""
        return max(0.0, self.rest + length * self.rest_square)

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
    inner: int
    """The largest trained tensor of the layers."""
    muon_workspace: int
    layers: int
    vocabulary: int
    tied: bool
    plain: Way
    checkpointed: Way
    plain_inner: Way
    checkpointed_inner: Way
    """The same two without head and loss: what stands when the first layer's backward pass runs,
    or where the loss holds no logits."""
    quantized: int = 0
    """Of the frozen, how many lie in 4 bits."""
    largest: int = 0
    """Numbers of the largest of their layers: it is unpacked for each product."""
    parts: bool = True
    """Whether checkpointed layers take a batch in parts (engine.training.parts)."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Profile:
        """From the JSON of a child or of the store. Raises TypeError, KeyError."""
        ways = {name: Way(**told[name]) for name in WAYS}
        return cls(**{**told, **ways})


@dataclass(frozen=True)
class Estimate:
    """Bytes, by part. `total` is the peak, at the `moment` named; the parts that stand at that
    moment sum up to it, and `pageable` of the optimizer may leave the card for the host."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    context: int
    pageable: int
    moment: str

    @property
    def total(self) -> int:
        parts = (self.weights, self.gradients, self.optimizer, self.activations, self.logits)
        return sum(parts) + self.workspace + self.context - self.pageable

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Ranks:
    """So many processes that train together, each with a copy of the model, or `sharded` (FSDP)
    with a part of it. What is estimated is one's share."""

    size: int = 1
    sharded: bool = False

    @property
    def parts(self) -> int:
        """Of weights, gradients and states."""
        return self.size if self.sharded else 1


ALONE = Ranks()


def estimate(
    profile: Profile,
    training: Training,
    *,
    size: int,
    gpu: bool,
    liger: bool = False,
    flash: bool = False,
    ranks: Ranks = ALONE,
) -> Estimate:
    """The peak of training; `size` bytes a number of the weights (2 or 4), `gpu` whether it is a
    card's memory or the host's, `liger` whether the loss is Liger's, `flash` whether attention is
    flash's (a batch is one sequence then, which layers take whole)."""
    base = (profile.frozen - profile.quantized) * size + int(profile.quantized * NF4)
    each = profile.trained_bytes // max(1, profile.trained)
    states = optimizer_bytes(profile, training, each) // ranks.parts
    moments = _Moments(profile, training, size, each, gpu, liger, flash, ranks)
    highest = max(moments.all(), key=lambda one: one.total)
    paged = training.optimizer.startswith("paged")
    return Estimate(
        weights=(base + profile.trained_bytes) // ranks.parts,
        gradients=highest.gradients,
        optimizer=states,
        activations=highest.activations,
        logits=highest.logits,
        workspace=highest.workspace,
        context=CONTEXT_GPU if gpu else CONTEXT_CPU,
        pageable=states if paged and gpu else 0,
        moment=highest.name,
    )


@dataclass(frozen=True)
class _Moment:
    """What stands at a moment beside weights and states, bytes."""

    name: str
    gradients: int
    activations: int
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        return self.gradients + self.activations + self.logits + self.workspace


class _Moments:
    """The moments that may be the peak."""

    def __init__(
        self,
        profile: Profile,
        training: Training,
        size: int,
        each: int,
        gpu: bool,
        liger: bool,
        flash: bool,
        ranks: Ranks,
    ) -> None:
        self.profile, self.training, self.size, self.each = profile, training, size, each
        # Several copies keep their gradients in buckets, which stand from the first step on.
        copies = ranks.size > 1 and not ranks.sharded
        self.adds_up = training.effective_batch > training.batch_size * ranks.size or copies
        self.gradients = profile.trained_bytes // ranks.parts
        heads = 1 if profile.tied else 2
        self.head_numbers = profile.outer // heads
        self.head, self.inner = self.head_numbers * each, profile.inner * each
        self.tokens, self.length = training.batch_size * training.max_length, training.max_length
        whole, kept = self._kept()
        self.layer = int(self.tokens * profile.plain.bytes_per_layer(self.length))
        self.begin = int(self.tokens * profile.checkpointed.bytes_per_layer(self.length))
        """Of the hidden states with which one layer begins."""
        chunks = chunks_loss(training.chunked_loss, profile.vocabulary)
        self.sliced = training.in_backward and chunks and self.head > 0
        device = "cuda" if gpu else "cpu"
        self.losses = self._losses(max(0, whole - kept), device, chunks, liger)
        if training.activation_offload and gpu:
            kept -= self.begin * max(0, profile.layers - ON_CARD)
        self.activations = self.first = kept
        if training.in_backward and training.gradient_checkpointing:
            self._in_parts(profile.parts and not flash, chunks or liger, whole > kept)
        self.gathered = self._gathered() if ranks.sharded else 0

    def _kept(self) -> tuple[int, int]:
        """What activations take with head and loss, and without."""
        profile, ways = self.profile, (self.profile.plain, self.profile.plain_inner)
        if self.training.gradient_checkpointing:
            ways = (profile.checkpointed, profile.checkpointed_inner)
        each = (way.bytes_per_token(profile.layers, self.length) for way in ways)
        whole, kept = (int(self.tokens * one) for one in each)
        return whole, kept

    def _in_parts(self, parts: bool, chunks: bool, logits: bool) -> None:
        """Checkpointed layers take the batch in `parts`. Nothing of a layer that is computed anew
        stands beside the head, which is known of a loss in `chunks`; without, what was measured
        has both where the `logits` are the more."""
        tokens, part = self.tokens, self.tokens
        if parts:
            part = rows_of_part(self.training.batch_size, self.length) * self.length
        anew = self.profile.checkpointed_inner.bytes_beside(self.length)
        if chunks or not logits:
            self.first += self.begin * HEAD // self.size - int(tokens * anew)
        if not chunks and not logits:
            self.losses = [(tokens * self.profile.vocabulary * CHUNKED[self.size], self.head)]
        if part < tokens:
            # Outside its part a layer has the gradients of what it gave and of what it got; those
            # of its weights are summed up over the parts.
            others = 2 * self.begin / tokens
            self.activations -= int((tokens - part) * max(0.0, anew - others))
            inside = self.profile.trained_bytes - self.profile.outer * self.each
            self.inner = max(self.inner, inside // self.profile.layers)

    def _losses(self, logits: int, device: str, chunks: bool, liger: bool) -> list[tuple[int, int]]:
        """(logits, the head's gradient) when the loss takes most, and when that gradient is made.
        One of chunks is summed up in float32, each chunk's part in the dtype of the weights."""
        profile, size, head, tokens = self.profile, self.size, self.head, self.tokens
        chunk = min(tokens, chunk_tokens(profile.vocabulary, device)) * profile.vocabulary
        if self.sliced:
            width = self.head_numbers // profile.vocabulary
            rows = min(profile.vocabulary, slice_rows(width, tokens, device))
            slope, logits = rows * width * self.each, rows * tokens * CHUNKED[size]
            return [(chunk * CHUNKED[size], 0), (logits, slope), (0, slope + self._step_head())]
        if liger:
            return [(0, head)]
        if chunks:
            summed = 4 * self.head_numbers
            made = summed + (head if self.each < 4 else 0)
            return [(chunk * CHUNKED[size], summed), (chunk * size, made)]
        return [(logits, 0), (min(logits, tokens * profile.vocabulary * size), head)]

    def _backward(self, standing: int, kept: int, whole: int) -> list[_Moment]:
        """The start of the backward pass, beside so many bytes of gradients that stand."""
        found = []
        for logits, slope in self.losses:
            own = 0 if standing else min(slope, self.head)
            found.append(_Moment("backward", standing + own, kept, logits, slope - own + whole))
        return found

    def _gathered(self) -> int:
        """Whole weights that stand beside a rank's parts: those outside the layers, a layer that
        computes and the next one; and the gradients of a layer before they are summed up."""
        profile = self.profile
        layer = (profile.frozen + profile.trained - profile.outer) // profile.layers
        own = (profile.trained - profile.outer) // profile.layers
        return (profile.outer + 2 * layer) * self.size + own * self.each

    def all(self) -> tuple[_Moment, ...]:
        unpacked = int(self.profile.largest * (self.size + SCALES))
        if self.training.in_backward:
            return self._in_backward(unpacked)
        gradients, kept, whole = self.gradients, self.activations, self.gathered
        standing = gradients if self.adds_up else 0
        first = standing or self.head
        # A tied head's two gradients and their sum meet; what adds up has a sum of its own.
        second = 2 * self.head if self.profile.tied else 0
        second += self.head if self.adds_up else 0
        return (
            *self._backward(standing, kept, whole),
            _Moment("layers", first, kept, 0, self.inner + unpacked + whole),
            _Moment("gradients", gradients, self.layer, 0, max(0, second - self.layer) + whole),
            _Moment("step", gradients, 0, 0, max(self._step_head(), self._step_inner())),
        )

    def _in_backward(self, unpacked: int) -> tuple[_Moment, ...]:
        """Each gradient goes as soon as it is whole: a tied head's at the very end, when the rows
        that were looked up are added to it (engine.training.lookups)."""
        first, kept, passing = self.first, self.activations, self._step_inner() + unpacked
        rows = self.begin * self.each // self.size
        if self.sliced:
            # A tied head waits for its slices with the hidden states they are made from.
            waits = self.begin if self.profile.tied else 0
            ends = ((logits, slope) for logits, slope in self.losses[1:] if waits or not logits)
            return (
                *self._backward(0, first, 0),
                _Moment("layers", self.inner, kept + waits, 0, passing),
                *(_Moment("step", slope, waits, logits, rows) for logits, slope in ends),
            )
        stays = self.head if self.profile.tied else 0
        rows = rows if stays else 0
        stepped = 0 if stays else self._step_head()
        return (
            *self._backward(0, first, 0),
            _Moment("backward", self.head, first, 0, stepped),
            _Moment("layers", stays + self.inner, kept, 0, passing),
            _Moment("step", self.head, 0, 0, 2 * rows + self._step_head()),
        )

    # -- what the step of one tensor takes in passing

    def _rounded(self, bits8: bool, numbers: int) -> int:
        """Where weights in bf16 are rounded stochastically, part by part."""
        if self.each != 2 or self.training.rounding == "nearest":
            return 0
        return min(numbers, ROUNDED) * (13 if bits8 else 21)

    def _step_head(self) -> int:
        training = self.training
        rule = training.muon.rest if training.optimizer == "muon" else training.optimizer
        return self._rounded(rule.endswith("8bit"), self.head_numbers)

    def _step_inner(self) -> int:
        if self.training.optimizer != "muon":
            return self._rounded(self.training.optimizer.endswith("8bit"), self.profile.inner)
        exact = self.each == 2 and self.training.rounding != "nearest"
        return self.profile.muon_workspace + (4 * self.profile.inner if exact else 0)


def optimizer_bytes(profile: Profile, training: Training, each: int) -> int:
    """Bytes of the optimizer's states; `each` is the bytes of a trained number."""
    if training.optimizer == "adamw":
        return 2 * profile.trained_bytes
    if training.optimizer != "muon":
        return _in_8_bits(profile.trained, profile.small)
    rest = profile.trained - profile.hidden
    if training.muon.rest == "adamw":
        return (profile.hidden + 2 * rest) * each
    return profile.hidden * each + _in_8_bits(rest, min(rest, profile.small))


def _in_8_bits(numbers: int, small: int) -> int:
    """Of so many numbers, `small` of them in tensors that keep 32 bits."""
    large = numbers - small
    return 2 * (large + 4 * -(-large // BLOCK)) + 2 * 4 * small
