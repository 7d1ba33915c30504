"""What the curves read of a real store and of a real engine: only what is new, all there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.reading.views import Views
from engine.sessions.dispatch import Dispatcher
from engine.sessions.session import LocalSession
from queue_store.config import default
from queue_store.home import Home
from queue_store.lock import EngineLock
from tests import engine_kit as kit
from tests.stepping_engine import make_home
from tests.story import Story
from tests.test_tui_curves import above, picture
from tests.test_tui_store import Telling
from tests.tui_pilot import running, until
from tui.console import Console
from tui.curve import AXIS
from tui.curve_reader import CurveReader
from tui.frame import CurveAim, Frame

STEPS, SPIKE = 60_000, 41_234


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def story(home: Home) -> Iterator[Story]:
    """Steps enough for the whole history to be reduced, one of them a spike."""
    with EngineLock.acquire(home, "daemon"):
        made = Story(home)
        made.item()
        made.begin()
        assert made.run is not None
        db = made.metrics.db
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss,"
            " learning_rate, grad_norm, tokens, seconds, memory, time)"
            " VALUES(?, 1, ?, 1, 0, 1, ?, 1, 1, 1, 1, 1, 1)",
            ((made.run.id, n, 9.0 if n == SPIKE else 0.5) for n in range(1, STEPS + 1)),
        )
        db.execute("COMMIT")
        made.step = STEPS
        yield made
        made.close()


class Counting:
    """Views that note which ranges are read."""

    def __init__(self, views: Views) -> None:
        self.views = views
        self.read: list[tuple[str, int | None, int]] = []

    def series(self, metric: str, **more: Any) -> Any:
        found = self.views.series(metric, **more)
        self.read.append((metric, more.get("start"), len(found["points"])))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.views, name)


def polled(reader: CurveReader, views: Any, frame: Frame, aim: CurveAim, step: int) -> Frame:
    fresh = replace(frame, status={"global_step": step, "branch": 1, "events_seq": 1})
    return replace(fresh, **reader.read(views, fresh, frame, aim))


def test_a_step_more_reads_a_step_more_of_the_whole_and_of_the_detail(story: Story) -> None:
    reader, aim = CurveReader(), CurveAim(detail=(STEPS - 2000, None, 3000))
    with Views(story.home) as views:
        counting = Counting(views)
        frame = polled(reader, counting, Frame(), aim, story.step)
        assert len(frame.detail["loss"]) == 2001 and frame.series["loss"].spacing > 10
        counting.read.clear()
        story.train(2)
        after = polled(reader, counting, frame, aim, story.step)
        assert after.series["loss"].last == after.detail["loss"].last == STEPS + 2
        assert max(points for _, _, points in counting.read) == 2
        counting.read.clear()
        same = polled(reader, counting, after, aim, story.step)
        assert counting.read == [] and same.series is after.series and same.marks is after.marks


def test_a_range_that_is_held_is_read_once(story: Story) -> None:
    reader, aim = CurveReader(), CurveAim(detail=(1000, 3000, 3000))
    with Views(story.home) as views:
        frame = polled(reader, views, Frame(), aim, story.step)
        story.train(5)
        after = polled(reader, views, frame, aim, story.step)
        assert after.detail is frame.detail and after.series is not frame.series


def test_a_reading_that_fails_is_made_up_for_by_the_next_one(story: Story) -> None:
    reader, aim = CurveReader(), CurveAim()
    with Views(story.home) as views:

        class Failing(Counting):
            def marks(self) -> Any:
                raise sqlite3.OperationalError("database is locked")

        with pytest.raises(sqlite3.OperationalError):
            polled(reader, Failing(views), Frame(), aim, story.step)
        frame = polled(reader, views, Frame(), aim, story.step)
        assert frame.series["loss"].last == STEPS and frame.marks


@pytest.mark.parametrize("looks", ["before", "before and while it starts", "while it starts"])
def test_after_a_crash_the_lost_steps_are_not_the_present(home: Home, looks: str) -> None:
    def looked(frame: Frame, step: int, engine: float) -> Frame:
        told = {"global_step": step, "branch": 1, "events_seq": 1, "engine": {"started": engine}}
        fresh = replace(frame, status=told)
        return replace(fresh, **reader.read(views, fresh, frame, CurveAim()))

    reader, frame, story = CurveReader(), Frame(), Story(home)
    with Views(home) as views:
        with EngineLock.acquire(home, "daemon"):
            story.item()
            story.begin()
            story.claim()
            story.train(4)
            story.checkpoint()
            story.train(6, losses={7: 7.0})
            if "before" in looks:
                frame = looked(frame, 10, 1.0)
                assert frame.series["loss"].last == 10
        with EngineLock.acquire(home, "daemon"):  # killed at 10, and another one came
            if "starts" in looks:
                frame = looked(frame, 4, 2.0)  # which has not recovered yet
                assert frame.series["loss"].last == 4
            story.begin()
            story.train(6)
            frame = looked(frame, 10, 2.0)
            assert [*frame.series["loss"].high] == [100.0 - n for n in range(1, 11)]
    story.close()


def test_what_is_kept_does_not_grow_with_the_steps(story: Story) -> None:
    from tui.series import LIMIT

    reader = CurveReader()
    frame = Frame()
    with Views(story.home) as views:
        for _ in range(12):
            frame = polled(reader, views, frame, CurveAim(), story.step)
            story.train(4000, losses=dict.fromkeys(range(story.step + 1, story.step + 4001), 0.5))
        assert frame.series["loss"].last == STEPS + 11 * 4000
        assert len(frame.series["loss"]) <= 2 * LIMIT
        assert float(frame.series["loss"].high.max()) == 9.0


async def test_a_spike_of_one_step_is_seen_at_every_zoom(home: Home, story: Story) -> None:
    engine = Telling(home)
    engine.story = story
    app = Console(default(), LocalSession(Dispatcher(engine)), Views(home), leave=lambda way: None)
    try:
        async with running(app) as pilot:
            await pilot.press("2")
            pane = app.curves_pane
            pane.cursor = SPIKE
            spans = []
            for _ in range(14):
                x0, x1 = pane.view()
                spans.append(x1 - x0 + 1)
                await until(
                    pilot, lambda: pane._asked.detail is None or bool(app.frame.detail), "detail"
                )
                await pilot.pause(0.02)
                assert pane._plot is not None
                x = AXIS + pane._plot.column_of(SPIKE)
                rows = picture(app)[1:-1]  # without the marks and the axis
                top = next(n for n, row in enumerate(rows) if "\u2800" < row[x] <= "\u28ff")
                assert top <= 1, (spans[-1], rows)
                await pilot.press(">")
            assert spans[0] >= STEPS and spans[-1] <= 20
            await until(pilot, lambda: "9.000" in above(app))
    finally:
        engine.end()


async def test_a_rollback_of_a_real_engine_shows_the_branch_left_and_its_version(
    tmp_path: Path,
) -> None:
    home = kit.make_home(tmp_path / "real")
    kit.add(home, "first.jsonl", 120)
    with kit.Running(home) as engine:
        engine.pause_at(5)
        engine.ask("snapshot_version", description="five steps")
        engine.pause_at(9)
        engine.ask("rollback", version="v001")
        engine.pause_at(7)
        engine.ask("save")  # the lock of a test is no engine's: what is not saved does not count
        session = LocalSession(Dispatcher(engine.engine))
        app = Console(default(), session, Views(home), leave=lambda way: None)
        async with running(app, (160, 48)) as pilot:
            await pilot.press("2")
            await until(pilot, lambda: "~ 1 left" in above(app))
            (left,) = app.frame.left
            assert (left.name, left.fork, left.tip) == ("v002", 5, 9)
            assert list(left.series.steps) == [6, 7, 8, 9]
            assert app.frame.series["loss"].last == 7
            shown = [(m["kind"], m["step"], m["name"]) for m in app.frame.marks]
            assert ("item", 1, "first.jsonl") in shown and ("version", 5, "v001") in shown
            assert any(kind == "rollback" and step == 5 for kind, step, _ in shown)
            assert any("~" in row for row in picture(app))
            app.curves_pane.lay_over(("", "v002"))
            await until(pilot, lambda: "o v002" in above(app))
            assert app.frame.overlay["v002"].last == 9
            await pilot.press("escape", ".", "h", "h")
            await until(pilot, lambda: "first" in above(app) and "20" in above(app))
            for metric in ("learning_rate", "grad_norm", "tokens_per_second", "seconds", "memory"):
                await pilot.press("m")
                await until(pilot, lambda metric=metric: metric in app.frame.series)
                assert len(app.frame.series[metric]) == 7, metric
