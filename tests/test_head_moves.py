"""Where the head moves, every item agrees with that moment, however often and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from queue_store import database, head, intake, queue, records, transitions
from queue_store.database import State
from queue_store.items import ItemState

ROW = '{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}\n'


def trained_home(state: State, folder: Path) -> list[records.Checkpoint]:
    """Two items: the checkpoints at the start, in the middle of the first, and after both."""
    records.start(state, "weights", "builtin:tiny")
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text(ROW * 10)
        intake.add_file(state, folder / f"{name}.jsonl")
    run = records.start_run(state)
    points = [records.checkpoint(state, 0)]
    for item, moments in ((1, ((5, 1), (10, 2))), (2, ((10, 3),))):
        transitions.claim(state)
        transitions.prepared(
            state, item, key="k", settings={}, rows=10, epochs=1, steps=2, held_out=0, report={}
        )
        transitions.training(state, item, "trains")
        for cursor, step in moments:
            if cursor == 10:
                transitions.trained(state, item, step)
            points.append(
                records.commit_checkpoint(
                    state,
                    name=f"checkpoint-{step}",
                    branch=run.branch,
                    step=step,
                    run=run.id,
                    item=item,
                    cursors={item: (cursor, step)},
                    size_bytes=1,
                    loss=1.0,
                    val_loss=None,
                    learning_rate=1e-3,
                    manifest_digest="m",
                    weights_digest="w",
                )
            )
    return points


def agreed(state: State) -> list[tuple[str, int]]:
    return [(queue.get(state, n).state.value, queue.get(state, n).cursor) for n in (1, 2)]


AT = {
    0: [("skipped", 0), ("skipped", 0)],
    1: [("paused", 5), ("skipped", 0)],
    2: [("done", 10), ("skipped", 0)],
    3: [("done", 10), ("done", 10)],
}


@pytest.mark.parametrize("way", [(0, 3), (0, 1), (1, 0, 1, 3), (0, 2, 1, 3), (3, 0, 2)])
def test_items_are_those_of_the_moment_that_the_head_stands_on(home, tmp_path, way) -> None:
    with database.open_state(home) as state:
        points = trained_home(state, tmp_path)
        assert agreed(state) == AT[3]
        for place in way:
            head.move_head(state, points[place], why="a test", rolled_back=True)
            assert agreed(state) == AT[place], place


@pytest.mark.parametrize("place", [1, 2, 3])
def test_an_item_queued_again_on_the_way_is_not_trained_twice(home, tmp_path, place) -> None:
    with database.open_state(home) as state:
        points = trained_home(state, tmp_path)
        head.move_head(state, points[0], why="back", rolled_back=True)
        transitions.retry(state, 1)
        assert queue.get(state, 1).state is ItemState.QUEUED
        head.move_head(state, points[place], why="and forth", rolled_back=True)
        item = queue.get(state, 1)
        done = AT[place][0][0] == "done"
        assert (item.state is ItemState.DONE) == done and item.runnable != done
        assert item.cursor == AT[place][0][1]
