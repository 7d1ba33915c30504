"""Which way a model's loss takes: its own, over all logits at once, or in chunks of tokens.

The model's forward stays its own. While it computes a loss, its head hands on a stand-in for the
logits (chunked_loss.Logits), which its loss then computes in chunks. That the two ways agree is
tried on the model itself before the second one is used.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from transformers.loss.loss_utils import ForCausalLMLoss

from engine.kernels import chunk_tokens, chunks_loss
from engine.prepare.collate import IGNORED
from engine.training.chunked_loss import Logits
from engine.training.failures import of_the_machine
from engine.training.liger import of_liger
from engine.training.slices import Sliced
from engine.training.trial import agree, trial_loss
from queue_store.errors import ConfigError

log = logging.getLogger("trainctl.engine")


class LossPath:
    """The way that the loss of `model` takes (a model of transformers, bare or under peft's
    adapters). Made once a model; nothing of the model is touched before `use` asks for chunks."""

    def __init__(self, model: Any) -> None:
        self._model = getattr(model, "get_base_model", lambda: model)()
        self._head: Any = self._model.get_output_embeddings()
        self._refused: str | None = None
        """Why there are no chunks, "" where there are; None while nobody asked."""
        self._fused = of_liger(self._model.forward)
        self._sliced: Sliced | None = None
        self._deferring = False
        self._on = self._trying = False

    @property
    def chunked(self) -> bool:
        """Whether losses are computed in chunks now; with Liger's kernels, those that are not
        Liger's: in evaluation, and of a head that is stepped in slices."""
        return self._on

    @property
    def head_weight(self) -> torch.nn.Parameter | None:
        """The weight of the head whose product losses begin with."""
        found: torch.nn.Parameter | None = getattr(self._head, "weight", None)
        return found

    @contextmanager
    def sliced(self, head: Sliced) -> Iterator[None]:
        """While this lasts, what losses add to the gradient of the head goes to `head`."""
        self._sliced = head
        try:
            yield
        finally:
            self._sliced = None

    def _slices(self) -> bool:
        """Whether the head's gradient of this forward is made in slices. Liger's loss makes it
        whole."""
        return self._trying or (self._sliced is not None and torch.is_grad_enabled())

    def use(self, wanted: str) -> None:
        """Take the way that `training.chunked_loss` names, from the next loss on. Raises
        ConfigError where it is "on" and this model cannot."""
        vocabulary = int(self._model.config.get_text_config().vocab_size)
        self._on = False
        if not chunks_loss(wanted, vocabulary):
            return
        if self._refused is None:
            self._refused = self._cannot() or self._install() or self._try()
            if self._refused:
                log.info("the loss is not computed in chunks: %s", self._refused)
        if self._refused and wanted == "on":
            raise ConfigError(
                f"the loss of this model cannot be computed in chunks: {self._refused}",
                where='training.chunked_loss = "on"',
                mend='use "auto" or "off"',
            )
        self._on = not self._refused

    def _cannot(self) -> str:
        if self._head is None:
            return "it has no head"
        if hasattr(self._head, "base_layer"):
            return "an adapter stands on its head"
        if not self._plain_head():
            return f"its head is a {type(self._head).__name__}, not a plain linear layer"
        if self._model.loss_function is not ForCausalLMLoss:
            return "it has a loss of its own"
        return ""

    def _plain_head(self) -> bool:
        """An adapter, a quantized head or one that FSDP shards by itself is another class, whose
        output is not the product with its weight."""
        return type(self._head) is torch.nn.Linear

    def _install(self) -> str:
        model, head = self._model, self._head
        own_forward, own_head, own_loss = model.forward, head.forward, model.loss_function
        # Liger's patch hides the class's forward, which asks the head.
        asking = MethodType(type(model).forward, model) if self._fused else own_forward

        @functools.wraps(own_forward)  # Trainer and we look at the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._on or kwargs.get("labels") is None:
                return own_forward(*args, **kwargs)
            self._deferring = True
            try:
                out = (asking if self._slices() else own_forward)(*args, **kwargs)
            finally:
                self._deferring = False
            if not isinstance(out.get("logits"), Logits):
                return out
            return type(out)(**{key: value for key, value in out.items() if key != "logits"})

        @functools.wraps(own_head)
        def head_forward(hidden: torch.Tensor) -> Any:
            if self._deferring and self._plain_head():
                sliced = self._sliced if torch.is_grad_enabled() else None
                return Logits(hidden, head.weight, head.bias, sliced)
            return own_head(hidden)

        @functools.wraps(own_loss)
        def loss(logits: Any, labels: Any, vocab_size: int, *args: Any, **kwargs: Any) -> Any:
            if isinstance(logits, Logits):
                return _chunked(logits, labels, *args, **kwargs)
            return own_loss(logits, labels, vocab_size, *args, **kwargs)

        model.forward, head.forward, model.loss_function = forward, head_forward, loss
        return ""

    def _try(self) -> str:
        """Both ways on a few tokens; "" where they agree, else why the second one is not used."""
        try:
            plain = trial_loss(self._model)
            self._on = True
            chunked = [trial_loss(self._model)]
            if self._fused:
                self._trying = True
                chunked.append(trial_loss(self._model))
        except (TypeError, AttributeError, ValueError, RuntimeError) as error:
            if of_the_machine(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return f"its forward needs the logits themselves ({reason})"
        finally:
            self._on = self._trying = False
        for one in chunked:
            if not agree(one, plain, self._head.weight.dtype):
                return f"a trial gives {one:.6g}, the plain way {plain:.6g}"
        return ""


def _chunked(
    logits: Logits,
    labels: torch.Tensor,
    num_items_in_batch: Any = None,
    ignore_index: int = IGNORED,
    shift_labels: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """As transformers' ForCausalLMLoss: token n predicts token n + 1; the sum is divided by the
    items of the whole step, else by the tokens that have a label."""
    if ignore_index != IGNORED:
        raise ValueError(f"labels to ignore are {IGNORED}")
    if shift_labels is None:
        shift_labels = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]
    weight = logits.weight
    total = logits.loss(shift_labels, chunk_tokens(weight.shape[0], weight.device.type))
    if num_items_in_batch is None:
        return total / (shift_labels != IGNORED).sum()
    if torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return total / num_items_in_batch
