"""TrainingRun: items in turn, the cursor, exact continuation, ticks, and bad losses."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.prepare.collate import collate
from engine.training.controls import NonFinite, Prompt
from engine.training.looking import Monitoring
from engine.training.rng import capture_rng
from engine.training.ticks import Monitor
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("run")
    plain = make_model_folder(root / "plain")
    dropout = make_model_folder(root / "dropout", dropout=0.2)
    files = [
        prepare_file(write_rows(root / f"f{i}.jsonl", n, 100 * i), plain, root / "home")
        for i, n in enumerate((25, 14, 17))
    ]
    return {"root": root, "plain": plain, "dropout": dropout, "files": files}


def test_three_items_train_every_row_once_an_epoch_and_one_step_runs_on(
    place: dict[str, Any],
) -> None:
    bench = Bench(place["plain"], training())
    recorder = Recorder()
    for number, prepared in enumerate(place["files"], 1):
        outcome = bench.run(prepared, recorder, item=number, epochs=2)
        assert (outcome.kind, outcome.reason, outcome.cursor) == ("done", "", 2 * prepared.rows)
        assert outcome.step == 2 * prepared.steps_per_epoch(2)
    steps = recorder.steps
    assert [m.step for m in steps] == list(range(1, len(steps) + 1)) == recorder.asked
    for number, prepared in enumerate(place["files"], 1):
        mine = [m for m in steps if m.item == number]
        assert mine[0].cursor_from == 0 and mine[-1].cursor_to == 2 * prepared.rows
        assert all(a.cursor_to == b.cursor_from for a, b in itertools.pairwise(mine))
        assert all(m.cursor_to > m.cursor_from for m in mine)
        # No step spans two epochs.
        assert prepared.rows in [m.cursor_to for m in mine]
        lengths = [len(prepared.sequence(p).input_ids) for p in range(prepared.packs)]
        assert sum(m.tokens for m in mine) == 2 * sum(lengths)
    # Schedule and optimizer carry on: the rate is a function of the global step alone.
    rates = [m.learning_rate for m in steps]
    assert rates[:5] == pytest.approx([3e-3 * (i + 1) / 5 for i in range(5)])
    assert set(rates[5:]) == {3e-3}
    counts = {float(s["step"]) for s in bench.optimizer.state.values()}
    assert counts == {float(len(steps))}


def test_the_loss_is_the_mean_over_the_steps_trained_tokens(place: dict[str, Any]) -> None:
    """Over accumulation, batches of two with padding, and the smaller last step of the epoch."""
    prepared = next(f for f in place["files"] if f.packs > 4 and f.packs % 4)
    bench = Bench(place["plain"], training(batch_size=2, effective_batch=4, learning_rate=1e-12))
    recorder = Recorder()
    bench.run(prepared, recorder)
    order = prepared.order(bench.settings.seed, 0)
    model = Bench(place["plain"], training()).loaded.model.eval()
    for at, metric in enumerate(recorder.steps):
        total, tokens = 0.0, 0
        for pack in order.packs[4 * at : 4 * at + 4]:
            batch = collate([prepared.sequence(int(pack))])
            with torch.no_grad():
                logits = model(
                    input_ids=batch["input_ids"],
                    position_ids=batch["position_ids"],
                    use_cache=False,
                ).logits[0, :-1]
            labels = batch["labels"][0, 1:]
            keep = labels != -100
            losses = torch.nn.functional.cross_entropy(logits[keep], labels[keep], reduction="sum")
            total, tokens = total + float(losses), tokens + int(keep.sum())
        assert metric.loss == pytest.approx(total / tokens, rel=1e-5)


CASES = [
    ("adamw", "full", "dropout"),
    ("muon", "full", "dropout"),
    ("adamw_8bit", "full", "plain"),
    ("paged_adamw_8bit", "full", "dropout"),
    ("adamw", "lora", "dropout"),
]


@pytest.mark.parametrize(("optimizer", "method", "model"), CASES)
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_stopped_and_restored_at_any_step_the_end_is_bit_identical(
    place: dict[str, Any], tmp_path: Path, optimizer: str, method: str, model: str
) -> None:
    """Two epochs, accumulation of two, dropout: the same bytes of weights and optimizer."""
    prepared = place["files"][1]
    settings = training(optimizer=optimizer, effective_batch=2)
    straight = Bench(place[model], settings, method)
    saved: dict[int, Path] = {}
    total = 2 * prepared.steps_per_epoch(2)
    recorder = Recorder(on_step=lambda p, c: None)
    assert straight.run(prepared, recorder, epochs=2).global_step == total
    wanted = straight.digest()
    end_of_epoch = prepared.steps_per_epoch(2)
    for k in sorted({1, end_of_epoch - 1, end_of_epoch, total - 1}):
        first = Bench(place[model], settings, method)
        stopped = first.run(prepared, Recorder(leave_at=k), epochs=2)
        assert (stopped.kind, stopped.reason, stopped.step) == ("left", "stop", k)
        saved[k] = first.save(tmp_path / f"state{k}")
        second = Bench(place[model], settings, method)
        torch.rand(k + 3)  # a new process stands anywhere
        second.restore(saved[k])
        outcome = second.run(prepared, Recorder(), epochs=2, cursor=stopped.cursor)
        assert outcome.global_step == total
        assert second.digest() == wanted, f"stopped at {k}"


def test_saving_at_every_step_does_not_move_the_result(
    place: dict[str, Any], tmp_path: Path
) -> None:
    prepared = place["files"][1]
    plain, saving = (Bench(place["dropout"], training()) for _ in range(2))
    plain.run(prepared, Recorder())
    recorder = Recorder(on_step=lambda p, c: saving.save(tmp_path / "state") and None)
    torch.manual_seed(42)
    Bench(place["dropout"], training())  # seeds as each Bench does
    saving.run(prepared, recorder)
    assert saving.digest() == plain.digest()


def _monitoring(place: dict[str, Any], budget: float) -> Monitoring:
    prompts = [Prompt(f"p{i}", ({"role": "user", "content": f"say w{i}"},)) for i in range(3)]
    return Monitoring(Monitor(budget), {"held": place["files"][2]}, prompts, max_tokens=4)


def test_ticks_run_when_due_and_do_not_move_the_result(place: dict[str, Any]) -> None:
    prepared = place["files"][1]
    quiet = Bench(place["dropout"], training())
    quiet.run(prepared, Recorder())
    ticking = Bench(place["dropout"], training(eval_steps=2, sample_steps=3))
    ticking.monitoring = _monitoring(place, 1e9)
    recorder = Recorder()
    ticking.run(prepared, recorder)
    last = recorder.asked[-1]
    assert [v.place.global_step for v in recorder.validations] == list(range(2, last + 1, 2))
    assert [s.place.global_step for s in recorder.sampled] == list(range(3, last + 1, 3))
    assert all(v.name == "held" and v.tokens > 0 and v.seconds > 0 for v in recorder.validations)
    assert [a.id for a in recorder.sampled[0].answers] == ["p0", "p1", "p2"]
    assert ticking.digest() == quiet.digest()
    assert ticking.loaded.model.training


def test_samples_before_the_first_step_and_by_the_schedule_do_not_move_the_result(
    place: dict[str, Any],
) -> None:
    prepared = place["files"][1]
    quiet = Bench(place["dropout"], training())
    quiet.run(prepared, Recorder(), epochs=2)
    asked = Bench(place["dropout"], training())
    asked.monitoring = replace(_monitoring(place, 1e9), schedule=frozenset({0, 2}))
    recorder = Recorder()
    asked.run(prepared, recorder, epochs=2)
    last = recorder.asked[-1]
    assert last > 2
    assert [s.place.global_step for s in recorder.sampled] == [0, 2, last]
    assert [s.item_step for s in recorder.sampled] == [0, 2, last]
    assert asked.digest() == quiet.digest()


def test_ticks_stay_within_their_budget(place: dict[str, Any]) -> None:
    bench = Bench(place["plain"], training(eval_steps=1, sample_steps=1))
    bench.monitoring = _monitoring(place, 0.2)
    recorder = Recorder()
    bench.run(place["files"][0], recorder, epochs=4)
    monitor = bench.monitoring.monitor
    ticks = len(recorder.validations) + len(recorder.sampled)
    assert 0 < ticks < len(recorder.steps)
    spent = sum(v.seconds for v in recorder.validations) + sum(s.seconds for s in recorder.sampled)
    assert monitor.spent == pytest.approx(spent, rel=0.2)
    # Beyond the budget goes at most the first tick of each kind, whose cost nobody knew.
    unknown = recorder.validations[0].seconds + recorder.sampled[0].seconds
    trained = sum(m.seconds for m in recorder.steps)
    assert monitor.spent <= 0.2 * trained + unknown * 1.2


@pytest.mark.parametrize("log_steps", [1, 4])
def test_a_loss_that_is_not_a_number_raises_at_its_step(
    place: dict[str, Any], log_steps: int
) -> None:
    bench = Bench(place["plain"], training(log_steps=log_steps))

    def poison(at: Any, cursor: int) -> None:
        if at.global_step == 2:
            with torch.no_grad():
                next(iter(bench.loaded.model.parameters())).fill_(float("nan"))

    recorder = Recorder(on_step=poison)
    with pytest.raises(NonFinite) as caught:
        bench.run(place["files"][0], recorder)
    assert caught.value.step == 3
    assert [m.step for m in recorder.steps] == [1, 2, 3]
    assert np.isfinite(recorder.steps[1].loss) and not np.isfinite(recorder.steps[2].loss)


def test_steps_are_reported_late_with_log_steps_and_all_before_leaving(
    place: dict[str, Any],
) -> None:
    bench = Bench(place["plain"], training(log_steps=3))
    known: list[int] = []
    recorder = Recorder(leave_at=5)
    recorder.on_step = lambda p, c: known.append(len(recorder.steps))
    bench.run(place["files"][0], recorder)
    assert known == [0, 0, 3, 3, 3]
    assert [m.step for m in recorder.steps] == [1, 2, 3, 4, 5]


def test_a_pause_inside_the_controls_is_not_counted_as_training(place: dict[str, Any]) -> None:
    bench = Bench(place["plain"], training())
    rng: list[Any] = []

    class Slow(Recorder):
        def at_step(self, place: Any) -> Any:
            rng.append(capture_rng())
            torch.linalg.svd(torch.rand(600, 600, generator=torch.Generator()))
            return super().at_step(place)

    recorder = Slow()
    started = time.perf_counter()
    bench.run(place["files"][1], recorder)
    wall = time.perf_counter() - started
    assert sum(m.seconds for m in recorder.steps) < 0.7 * wall
    assert all(m.seconds > 0 and m.memory > 0 and m.grad_norm > 0 for m in recorder.steps)
