"""One training in two and four gloo processes: the same as in one, and exact in itself."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import ranks_kit
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

EFFECTIVE = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("ranks")
    plain = make_model_folder(root / "plain")
    prepared = prepare_file(write_rows(root / "rows.jsonl", 45), plain, root / "home")
    # The last step of an epoch has a pack for one rank of two, and for one of four.
    assert prepared.packs % EFFECTIVE == 1, prepared.packs
    return {
        "root": root,
        "plain": plain,
        "dropout": make_model_folder(root / "dropout", dropout=0.2),
        "prepared": prepared,
        "steps": -(-prepared.packs // EFFECTIVE),
    }


def arguments(place: dict[str, Any], model: str = "plain", **changes: Any) -> dict[str, Any]:
    settings = {"effective_batch": EFFECTIVE, **changes.pop("settings", {})}
    return {
        **changes,
        "model": str(place[model]),
        "prepared": str(place["prepared"].folder),
        "settings": settings,
    }


def ranks_train(place: dict[str, Any], size: int, name: str, **changes: Any) -> list[Any]:
    return ranks_kit.run("train", size, place["root"] / name, **arguments(place, **changes))


def one(results: list[Any], key: str) -> Any:
    """What every rank has, which is the same."""
    assert len({json.dumps(r[key]) for r in results}) == 1, [r[key] for r in results]
    return results[0][key]


@pytest.fixture(scope="module")
def alone(place: dict[str, Any]) -> Recorder:
    """The same file in one process."""
    recorder = Recorder()
    Bench(place["plain"], training(effective_batch=EFFECTIVE)).run(
        place["prepared"], recorder, epochs=2
    )
    return recorder


def test_what_rank_0_decides_is_heard_and_done_by_all(tmp_path: Path) -> None:
    results = ranks_kit.run("controls", 4, tmp_path)
    for rank, result in enumerate(results):
        assert result["heard"] == [0, 0] and result["long"]
        assert result["done"] == [5, 5000]  # an act within an act within what is decided
        assert result["answer"] == [1, 2]
        assert result["all"] == [0, 1, 2, 3]
        assert result["sums"] == [[n, 0.5] for n in range(4)]
        assert result["differs"].startswith("ranks 1, 3 differ from rank 0 in the word")
        assert result["threads"] == 3  # accelerate's arguments leave them alone
        assert ("out of step" in result["failed"]) == bool(rank)


@pytest.mark.parametrize(
    ("size", "batch"), [(2, 1), pytest.param(2, 2, marks=pytest.mark.slow), (4, 1)]
)
def test_loss_gradients_and_tokens_are_those_of_one_process(
    place: dict[str, Any], alone: Recorder, size: int, batch: int
) -> None:
    """Over accumulation, without it, and over the smaller last step of each epoch."""
    settings = {"batch_size": batch}
    results = ranks_train(place, size, "equal", epochs=2, settings=settings)
    one(results, "digest")
    assert one(results, "outcome")["cursor"] == 2 * place["prepared"].rows
    metrics = results[0]["metrics"]
    assert [len(r["metrics"]) for r in results] == [2 * place["steps"]] + [0] * (size - 1)
    for mine, theirs in zip(metrics, alone.steps, strict=True):
        for key in ("step", "cursor_from", "cursor_to", "tokens", "learning_rate"):
            assert mine[key] == getattr(theirs, key)
        assert mine["loss"] == pytest.approx(theirs.loss, rel=2e-4)
        assert mine["grad_norm"] == pytest.approx(theirs.grad_norm, rel=5e-3)
    # Before rounding could add up over steps.
    assert metrics[0]["loss"] == pytest.approx(alone.steps[0].loss, rel=1e-5)
    assert metrics[0]["grad_norm"] == pytest.approx(alone.steps[0].grad_norm, rel=1e-4)


@pytest.mark.parametrize(("size", "effective"), [(2, 4), (2, 2), (4, 4)])
def test_killed_and_resumed_the_end_is_bit_identical(
    place: dict[str, Any], size: int, effective: int
) -> None:
    """With dropout, whose draws differ by rank; with and without accumulation."""
    root, settings = place["root"], {"effective_batch": effective}
    name = f"kill{size}{effective}"
    saved = root / f"{name}.saved"
    straight = ranks_train(place, size, name, model="dropout", settings=settings)
    given = arguments(
        *(place, "dropout"),
        settings=settings,
        save_at={"3": str(saved)},
        acts_at={"4": "die"},
    )
    killed = ranks_kit.start("train", size, root / name, **given)
    assert killed.codes == [-signal.SIGKILL] * size
    cursor = straight[0]["metrics"][2]["cursor_to"]
    resumed = ranks_train(
        *(place, size, name),
        model="dropout",
        settings=settings,
        restore=str(saved),
        cursor=cursor,
    )
    assert one(resumed, "digest") == one(straight, "digest")
    assert [r["rng"] for r in resumed] == [r["rng"] for r in straight]
    for results in (straight, resumed):
        assert len({r["seeded"] for r in results}) == size  # each rank draws its own


def test_a_changed_number_of_processes_goes_on_with_the_same_loss(
    place: dict[str, Any], alone: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    root = place["root"]
    one_epoch = alone.steps[: place["steps"]]
    first = ranks_train(place, 2, "two", leave_at=3, save_at={"3": str(root / "at3")})
    bench, recorder = Bench(place["plain"], training(effective_batch=EFFECTIVE)), Recorder(6)
    with caplog.at_level("INFO", "trainctl.engine"):
        bench.restore(root / "at3")
    assert "the state of step 3 is of 2 processes, 1 go on" in caplog.text
    cursor = first[0]["outcome"]["cursor"]
    outcome = bench.run(place["prepared"], recorder, cursor=cursor)
    bench.save(root / "at6")
    last = ranks_train(place, 2, "again", restore=str(root / "at6"), cursor=outcome.cursor)
    losses = [m["loss"] for m in first[0]["metrics"]]
    losses += [m.loss for m in recorder.steps]
    losses += [m["loss"] for m in last[0]["metrics"]]
    assert losses == pytest.approx([m.loss for m in one_epoch], rel=2e-4)
    assert len({r["seeded"] for r in last}) == 2


@pytest.mark.parametrize(
    ("seconds", "timeout"), [(3.0, 1.0), pytest.param(60.0, 20.0, marks=pytest.mark.slow)]
)
def test_a_pause_outlasts_the_timeout_of_the_group_without_work(
    place: dict[str, Any], seconds: float, timeout: float
) -> None:
    results = ranks_train(
        *(place, 2, "pause"),
        pause_at={"2": seconds},
        leave_at=3,
        group_timeout=timeout,
    )
    for result in results:
        (began, cpu_before), (ended, cpu_after) = result["marks"]
        assert ended - began > 0.95 * seconds
        assert cpu_after - cpu_before < 0.02 * seconds
    one(results, "digest")


def test_skip_leaves_at_the_same_step_on_all_ranks(place: dict[str, Any]) -> None:
    results = ranks_train(place, 2, "skip", leave_at=5)
    outcome = one(results, "outcome")
    assert (outcome["kind"], outcome["reason"], outcome["global_step"]) == ("left", "skip", 5)


def test_ticks_are_rank_0s_and_move_nothing(place: dict[str, Any]) -> None:
    settings = {"eval_steps": 2, "sample_steps": 2, "monitoring_budget": 1.0}
    plain = ranks_train(place, 2, "noticks", model="dropout", leave_at=5)
    ticks = ranks_train(
        *(place, 2, "ticks"), model="dropout", leave_at=5, settings=settings, ticks=True
    )
    assert one(ticks, "digest") == one(plain, "digest")
    assert [r["rng"] for r in ticks] == [r["rng"] for r in plain]
    assert [len(r["validations"]) for r in ticks] == [2, 0]
    assert [len(r["answers"]) for r in ticks] == [2, 0]


def test_a_bad_loss_of_one_rank_is_found_by_all_at_the_same_step(place: dict[str, Any]) -> None:
    results = ranks_train(place, 2, "nan", acts_at={"2": "rank 1 is NaN"})
    assert one(results, "failed").startswith("NonFinite: loss is nan at step ")


def test_ranks_that_drifted_apart_save_nothing(place: dict[str, Any]) -> None:
    saved = place["root"] / "drifted"
    results = ranks_train(
        *(place, 2, "drift"), acts_at={"2": "rank 1 drifts"}, save_at={"3": str(saved)}
    )
    for result in results:
        assert "rank 1 differs from rank 0 in the weights" in result["failed"]
    assert not saved.exists()


def test_what_ends_rank_0_is_told_to_the_others(place: dict[str, Any]) -> None:
    ended = ranks_kit.start("train", 2, place["root"] / "io", **arguments(place, fails_at=2))
    assert ended.codes[0] == 1 and "the disk of rank 0" in ended.output[0]
    assert ended.results[1]["failed"].startswith("RankFailed: rank 0: OSError: [Errno 5]")


def test_a_killed_rank_ends_the_others_at_once(place: dict[str, Any]) -> None:
    words = arguments(place, acts_at={"2": "rank 1 dies"}, group_timeout=600.0)
    # One that waits for the group is there for longer than its processes are waited for.
    ended = ranks_kit.start("train", 2, place["root"] / "dead", **words)
    assert ended.codes == [1, -signal.SIGKILL]


def test_the_world_size_is_what_is_configured(place: dict[str, Any]) -> None:
    ended = ranks_kit.start("train", 2, place["root"] / "three", **arguments(place, wanted=3))
    assert ended.codes == [1, 1]
    assert "2 processes were started, 3 are wanted" in ended.output[0]
    results = ranks_train(place, 2, "silent", alone=True)
    for result in results:
        assert "accelerate trains in 2 processes, not in 1" in result["failed"]
