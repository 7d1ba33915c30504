"""The console on a real store and a real session: the shapes that it reads are those that are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.loop.thread import Engine
from engine.reading.views import Views
from engine.sessions.client import connect
from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Server
from engine.sessions.session import LocalSession
from queue_store import records
from queue_store.config import default
from queue_store.home import Home
from queue_store.items import Priority
from queue_store.lock import EngineLock
from queue_store.metrics import Example
from tests.stepping_engine import SteppingEngine, make_home
from tests.story import Story
from tests.tui_pilot import lines, push, running, screen, until
from tests.tui_world import World
from tui.console import Console
from tui.dialogs.rollback import RollbackDialog
from tui.frame import Frame
from tui.poller import Reader


class Telling(SteppingEngine):
    """The stepping engine with the story's step in its status, standing still."""

    story: Story | None = None

    def snapshot(self) -> dict[str, object]:
        found = dict(super().snapshot())
        if self.story is not None and self.story.run is not None:
            found |= {
                "global_step": self.story.step,
                "branch": self.story.run.branch,
                "samples_step": self.story.step,
            }
        return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def story(home: Home) -> Iterator[Story]:
    with EngineLock.acquire(home, "daemon"):
        made = Story(home)
        made.item("first.jsonl")
        made.item("second.jsonl", Priority.HIGH)
        made.begin()
        made.claim()
        made.metrics.set_examples(
            [
                Example(f"e{n}", "syllo", n, f"prompt {n}", f"expected {n}", "syllo", 1)
                for n in range(3)
            ]
        )
        made.train(20)
        made.validate({"syllo": (81.5, 100)})
        made.sample({"e0": False, "e1": False, "e2": True})
        made.version(made.checkpoint(), "v001")
        made.train(20)
        made.validate({"syllo": (61.5, 100)})
        made.sample({"e0": True, "e1": False, "e2": True})
        yield made
        made.close()


@pytest.fixture
def engine(home: Home, story: Story) -> Iterator[Telling]:
    made = Telling(home)
    made.story = story
    yield made
    made.end()


def console(home: Home, engine: Telling) -> Console:
    views: Reader = Views(home)
    return Console(default(), LocalSession(Dispatcher(engine)), views, leave=lambda way: None)


async def test_the_real_store_fills_all_panes(home: Home, engine: Telling) -> None:
    app = console(home, engine)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.samples is not None and app.frame.versions)
        shown = screen(pilot)
        assert "first" in shown and "second" in shown, "queue"
        assert "* val 61.5" in shown, "validation on the curve"
        assert "exact 67%" in shown and "expected 0" in shown, "samples"
        assert "v001" in shown, "versions"
        assert "second.jsonl trains" in shown, "events"
        assert list(app.frame.series["loss"].steps) == list(range(1, 41))
        assert "None" not in shown
        await pilot.press("4")
        await until(pilot, lambda: ".o" in screen(pilot))
        await pilot.press("[")
        await until(pilot, lambda: "step 20 ·" in screen(pilot))


