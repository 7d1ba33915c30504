"""The language-model head and its cross-entropy in chunks of tokens, with gradients in the forward.

The logits of a batch, [tokens, vocabulary], are the largest tensor of training a small model. Here
they stand in memory for a few tokens at a time: each chunk's loss and its gradients by the hidden
states and the head are computed at once and kept, as in Liger's fused linear cross-entropy
(arXiv 2410.10989, section 3.2), so nothing is computed twice. Tokens without a label have no loss
and no gradient, and get no logits at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from engine.prepare.collate import IGNORED
from engine.training.slices import Sliced

Step = Callable[[torch.Tensor], torch.Tensor]
"""What a model does with its logits before the loss, element by element."""


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which losses and gradients are summed up."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def _stepped(logits: torch.Tensor, steps: tuple[Step, ...]) -> torch.Tensor:
    """What the loss sees of logits, which it can be differentiated by."""
    with torch.enable_grad():
        stepped = logits.requires_grad_(bool(steps))
        for step in steps:
            stepped = step(stepped)
    return stepped


def _before_steps(
    slope: torch.Tensor, stepped: torch.Tensor, logits: torch.Tensor, steps: tuple[Step, ...]
) -> torch.Tensor:
    """The gradient by the logits, of the one by what became of them. Without steps it may lie in
    the memory of the logits, which are overwritten."""
    if steps:
        (slope,) = torch.autograd.grad(stepped, logits, slope.to(logits.dtype))
        return slope
    return slope if slope.dtype == logits.dtype else logits.copy_(slope)


def _loss_and_slope(
    logits: torch.Tensor, labels: torch.Tensor, steps: tuple[Step, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The sum of a chunk's losses, each token's log of the sum of exponentials [tokens], and the
    loss's gradient by the `logits` [tokens, vocabulary]. One tensor of their size in float32 stands
    in passing; torch's log_softmax of bf16 makes two."""
    stepped = _stepped(logits, steps)
    seen, wide = stepped.detach(), _wide(logits.dtype)
    at = torch.arange(len(labels), device=labels.device), labels
    top = seen.amax(1, keepdim=True).to(wide)
    slope = torch.sub(seen, top).exp_()
    total = slope.sum(1, keepdim=True)
    log_sum = (total.log() + top)[:, 0]
    loss = (log_sum - seen[at]).sum()
    slope /= total
    slope[at] -= 1
    return loss, log_sum, _before_steps(slope, stepped, logits, steps)


@dataclass
class HeadShare:
    """Of the gradient of a head what a loss adds, from the `hidden` states [tokens, width] of the
    tokens that have `labels` [tokens]; `log_sums` [tokens] as above; `slope` is the gradient by the
    loss, a scalar."""

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    labels: torch.Tensor
    log_sums: torch.Tensor
    steps: tuple[Step, ...]
    slope: torch.Tensor

    @property
    def tokens(self) -> int:
        return len(self.labels)

    def add_to(self, gradient: torch.Tensor, first: int) -> None:
        """Add its rows from `first` on to `gradient` [rows, width]."""
        last = first + len(gradient)
        bias = None if self.bias is None else self.bias[first:last]
        logits = torch.nn.functional.linear(self.hidden, self.weight[first:last], bias)
        stepped = _stepped(logits, self.steps)
        slope = torch.sub(stepped.detach(), self.log_sums[:, None]).exp_()
        inside = ((self.labels >= first) & (self.labels < last)).nonzero()[:, 0]
        slope[inside, self.labels[inside] - first] -= 1
        slope *= self.slope
        slope = _before_steps(slope, stepped, logits, self.steps)
        gradient.addmm_(slope.t(), self.hidden)


