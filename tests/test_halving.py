"""A step that does not fit the card is tried again in smaller parts, and all else stays exact."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.training.controls import Halved
from engine.training.failures import StepMemory, classify
from engine.training.halving import half
from queue_store import journal, queue
from queue_store.failures import Cause
from queue_store.home import Home
from tests import engine_kit as kit
from tests import engine_process
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("halving")
    model = make_model_folder(root / "model", dropout=0.2)
    file = prepare_file(write_rows(root / "a.jsonl", 110), model, root / "home", max_length=128)
    assert file.packs % 8, "the last step of an epoch is smaller"
    return {"model": model, "file": file}


def bench(place: dict[str, Any], batch_size: int = 4, **changes: Any) -> Bench:
    changes = {"effective_batch": 8 if batch_size != 3 else 6, **changes}
    return Bench(place["model"], training(batch_size=batch_size, **changes))


class Card:
    """Does not hold more than `packs` at once from its `call`-th batch on, in the forward pass or,
    when much is done already, in the backward pass."""

    def __init__(self, bench: Bench, packs: int, call: int = 1, *, backward: bool = False) -> None:
        self.packs, self.call = packs, call
        self.calls = self.refused = 0
        self.shapes: list[int] = []
        self.backward, self.due = backward, False
        bench.loaded.model.register_forward_pre_hook(self, with_kwargs=True)
        next(bench.loaded.model.parameters()).register_hook(self.arrives)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.calls += 1
        size = len(kwargs["input_ids"])
        self.shapes.append(size)
        self.due = size > self.packs and self.calls >= self.call
        if self.due and not self.backward:
            self.refuse()

    def arrives(self, gradient: torch.Tensor) -> None:
        if self.due and self.backward:
            self.refuse()

    def refuse(self) -> None:
        self.refused += 1
        self.due = False
        raise torch.OutOfMemoryError(FULL)


def run(made: Bench, place: dict[str, Any], **more: Any) -> Recorder:
    recorder = more.pop("recorder", None) or Recorder()
    made.run(place["file"], recorder, **more)
    return recorder


def told(recorder: Recorder) -> list[tuple[float, float, int]]:
    return [(m.loss, m.grad_norm, m.cursor_to) for m in recorder.steps]


def test_half_of_a_batch_is_one_whose_parts_the_loader_would_give() -> None:
    assert [half(n) for n in (1, 2, 3, 4, 5, 6, 9, 12)] == [0, 1, 1, 2, 1, 3, 3, 6]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("size", "after"), [(4, 2), (3, 1)])
def test_from_the_first_step_on_it_trains_as_with_half_the_batch_bit_for_bit(
    place: dict[str, Any], size: int, after: int, backward: bool
) -> None:
    wanted = bench(place, after, effective_batch=8 if size == 4 else 6)
    plain = run(wanted, place)
    small = bench(place, size)
    card = Card(small, after, backward=backward)
    recorder = run(small, place)
    assert card.refused == 1 and max(card.shapes[1:]) == after
    assert [(h.cursor, h.before, h.after) for h in recorder.halvings] == [(0, size, after)]
    assert told(recorder) == told(plain)
    assert small.digest() == wanted.digest()


@pytest.mark.parametrize("backward", [False, True])
def test_a_late_one_begins_its_step_anew_and_what_was_before_stays(
    place: dict[str, Any], backward: bool
) -> None:
    """At the second batch of step 3, whose first had left gradients and drawn for dropout."""
    small = bench(place)
    Card(small, 2, call=6, backward=backward)
    recorder = run(small, place)
    begin = recorder.steps[2].cursor_from
    tokens, line = recorder.halvings[0].tokens, recorder.halvings[0].line
    assert recorder.halvings == [Halved(begin, 4, 2, tokens, line)] and tokens > 0 and line > 0
    two = bench(place)
    first = run(two, place, recorder=Recorder(leave_at=2))
    two.settings = training(batch_size=2, effective_batch=8)
    second = run(two, place, cursor=begin)
    assert told(recorder) == told(first) + told(second)
    assert small.digest() == two.digest()
    ends = [m.cursor_to for m in recorder.steps]
    assert ends == sorted(ends) and ends[-1] == place["file"].rows


def test_what_trains_again_changes_its_size_at_the_same_step(
    place: dict[str, Any], tmp_path: Path
) -> None:
    """Restored to a step before the one that did not fit, on a card with room for all."""
    small = bench(place)
    Card(small, 2, call=8)  # within step 4
    saved: dict[int, tuple[Path, int]] = {}

    def save(at: Any, cursor: int) -> None:
        if at.global_step in (1, 3, 5):
            folder = small.save(tmp_path / str(at.global_step))
            saved[at.global_step] = folder, cursor

    recorder = run(small, place, recorder=Recorder(on_step=save))
    halved = recorder.halvings[0]
    for folder, cursor in saved.values():
        again = bench(place)
        again.restore(folder)
        after = run(again, place, cursor=cursor, halved=(halved.cursor, halved.after))
        assert not after.halvings
        assert again.digest() == small.digest()
    other = bench(place)
    run(other, place)
    assert other.digest() != small.digest(), "the size is seen in the last bits"


def test_at_the_second_the_item_fails_with_row_and_numbers(place: dict[str, Any]) -> None:
    for halved, refused in ((None, 2), ((0, 2), 1)):
        small = bench(place)
        card = Card(small, 1)
        recorder = Recorder()
        with pytest.raises(StepMemory) as caught:
            run(small, place, recorder=recorder, halved=halved)
        assert card.refused == refused and not recorder.steps
        assert classify(caught.value)[0] == Cause.CUDA_MEMORY
        assert "lower training.batch_size (now 2)" in str(caught.value)
        assert str(caught.value).startswith("file1:") and " tokens: CUDA out of" in str(
            caught.value
        )


def test_what_no_smaller_batch_mends_is_not_tried_again(place: dict[str, Any]) -> None:
    for size, error in ((1, torch.OutOfMemoryError(FULL)), (4, MemoryError())):
        small, recorder = bench(place, size), Recorder()

        def full(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        small.loaded.model.register_forward_pre_hook(full)
        with pytest.raises(StepMemory):
            run(small, place, recorder=recorder)
        assert not recorder.halvings


def test_an_optimizer_that_has_no_room_is_not_half_stepped_twice(place: dict[str, Any]) -> None:
    small, recorder = bench(place), Recorder()

    def full(closure: Any = None) -> None:
        raise torch.OutOfMemoryError(FULL)

    small.optimizer.step = full  # type: ignore[method-assign]
    with pytest.raises(StepMemory):
        run(small, place, recorder=recorder)
    assert not recorder.halvings and not recorder.steps


SETTINGS = {"batch_size": 4, "effective_batch": 4, "max_length": 64}
LATE = 8
"""The engine's step at which the card gets too small; the newest checkpoint then is of step 5."""


