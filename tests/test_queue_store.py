"""The queue, the head and the journal on a real SQLite."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from queue_store import head, intake, journal, queue, records
from queue_store import transitions as moves
from queue_store.database import State, open_state
from queue_store.errors import NotFound, Refused
from queue_store.home import Home
from queue_store.items import Item, ItemState, Priority
from queue_store.lock import EngineLock

S = ItemState


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "config.toml").write_text("")
    return Home(tmp_path)


@pytest.fixture
def state(home: Home):
    with open_state(home) as opened:
        yield opened


def write(home: Home, name: str, rows: int = 4) -> Path:
    path = home.root / name
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path.write_text("".join(json.dumps({"messages": turn}) + "\n" for _ in range(rows)))
    return path


def add(state: State, name: str, priority: Priority = Priority.NORMAL) -> Item:
    return intake.add_file(state, write(state.home, name), priority=priority)


def start(state: State) -> records.Run:
    records.start(state, "0" * 64, "builtin:tiny")
    return records.start_run(state)


def train(state: State, item: Item, *, whole: bool = True) -> None:
    claimed = moves.claim(state)
    assert claimed is not None and claimed.id == item.id
    moves.prepared(
        state, item.id, key="k", settings={}, rows=4, epochs=1, steps=4, held_out=0, report={}
    )
    moves.training(state, item.id, "begins")
    if whole:
        moves.trained(state, item.id, 4)
    else:
        moves.suspend(state, item.id, "stopped", "stopped")


def save(state: State, run: records.Run, step: int, **cursors: tuple[int, int]):
    at = records.head(state)
    assert at is not None
    return records.commit_checkpoint(
        state,
        name=f"checkpoint-{run.id}-{step}",
        branch=at.branch,
        step=step,
        run=run.id,
        item=None,
        cursors={int(k[1:]): v for k, v in cursors.items()},
        size_bytes=1,
        loss=1.0,
        val_loss=None,
        learning_rate=0.1,
        manifest_digest="m",
        weights_digest="w",
    )


def states(state: State) -> dict[str, tuple[str, int]]:
    return {i.name[0]: (i.state.value, i.cursor) for i in queue.items(state)}


def test_two_files_of_one_name_are_two_items_with_their_own_bytes(state: State) -> None:
    first = intake.add_file(state, write(state.home, "same.jsonl", 2))
    second = intake.add_file(state, write(state.home, "same.jsonl", 3))
    assert first.file != second.file
    kept = [(state.home.items / i.file).read_text().count("\n") for i in (first, second)]
    assert kept == [2, 3]


def test_a_rejected_file_keeps_its_bytes_and_tells_line_and_reason(state: State) -> None:
    path = state.home.root / "bad.jsonl"
    path.write_text('{"question": 1}\n')
    item = intake.add_file(state, path)
    assert item.state is S.REJECTED and item.error.startswith("line 1: ")
    assert (state.home.items / item.file).read_bytes() == path.read_bytes()
    assert moves.claim(state) is None


def test_claims_follow_priority_then_unfinished_then_order(state: State) -> None:
    low = add(state, "low.jsonl", Priority.LOW)
    a, b = add(state, "a.jsonl"), add(state, "b.jsonl")
    high = add(state, "high.jsonl", Priority.HIGH)
    start(state)
    train(state, high)
    train(state, a, whole=False)
    queue.move_first(state, b.id)
    assert [i.id for i in queue.page(state)] == [a.id, b.id, low.id]
    train(state, a)
    train(state, b)
    train(state, low)
    assert moves.claim(state) is None


def test_move_before_takes_priority_and_never_runs_out_of_room(state: State) -> None:
    a, b, c = (add(state, f"{n}.jsonl") for n in "abc")
    for _ in range(80):
        queue.move_before(state, c.id, b.id)
        queue.move_before(state, a.id, c.id)
        queue.move_before(state, c.id, a.id)
        queue.move_before(state, a.id, b.id)
    assert [i.name[0] for i in queue.page(state)] == ["c", "a", "b"]


def test_trained_becomes_done_only_with_the_checkpoint_that_contains_it(state: State) -> None:
    a = add(state, "a.jsonl")
    run = start(state)
    train(state, a)
    assert queue.get(state, a.id).state is S.TRAINED
    saved = save(state, run, 4)
    assert queue.get(state, a.id).state is S.DONE
    assert saved.progress.finished == {a.id}


def test_a_checkpoint_is_all_or_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    a = add(state, "a.jsonl")
    run = start(state)
    train(state, a)

    def broken(*_: object, **__: object) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(records.journal, "record", broken)
    with pytest.raises(sqlite3.OperationalError):
        save(state, run, 4)
    monkeypatch.undo()
    assert queue.get(state, a.id).state is S.TRAINED
    at = records.head(state)
    assert at is not None and at.checkpoint.step == 0
    assert len(records.checkpoints(state)) == 1


def test_undo_puts_what_trained_since_to_the_front_in_its_order(state: State) -> None:
    a, b, c, d = (add(state, f"{n}.jsonl") for n in "abcd")
    run = start(state)
    train(state, a, whole=False)
    before = save(state, run, 2, **{f"_{a.id}": (2, 2)})
    train(state, a)
    train(state, b)
    train(state, c)
    save(state, run, 12)
    head.move_head(state, before, why="undo")
    assert [i.name[0] for i in queue.page(state)] == ["a", "b", "c", "d"]
    assert states(state)["a"] == ("paused", 2)
    assert states(state)["b"] == ("queued", 0)
    assert d.state is S.QUEUED


def test_rollback_skips_what_trained_only_on_the_branch_left(state: State) -> None:
    a, b, c = (add(state, f"{n}.jsonl") for n in "abc")
    run = start(state)
    train(state, a)
    kept = save(state, run, 4)
    train(state, b, whole=False)
    save(state, run, 6, **{f"_{b.id}": (2, 2)})
    moved = head.move_head(state, kept, why="rollback", rolled_back=True)
    assert moved.branch != kept.branch
    assert states(state) == {"a": ("done", 4), "b": ("skipped", 0), "c": ("queued", 0)}
    assert queue.get(state, b.id).reason == head.ROLLED_BACK
    assert moves.retry(state, b.id).state is S.QUEUED
    assert c.state is S.QUEUED


def test_the_line_of_the_head_leaves_out_what_was_taken_back(state: State) -> None:
    a = add(state, "a.jsonl")
    run = start(state)
    train(state, a, whole=False)
    saved = save(state, run, 2, **{f"_{a.id}": (2, 2)})
    assert records.line(state, live=True) == [(run.id, None)]
    again = records.start_run(state)
    assert records.line(state, live=True) == [(again.id, None), (run.id, 2)]
    assert records.line(state, live=False) == [(run.id, 2)]
    assert saved.step == 2


def test_an_engine_that_has_just_come_does_not_count_what_a_killed_one_lost(state: State) -> None:
    a = add(state, "a.jsonl")
    with EngineLock.acquire(state.home, "console") as lock:
        run = start(state)
        train(state, a, whole=False)
        save(state, run, 2, **{f"_{a.id}": (2, 2)})
        lock.describe("daemon")  # handed to the background: the same engine
        assert records.line(state, live=True) == [(run.id, None)]
    with EngineLock.acquire(state.home, "daemon"):
        assert records.line(state, live=True) == [(run.id, 2)]
        again = records.start_run(state)
        assert records.line(state, live=True) == [(again.id, None), (run.id, 2)]


def test_a_transient_failure_is_tried_again_and_any_other_fails_at_once(state: State) -> None:
    a, b = add(state, "a.jsonl"), add(state, "b.jsonl")
    for attempt in (1, 2, 3):
        state.db.execute("UPDATE items SET not_before = 0")
        claimed = moves.claim(state)
        assert claimed is not None and claimed.id == a.id
        after = moves.fail(state, a.id, "out of memory", "24 GB", 3)
        assert after.state is (S.FAILED if attempt == 3 else S.PAUSED)
    assert [t.cause for t in queue.attempts(state, a.id)] == ["out of memory"] * 3
    assert moves.claim(state).id == b.id  # type: ignore[union-attr]
    assert moves.fail(state, b.id, "data", "line 3", 3).state is S.FAILED
    retried = moves.retry(state, a.id)
    assert retried.state is S.QUEUED and retried.error == ""


@pytest.mark.parametrize("trains", [False, True], ids=["preparing", "training"])
def test_what_trains_again_goes_before_what_was_begun_after_it(state: State, trains: bool) -> None:
    """Killed between two files, the end is that of a run that nobody killed: the same order."""
    a, b, c = (add(state, f"{name}.jsonl") for name in "abc")
    run = start(state)
    saved = save(state, run, 0)
    train(state, a)
    assert moves.claim(state).id == b.id  # type: ignore[union-attr]
    if trains:
        moves.crashed(state, b.id, 2)
    else:
        moves.suspend(state, b.id, "restart", "was being prepared")
    head.move_head(state, saved, why="recovered", new=False)
    waiting = [item.name for item in queue.items(state) if item.state in (S.QUEUED, S.PAUSED)]
    assert waiting == [a.name, b.name, c.name]
    assert moves.claim(state).id == a.id  # type: ignore[union-attr]


def test_three_crashes_without_progress_fail_the_item(state: State) -> None:
    a = add(state, "a.jsonl")
    start(state)
    for highest, expected in ((5, S.PAUSED), (9, S.PAUSED), (9, S.PAUSED), (9, S.FAILED)):
        moves.claim(state)
        assert moves.crashed(state, a.id, highest).state is expected


def test_remove_refuses_what_has_trained_and_keeps_the_file_of_what_has_not(state: State) -> None:
    a, b = add(state, "a.jsonl"), add(state, "b.jsonl")
    start(state)
    train(state, a, whole=False)
    with pytest.raises(Refused, match="has trained"):
        intake.remove(state, a.id)
    intake.remove(state, b.id)
    assert (state.home.trash / b.file).is_file()
    with pytest.raises(NotFound):
        queue.get(state, b.id)


def test_a_file_without_a_row_is_adopted_with_name_and_priority(state: State) -> None:
    a = add(state, "what a name_%.jsonl", Priority.HIGH)
    with state.transaction() as db:
        db.execute("DELETE FROM items")
    (adopted,) = intake.adopt_orphans(state)
    assert (adopted.name, adopted.priority, adopted.file) == (a.name, a.priority, a.file)
    assert intake.adopt_orphans(state) == []


def test_the_journal_cannot_be_altered(state: State) -> None:
    add(state, "a.jsonl")
    assert journal.latest(state)[-1].kind == "item.queued"
    for statement in ("DELETE FROM events", "UPDATE events SET text = ''"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            state.db.execute(statement)


def test_a_state_outside_the_table_of_moves_is_refused(state: State) -> None:
    a = add(state, "a.jsonl")
    with pytest.raises(Refused, match="cannot become"):
        moves.move_state(state, a.id, S.TRAINED, "no")


def test_progress_survives_its_text() -> None:
    progress = records.Progress({7: (30, 3), 2: (1, 1)}, frozenset({1, 2, 3, 9, 11, 12}))
    assert records.Progress.loads(progress.dumps()) == progress
    assert records.ranges(progress.finished) == "1-3,9,11-12"


@pytest.mark.parametrize(("rows", "steps", "says"), [(1, 1, "1 row, 1 step"), (4, 2, "4 rows, 2")])
def test_one_row_and_one_step_are_told_in_the_singular(state, rows, steps, says) -> None:
    item = add(state, "a.jsonl")
    moves.claim(state)
    moves.prepared(
        *(state, item.id),
        **{"key": "k", "settings": {}, "rows": rows, "epochs": 1, "steps": steps},
        **{"held_out": 0, "report": {}},
    )
    text = journal.latest(state, 1)[0].text
    assert text.startswith(f"a.jsonl prepared: {says}") and "1 steps" not in text
