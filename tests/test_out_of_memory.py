"""A step that does not fit the memory: at an item's first step, and named by its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.training.failures import StepMemory, classify
from queue_store import queue
from queue_store.failures import Cause
from queue_store.items import ItemState
from tests import engine_kit
from tests.training_kit import Bench, Recorder, make_model_folder, prepare_file, training
from tests.waiting import wait_until

LONG = 31
"""The line of the row that is longer than all others."""


def write_rows(path: Path, count: int = 60, words: int = 40) -> Path:
    rows = [
        [
            {"role": "user", "content": f"say {i}"},
            {"role": "assistant", "content": "w1 " * (words if i == LONG else 2 + i % 7)},
        ]
        for i in range(1, count + 1)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


class Card:
    """Room for a batch of so many tokens [B x L]; `seen` are those that were computed."""

    def __init__(self, tokens: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        self.tokens, self.error = tokens, error
        self.seen: list[int] = []

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        size = kwargs["input_ids"].numel()
        if size > self.tokens:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.seen.append(size)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("oom") / "model")


def bench_on(card: Card, model: Path, **changes: Any) -> Bench:
    bench = Bench(model, training(**changes))
    bench.loaded.model.register_forward_pre_hook(card, with_kwargs=True)
    return bench


@pytest.mark.parametrize(
    ("packing", "batch_size", "error"),
    [
        (True, 1, torch.OutOfMemoryError),
        (False, 2, torch.OutOfMemoryError),
        (False, 1, MemoryError),
    ],
)
def test_what_does_not_fit_fails_at_the_first_step_and_names_the_longest_row(
    tmp_path: Path, model: Path, packing: bool, batch_size: int, error: type[Exception]
) -> None:
    path = write_rows(tmp_path / "f.jsonl")
    prepared = prepare_file(path, model, tmp_path, max_length=160, packing=packing)
    tokens, line = prepared.sequence(prepared.longest_pack).longest_row
    assert packing or line == LONG, "without packing it is the longest row of the file"
    card = Card(120, error)
    bench = bench_on(card, model, batch_size=batch_size, effective_batch=2)
    with pytest.raises(StepMemory) as caught:
        bench.run(prepared, recorder := Recorder())
    assert not recorder.steps and not card.seen, "it showed at the start"
    told = str(caught.value)
    assert told.startswith(f"file1:{line}, {tokens} tokens: CUDA out of memory")
    assert "lower training.max_length (now" in told and "gradient_checkpointing" in told
    assert len(recorder.halvings) == batch_size - 1, "with two packs one was tried"
    wanted = Cause.MEMORY if error is MemoryError else Cause.CUDA_MEMORY
    assert classify(caught.value)[0] == wanted


def test_the_largest_batch_of_an_item_is_its_first(tmp_path: Path, model: Path) -> None:
    for packing in (True, False):
        place = tmp_path / str(packing)
        place.mkdir()
        path = write_rows(place / "f.jsonl")
        prepared = prepare_file(path, model, place, max_length=160, packing=packing)
        card = Card(1 << 30)
        bench_on(card, model, batch_size=2, effective_batch=4).run(prepared, Recorder(), epochs=2)
        assert card.seen[0] == max(card.seen) and (packing or len(set(card.seen)) > 1)


def test_a_failure_of_another_kind_and_one_between_steps_name_no_row(
    tmp_path: Path, model: Path
) -> None:
    prepared = prepare_file(write_rows(tmp_path / "f.jsonl"), model, tmp_path)
    with pytest.raises(ZeroDivisionError):
        bench_on(Card(0, ZeroDivisionError), model).run(prepared, Recorder())

    def raises(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Bench(model, training()).run(prepared, Recorder(on_step=raises))


def test_the_items_error_names_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = engine_kit.make_home(tmp_path, queue={"quiet_seconds": 0.0, "max_attempts": 1})
    card, plain = Card(40), transformers.Qwen3ForCausalLM.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        card(self, args, kwargs)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(transformers.Qwen3ForCausalLM, "forward", forward)
    engine_kit.add(home, "a.jsonl", 24)
    with engine_kit.Running(home):
        wait_until(lambda: engine_kit.states(home)["a.jsonl"] == ItemState.FAILED, timeout=60)
    with engine_kit.opened(home) as state:
        item = queue.get(state, 1)
        assert queue.attempts(state, 1)[0].cause == Cause.CUDA_MEMORY
    name, _, rest = item.error.partition(":")
    assert name == "a.jsonl" and rest.split(",")[0].isdigit()
    assert " tokens: CUDA out of memory" in rest and "training.max_length (now 128)" in rest
    assert engine_kit.steps(home) == [] and not card.seen
