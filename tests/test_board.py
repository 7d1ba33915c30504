"""What the engine tells of itself: no figure of another time."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.loop.board import STILL, Board
from engine.machine.telemetry import Telemetry
from engine.messages import EngineState
from queue_store.metrics import StepMetric
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


def test_a_validation_loss_alone_is_not_read_as_the_loss(board: Board) -> None:
    board.forget_steps()
    board.val_loss = 0.3
    line = next(line for line in plain(board.build()).splitlines() if line.startswith("loss"))
    assert line.split() == ["loss", "?", "·", "validation", "0.3"]