def on_a_small_card(root: Path, environment: dict[str, str]) -> None:
    """An engine in a process of its own, whose card holds two packs from step LATE on."""
    plain, calls = transformers.Qwen3ForCausalLM.forward, [0]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.training:
            calls[0] += 1
            if calls[0] >= LATE and len(kwargs["input_ids"]) > 2:
                raise torch.OutOfMemoryError(FULL)
        return plain(self, *args, **kwargs)

    transformers.Qwen3ForCausalLM.forward = forward
    engine_process._train(root, environment, False)


def engine_on_a_small_card(home: Home, environment: dict[str, str]) -> int:
    process = engine_process._forks.Process(
        target=on_a_small_card, args=(home.root, {**os.environ, **environment})
    )
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def test_the_items_event_says_so_and_a_kill_after_it_changes_nothing(tmp_path: Path) -> None:
    homes = [kit.make_home(tmp_path / name, training=SETTINGS) for name in ("calm", "killed")]
    for home in homes:
        kit.add(home, "a.jsonl", 70)
    calm, killed = homes
    assert engine_on_a_small_card(calm, {}) == 0
    assert engine_on_a_small_card(killed, {"TRAINCTL_CRASH_AT": "step:9"}) == -signal.SIGKILL
    assert kit.head(killed).step == 5
    kit.train_all(killed)  # on a card that has room: the same parts all the same
    assert kit.head(killed).weights_digest == kit.head(calm).weights_digest
    for home in homes:
        kit.assert_each_row_once(home, 1)
        with kit.opened(home) as state:
            events = [e for e in journal.latest(state, 1000) if e.kind == "item.halved"]
            item = queue.get(state, 1)
        assert len(events) == 1 and events[0].step == LATE
        text = events[0].text
        assert text.startswith(f"step {LATE}: out of memory with batch_size 4 on a.jsonl:")
        assert text.endswith(" tokens; goes on with 2")
        assert item.settings is not None and item.settings["halved"][1] == 2
        assert item.settings["training"]["batch_size"] == 4