async def test_queue_commands_change_the_real_queue(
    home: Home, engine: Telling, story: Story, tmp_path: Path
) -> None:
    third = tmp_path / "third.jsonl"
    third.write_bytes((home.root / "first.jsonl").read_bytes())
    app = console(home, engine)
    async with running(app) as pilot:
        await pilot.press("1", "a", *str(third))
        await push(pilot, "#accept")
        # The dialog, too, has its name on the screen.
        await until(pilot, lambda: len(app.queue_pane.items()) == 3)
        await until(pilot, lambda: len(app.screen_stack) == 1)
        app.queue_pane.chosen = 3
        await pilot.press("+")
        await until(pilot, lambda: "Set third.jsonl to high" in screen(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: "third.jsonl is high now" in screen(pilot))
        await until(pilot, lambda: app.queue_pane.selected()["priority"] == "high")  # type: ignore[index]
        await pilot.press("enter")
        await until(pilot, lambda: "100 accepted" in screen(pilot))
        await pilot.press("enter", "x")
        await until(pilot, lambda: "Remove third.jsonl" in screen(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: "third.jsonl is removed" in screen(pilot))
        await until(pilot, lambda: len(app.queue_pane.items()) == 2)
        await pilot.press("u")
        await until(pilot, lambda: "third.jsonl is back in the queue" in screen(pilot))
        await until(pilot, lambda: len(app.queue_pane.items()) == 3)
        app.queue_pane.chosen = 3
        assert app.queue_pane.selected()["priority"] == "high"  # type: ignore[index]
        await pilot.press("-")
        await until(pilot, lambda: "Set third.jsonl to normal" in screen(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: "third.jsonl is normal now" in screen(pilot))
        await until(pilot, lambda: app.queue_pane.selected()["priority"] == "normal")  # type: ignore[index]
        await pilot.press("K")
        await until(pilot, lambda: "third.jsonl moved 1 earlier" in screen(pilot))
        await until(pilot, lambda: [i["id"] for i in app.queue_pane.items()][-2:] == [3, 1])


async def test_the_real_rollback_plan_is_shown(home: Home, engine: Telling) -> None:
    app = console(home, engine)
    async with running(app) as pilot:
        await pilot.press("5", "enter")
        await until(pilot, lambda: isinstance(app.screen, RollbackDialog))
        shown = screen(pilot)
        assert "Restore v001" in shown and "20 steps, 1" in shown
        assert "1 validation, 1 sample tick" in shown
        assert "the present state becomes a version" in shown and "None" not in shown


def test_the_last_minutes_of_the_machine_come_over_a_session(home: Home) -> None:
    made = Engine(home, default())  # not started: it has measured nothing
    found = LocalSession(Dispatcher(made)).request("meters")
    assert found["number"] == 0 and found["cpu"] == [] and found["gpus"] == []
    world = World()
    assert set(world.do_meters()) == set(found)
    telling = made.snapshot()
    assert set(telling) >= {"gpus", "ram", "cpu", "process", "disk"}
    assert set(world.do_snapshot()) <= set(telling)


async def test_versions_of_a_real_store_are_compared(
    home: Home, engine: Telling, story: Story
) -> None:
    story.version(story.checkpoint(), "v002")
    app = console(home, engine)
    async with running(app) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: len(app.frame.versions) == 2)
        # v001 answered e2 right, v002 e0 as well; both are of the fixed examples.
        await pilot.press("g", "space", "down", "c")
        await until(pilot, lambda: "Compare v001 with v002" in screen(pilot))
        shown = screen(pilot)
        assert "1/3 33% @20" in shown and "2/3 67% @40" in shown, shown
        assert "+ e0 (syllo) prompt 0" in shown and "right in both 1, gained 1, lost 0" in shown
        assert "step 20, branch 1" in shown and "None" not in shown
        await pilot.press("escape", "g", "space", "G", "c")
        await until(pilot, lambda: "Compare v001 with now" in screen(pilot))


async def test_the_trash_and_the_targets_of_a_real_home_are_shown(
    home: Home, engine: Telling
) -> None:
    app = console(home, engine)
    async with running(app) as pilot:
        await pilot.press("5", "X")
        await until(pilot, lambda: "The trash is empty" in screen(pilot))
        await pilot.press("escape", "b")
        await until(pilot, lambda: "no backup target is configured" in screen(pilot))
        home.config.write_text('[backups.nas]\ntarget = "/mnt/nas"\n')
        await pilot.press("b")
        await until(pilot, lambda: "Back up v001" in screen(pilot))
        assert "/mnt/nas, whole, after every version" in screen(pilot)


async def test_a_rollback_in_the_store_starts_the_curve_anew(
    home: Home, engine: Telling, story: Story
) -> None:
    app = console(home, engine)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.series["loss"].last == 40)
        point = records.checkpoints(story.state)[-1]

        story.roll_back(point)
        story.begin()
        story.train(3, losses={21: 5.0, 22: 5.0, 23: 5.0})
        await until(pilot, lambda: app.frame.series["loss"].last == 23)
        series = app.frame.series["loss"]
        assert list(series.steps) == list(range(1, 24)) and series.mean[-1] == 5.0


def counted(app: Console) -> list[Frame]:
    """What each look of the console's poller came to know, as they come."""
    looks: list[Frame] = []
    poll = app.poller.poll

    def looked(views: Reader) -> Frame:
        looks.append(poll(views))
        return looks[-1]

    app.poller.poll = looked  # type: ignore[method-assign]
    return looks


async def test_who_attaches_sees_the_step_the_curves_and_the_samples_that_the_last_one_saw(
    home: Home, engine: Telling, story: Story
) -> None:
    server = Server(home, Dispatcher(engine))
    server.start()

    async def seen() -> tuple[Frame, list[str]]:
        """What a console that attaches now comes to know, and what it shows of it."""
        session = connect(home)
        try:
            app = Console(default(), session, Views(home), leave=lambda way: None)
            looks = counted(app)
            async with running(app) as pilot:
                await until(pilot, lambda: "expected 0" in screen(pilot) and app.frame.marks)
                first = len(looks)
                await until(pilot, lambda: "* val 61.5" in screen(pilot))
                # Four a second: all of it within a second, however slow this machine is.
                assert first <= 4, f"all that it knows came with look {first}"
                shown = [
                    line[region.x : region.right]
                    for region in (app.curves_pane.region, app.samples_pane.region)
                    for line in lines(pilot)[region.y : region.bottom]
                ]
                return app.frame, shown
        finally:
            session.close()

    try:
        first, first_shown = await seen()
        again, again_shown = await seen()
        assert again.step == first.step == story.step == 40
        assert again_shown == first_shown, "the same picture"
        assert again.samples == first.samples and again.marks == first.marks
        assert set(again.series) == set(first.series)
        for name, series in again.series.items():
            assert np.array_equal(series.steps, first.series[name].steps), name
            assert np.array_equal(series.mean, first.series[name].mean, equal_nan=True), name
        story.train(5)
        story.sample({"e0": True, "e1": True, "e2": True})
        later, _ = await seen()
        assert later.step == 45 and list(later.series["loss"].steps) == list(range(1, 46))
        assert later.samples is not None and later.samples.step == 45
    finally:
        server.stop()


async def test_after_a_killed_engine_no_step_is_shown_twice(
    home: Home, engine: Telling, story: Story
) -> None:
    server = Server(home, Dispatcher(engine))
    server.start()
    session = connect(home)
    app = Console(
        default(), session, Views(home), leave=lambda way: None, reconnect=lambda: connect(home)
    )
    try:
        async with running(app) as pilot:
            await until(pilot, lambda: app.frame.series["loss"].last == 40)
            looks = counted(app)
            server.stop()
            gone = len(looks)
            await until(pilot, lambda: "engine lost: reconnecting" in screen(pilot))
            late = next(n for n, look in enumerate(looks[gone:]) if look.lost)
            assert late <= 4, f"four looks a second, and number {late} told it: two seconds at most"
            assert list(app.frame.series["loss"].steps) == list(range(1, 41)), "what it had stays"
            # It had saved at 20: what came after was lost with it and is trained once more.
            story.begin()
            assert story.step == 20
            story.train(5, losses={step: 7.0 for step in range(21, 26)})
            again = Server(home, Dispatcher(engine))
            again.start()
            await until(pilot, lambda: "engine lost" not in screen(pilot))
            await until(pilot, lambda: app.frame.step == 25)
            await until(pilot, lambda: app.frame.series["loss"].last == 25)
            series = app.frame.series["loss"]
            assert list(series.steps) == list(range(1, 26)), "each step once"
            assert list(series.mean[20:]) == [7.0] * 5, "as the engine of now trained them"
            again.stop()
    finally:
        session.close()


async def test_pause_over_the_socket_reaches_the_engine(home: Home, engine: Telling) -> None:
    server = Server(home, Dispatcher(engine))
    server.start()
    session = connect(home)
    app = Console(
        default(), session, Views(home), leave=lambda way: None, reconnect=lambda: connect(home)
    )
    try:
        async with running(app) as pilot:
            await pilot.press("p")
            await until(pilot, lambda: "paused at step" in screen(pilot))
            # What the key does goes by the state that was read last.
            await until(pilot, lambda: "p resume" in screen(pilot))
            await pilot.press("p")
            await until(pilot, lambda: "training goes on" in screen(pilot))
            server.stop()
            await until(pilot, lambda: "engine lost: reconnecting" in screen(pilot))
            again = Server(home, Dispatcher(engine))
            again.start()
            await until(pilot, lambda: "engine lost" not in screen(pilot))
            again.stop()
    finally:
        session.close()
