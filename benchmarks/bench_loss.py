"""The loss in chunks of tokens against the model's own: tokens/s of forward and backward, and the
memory that a step takes beside weights and gradients.

A model of small width with vocabularies as they come (32k as Llama 2, 152k as Qwen3), tied; half of
the tokens have a label, or all. Steps of the two ways are interleaved and their order alternates;
the figure is the median of the pairs' ratios.

And steps with AdamW whose loss is in chunks: in the backward pass, with embedding and head in
slices, against the ordinary way.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import msgspec
import torch
import transformers

from benchmarks.figures import at_least, at_most, figure
from engine.memory.profile import _Watch
from engine.prepare.collate import IGNORED
from engine.training.loss_path import LossPath
from engine.training.optim import make_optimizer
from engine.training.quiet import quiet
from engine.training.schedule import GlobalSchedule
from engine.training.stepping import stepping
from queue_store import config

TOKENS = 512
HIDDEN = 256
VOCABULARIES = (32_000, 151_936)


def _model(vocabulary: int) -> Any:
    config = transformers.Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HIDDEN // 4,
        tie_word_embeddings=True,
    )
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()


def _batch(vocabulary: int, trained: float) -> dict[str, torch.Tensor]:
    ids = torch.randint(vocabulary, (1, TOKENS))
    labels = ids.clone()
    labels[:, : round(TOKENS * (1 - trained))] = IGNORED
    return {"input_ids": ids, "labels": labels, "position_ids": torch.arange(TOKENS)[None]}


def _step(model: Any, batch: dict[str, torch.Tensor]) -> None:
    model.zero_grad(set_to_none=True)
    model(**batch, use_cache=False, num_items_in_batch=TOKENS).loss.backward()


def _seconds(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Wall and CPU time of a step."""
    started = time.perf_counter(), time.process_time()
    _step(model, batch)
    return time.perf_counter() - started[0], time.process_time() - started[1]


def _peak(model: Any, batch: dict[str, torch.Tensor]) -> int:
    model.zero_grad(set_to_none=True)
    with _Watch(model) as watch:
        model(**batch, use_cache=False, num_items_in_batch=TOKENS).loss.backward()
    return int(watch.peak)


class _Training:
    """A model with AdamW, stepped `in_backward` or not, for as long as `stack` is open."""

    def __init__(self, vocabulary: int, in_backward: bool, stack: ExitStack) -> None:
        self._model = _model(vocabulary)
        settings = msgspec.structs.replace(
            config.default().training,
            in_backward=in_backward,
            chunked_loss="on",
            effective_batch=1,
            max_grad_norm=0.0,
        )
        optimizer = make_optimizer(self._model, settings)
        path = LossPath(self._model)
        path.use("on")
        schedule = GlobalSchedule(optimizer, settings)
        steps = stepping(self._model, optimizer, schedule, settings, path)
        self._steps = stack.enter_context(steps)
        self._states = optimizer.state

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Wall time."""
        started = time.perf_counter()
        self._model(**batch, use_cache=False, num_items_in_batch=TOKENS).loss.backward()
        self._steps.step()
        self._steps.zero_grad()
        return time.perf_counter() - started

    def peak(self, batch: dict[str, torch.Tensor]) -> int:
        """Bytes of live tensors beside weights and states."""
        with _Watch(self._model) as watch:
            for state in self._states.values():
                for one in state.values():
                    watch.standing(one)
            self.step(batch)
        return int(watch.peak)


def _in_slices(vocabulary: int, pairs: int) -> list[dict[str, Any]]:
    batch = _batch(vocabulary, 1.0)
    with ExitStack() as stack:
        sliced, ordinary = (_Training(vocabulary, way, stack) for way in (True, False))
        ratios = []
        for pair in range(1 + pairs):
            order = (sliced, ordinary) if pair % 2 else (ordinary, sliced)
            seconds = {one: one.step(batch) for one in order}
            if pair:  # the first one makes the states
                ratios.append(seconds[ordinary] / seconds[sliced])
        peaks = [one.peak(batch) / 1e6 for one in (sliced, ordinary)]
    what = f"in the backward pass over the ordinary step, vocabulary {vocabulary:,}"
    return [
        figure(f"speed {what}", ratios, "times"),
        at_most(f"peak of live tensors {what}", [peaks[0] / peaks[1]], "times", 1.0),
        figure("  in slices", peaks[:1], "MB"),
        figure("  ordinary", peaks[1:], "MB"),
    ]


def run(quick: bool) -> dict[str, Any]:
    """Rows {label, value, unit, target, met}."""
    quiet()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for vocabulary in VOCABULARIES:
        model = _model(vocabulary)
        path = LossPath(model)
        for trained in (0.5, 1.0):
            batch = _batch(vocabulary, trained)
            found: dict[str, list[tuple[float, float]]] = {"on": [], "off": []}
            for pair in range(1 + (3 if quick else 9)):
                for way in ("on", "off") if pair % 2 else ("off", "on"):
                    path.use(way)
                    seconds = _seconds(model, batch)
                    if pair:  # the first one fills caches
                        found[way].append(seconds)
            pairs = list(zip(found["on"], found["off"], strict=True))
            wall, cpu = ([plain[n] / ours[n] for ours, plain in pairs] for n in (0, 1))
            what = f"vocabulary {vocabulary:,}, {trained:.0%} of the tokens trained"
            rows.append(at_least(f"chunked over plain loss, {what}", wall, "times", 1.0))
            rows.append(figure("  by CPU time", cpu, "times"))
            speed = [TOKENS / seconds for seconds, _ in found["on"]]
            rows.append(figure("  chunked", speed, "tokens/s"))
        peaks = []
        for way in ("on", "off"):
            path.use(way)
            peaks.append(_peak(model, batch))
        label = f"peak of live tensors, chunked over plain, vocabulary {vocabulary:,}"
        rows.append(at_most(label, [peaks[0] / peaks[1]], "times", 1.0))
        rows.append(figure("  chunked", [peaks[0] / 1e6], "MB"))
        rows.append(figure("  plain", [peaks[1] / 1e6], "MB"))
        rows += _in_slices(vocabulary, 3 if quick else 9)
    return {"rows": rows}
