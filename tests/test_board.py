"""What the engine tells of itself: no figure of another time."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.loop.board import STILL, Board
from engine.machine.telemetry import Telemetry
from engine.messages import EngineState
from queue_store import config
from queue_store.metrics import StepMetric
from tests.store_world import World
from trainctl.commands.status import plain


def metric(step: int) -> StepMetric:
    return StepMetric(
        branch=1,
        step=step,
        item=1,
        cursor_from=0,
        cursor_to=8,
        loss=0.5,
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens=1000,
        seconds=0.5,
        memory=0,
    )


@pytest.fixture
def board(tmp_path: Path) -> Board:
    made = Board(
        Telemetry(), tmp_path, {"name": "tiny", "method": "full"}, lambda: "daemon", lambda: []
    )
    made.item = {"id": 1, "name": "a.jsonl", "priority": "high", "step": 2, "steps": 10}
    made.global_step = 2
    made.val_loss = 0.3
    made.step(metric(2))
    return made


@pytest.mark.parametrize("state", STILL)
def test_nothing_that_stands_still_has_a_speed_or_a_time_left(
    board: Board, state: EngineState
) -> None:
    board.set(EngineState.TRAINING)
    assert board.build()["tokens_per_second"] == 2000
    assert board.build()["eta_seconds"] == 4
    board.set(state)
    still = board.build()
    assert str(state) in still["tokens_per_second"]["unknown"]
    assert str(state) in still["eta_seconds"]["unknown"]
    assert still["loss"] == 0.5


def test_steps_taken_back_leave_neither_loss_nor_validation_loss(board: Board) -> None:
    board.forget_steps()
    told = board.build()
    assert "unknown" in told["loss"] and "unknown" in told["val_loss"]


def test_after_a_rollback_the_figures_are_those_on_record_until_there_is_a_step(
    board: Board, tmp_path: Path
) -> None:
    world = World(tmp_path / "home")
    world.train(world.add(), 3, val_loss=0.8)
    board.forget_steps()
    board.stand_on_head(world.state, config.default().snapshots)
    world.close()
    told = board.build()
    assert (told["global_step"], told["loss"], told["val_loss"]) == (3, 0.25, 0.8)
    assert told["learning_rate"] == 2e-4
    assert told["tokens_per_second"] == {"unknown": "no step since this checkpoint"}
    board.step(metric(2))
    assert board.build()["loss"] == 0.5


def test_a_validation_loss_alone_is_not_read_as_the_loss(board: Board) -> None:
    board.forget_steps()
    board.val_loss = 0.3
    line = next(line for line in plain(board.build()).splitlines() if line.startswith("loss"))
    assert line.split() == ["loss", "?", "·", "validation", "0.3"]