class HeadLoss(torch.autograd.Function):
    """The sum of cross-entropies over all tokens that have a label, in nats; a scalar in float32
    (float64 for a model in float64).

    `hidden` [tokens, width], `weight` [vocabulary, width], `bias` [vocabulary] or None, `labels`
    [tokens] with IGNORED where there is none; `steps` as above; `tokens` of a chunk; `learning`
    False where no gradient will be asked for. With the head `sliced`, whose `gate` is given beside,
    `weight` is detached. One backward only: the kept gradients go away in it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        steps: tuple[Step, ...],
        tokens: int,
        learning: bool,
        sliced: Sliced | None = None,
        gate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        wide = _wide(weight.dtype)
        wants = [learning and need for need in ctx.needs_input_grad[:3]]
        # Over the chunks a head's gradient is summed up in float32, and rounded once.
        by_hidden = torch.zeros_like(hidden) if wants[0] else None
        by_weight = torch.zeros_like(weight, dtype=wide) if wants[1] else None
        by_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and wants[2] else None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        labelled = (labels != IGNORED).nonzero()[:, 0]
        log_sums = []
        for rows in labelled.split(tokens):
            part = hidden[rows]
            logits = torch.nn.functional.linear(part, weight, bias)
            loss, log_sum, slope = _loss_and_slope(logits, labels[rows], steps)
            del logits
            total += loss
            log_sums.append(log_sum)
            if by_hidden is not None:
                by_hidden[rows] = slope @ weight
            if by_weight is not None:
                if by_weight.dtype == slope.dtype:
                    by_weight.addmm_(slope.t(), part)
                else:
                    by_weight += slope.t() @ part
            if by_bias is not None:
                by_bias += slope.sum(0, dtype=wide)
            del slope
        ctx.kept = (by_hidden, by_weight, by_bias)
        ctx.dtype, ctx.sliced = weight.dtype, sliced
        if sliced is not None and learning:
            # The bias is stepped before the slices are made, with which it has to be as it was.
            own = None if bias is None else bias.detach().clone()
            known = (hidden[labelled], weight, own, labels[labelled], torch.cat(log_sums), steps)
            ctx.share = functools.partial(HeadShare, *known)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            raise RuntimeError("a chunked loss has one backward")
        found = [None if one is None else one.mul_(slope).to(ctx.dtype) for one in kept]
        gate = None
        if ctx.sliced is not None:
            gate = ctx.sliced.add(ctx.share(slope))
            ctx.share = None
        return (*found, None, None, None, None, None, gate)


class Logits:
    """Stands where a model's forward expects its logits: where they would come from (the head may
    be `sliced`), and what the forward did with them. Knows division and multiplication by a number
    and tanh; anything else raises TypeError or AttributeError."""

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        sliced: Sliced | None = None,
        steps: tuple[Step, ...] = (),
    ) -> None:
        self.hidden, self.weight, self.bias, self.steps = hidden, weight, bias, steps
        self.sliced = sliced

    def _then(self, step: Step) -> Logits:
        return Logits(self.hidden, self.weight, self.bias, self.sliced, (*self.steps, step))

    def __truediv__(self, by: Any) -> Logits:
        return self._then(lambda x: x / by) if isinstance(by, int | float) else NotImplemented

    def __mul__(self, by: Any) -> Logits:
        return self._then(lambda x: x * by) if isinstance(by, int | float) else NotImplemented

    __rmul__ = __mul__

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tanh and not kwargs:
            return args[0]._then(torch.tanh)
        return NotImplemented

    def loss(self, labels: torch.Tensor, tokens: int) -> torch.Tensor:
        """The sum over the tokens that have a label; `labels` say what each token predicts."""
        width, sliced = self.hidden.shape[-1], self.sliced
        total: torch.Tensor = HeadLoss.apply(
            self.hidden.reshape(-1, width),
            self.weight if sliced is None else self.weight.detach(),
            self.bias,
            labels.reshape(-1).to(self.hidden.device),
            self.steps,
            tokens,
            torch.is_grad_enabled(),
            sliced,
            None if sliced is None else sliced.gate.tensor,
        )
        return total
