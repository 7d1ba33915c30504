"""Evaluating from the console: a version asked the sets, the jobs, the hosts and their keys, and
what of it stands in the panes."""

from __future__ import annotations

import re

import pytest

from tests.test_tui_compare import at
from tests.test_tui_dialogs import commands
from tests.test_tui_versions import branched
from tests.tui_evaluating_kit import BAD, SIZES, at_work, foot, scored, whole
from tests.tui_pilot import (
    NARROW,
    WIDE,
    configured,
    console_on,
    lines,
    push,
    running,
    screen,
    until,
)
from tests.tui_rows import RowsWorld
from tests.tui_world import World, unknown
from tui.dialogs.confirm import ConfirmDialog, TextDialog
from tui.dialogs.evaluate import EvaluateDialog
from tui.dialogs.hosts import HostsView
from tui.dialogs.jobs import JobsView
from tui.dialogs.rollback import plan_facts
from tui.hostrows import host_rows
from tui.meterrows import FULL, SHORT, TIGHT
from tui.safe import line_text


@pytest.fixture(autouse=True)
def followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that follow look more often than a person needs."""
    for module in ("jobs", "hosts"):
        monkeypatch.setattr(f"tui.dialogs.{module}.FOLLOW_SECONDS", 0.1)


# -- evaluate


@pytest.mark.parametrize("size", SIZES)
async def test_a_version_is_evaluated_on_the_chosen_sets_and_host(size: tuple[int, int]) -> None:
    world = branched()
    world.hosts = [world.host("titan"), world.host("atlas", "busy")]
    world.versions_[-1]["scores"] = {"syllo": scored(0.71, items=100)}
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        await at(pilot, EvaluateDialog, "5", "e")
        assert "Evaluate v004" in screen(pilot) and "71% (61-79) of 100" in screen(pilot)
        assert app.focused is not None and app.focused.id == "cancel"
        whole(pilot)
        await pilot.press("escape")
        assert commands(world) == []
        await at(pilot, EvaluateDialog, "e")
        await push(pilot, "#accept")
        await until(pilot, lambda: "evaluation 1 of v004 is waiting: E shows it" in screen(pilot))
        dialog = await at(pilot, EvaluateDialog, "e")
        dialog.query_one("#sets").focus()
        await pilot.press("down", "enter")
        dialog.query_one("#place").focus()
        await pilot.press("down", "enter")
        await push(pilot, "#accept")
        await until(pilot, lambda: len(world.jobs) == 2)
    assert commands(world) == [
        ("evaluate", {"model": "v004", "sets": None, "host": None}),
        ("evaluate", {"model": "v004", "sets": ["gsm8k"], "host": "titan"}),
    ]


@pytest.mark.parametrize("size", SIZES)
async def test_without_a_set_it_says_what_to_do(size: tuple[int, int]) -> None:
    world = branched()
    world.sets = []
    app = console_on(world)
    async with running(app, size) as pilot:
        await at(pilot, TextDialog, "5", "e")
        shown = " ".join(screen(pilot).split())
        assert "There is no evaluation set yet" in shown and "/home/me/train" in shown
        whole(pilot)
    assert commands(world) == []


async def test_an_order_that_is_refused_says_why() -> None:
    world = branched()
    world.refuse["evaluate"] = "v004 is corrupt"
    app = console_on(world)
    async with running(app) as pilot:
        await at(pilot, EvaluateDialog, "5", "e")
        await push(pilot, "#accept")
        await until(pilot, lambda: "v004 is corrupt" in screen(pilot))
        world.hosts = []
        await pilot.press("e")
        await until(pilot, lambda: "there is nowhere to evaluate" in screen(pilot))


@pytest.mark.parametrize("size", SIZES)
async def test_many_sets_and_hosts_leave_the_buttons_on_the_screen(size: tuple[int, int]) -> None:
    world = branched()
    world.sets = world.wanted = [f"{BAD}{n}" * 9 for n in range(9)]
    world.hosts = [world.host(f"host-{n}") for n in range(9)]
    world.versions_[-1]["scores"] = {name: scored(0.5) for name in world.sets}
    app = console_on(world)
    async with running(app, size) as pilot:
        await at(pilot, EvaluateDialog, "5", "e")
        whole(pilot)
        assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(screen(pilot))
        await push(pilot, "#accept")
        await until(pilot, lambda: len(world.jobs) == 1)


# -- jobs


@pytest.mark.parametrize("size", SIZES)
async def test_the_jobs_are_listed_followed_and_read(size: tuple[int, int]) -> None:
    world = at_work()
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        await at(pilot, JobsView, "5", "E")
        await until(pilot, lambda: "120/200" in screen(pilot))
        whole(pilot)
        assert ">" in next(line for line in lines(pilot) if "v004" in line and "120/200" in line)
        world.jobs[1]["answered"] = 150
        await until(pilot, lambda: "150/200" in screen(pilot), "it follows")
        await pilot.press("end", "enter")
        await until(pilot, lambda: "because of: version" in screen(pilot))
        shown = " ".join(screen(pilot).split())
        assert "not done by its deadline [red]x[/nope]" in shown
        assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "150/200" in screen(pilot))
        await pilot.press("x")
        await until(pilot, lambda: "evaluation 4 is failed already" in foot(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base())
    assert commands(world) == []


@pytest.mark.parametrize("size", SIZES)
async def test_a_job_is_cancelled_only_when_asked_and_takes_another_priority(
    size: tuple[int, int],
) -> None:
    world = at_work()
    app = console_on(world)
    async with running(app, size) as pilot:
        view = await at(pilot, JobsView, "5", "E")
        await until(pilot, lambda: "120/200" in screen(pilot))
        await pilot.press("down", "+")
        await until(pilot, lambda: "evaluation 3 is normal" in foot(pilot))
        await pilot.press("-", "-")
        await until(pilot, lambda: world.jobs[2]["priority"] == "low")
        await until(pilot, lambda: view._jobs[1]["priority"] == "low")
        await pilot.press("-")
        await until(pilot, lambda: "evaluation 3 is low already" in foot(pilot))
        await at(pilot, ConfirmDialog, "x")
        assert "Cancel evaluation 3 of checkpoint-160" in screen(pilot)
        assert app.focused is not None and app.focused.id == "cancel"
        whole(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is view)
        assert world.jobs[2]["state"] == "waiting", "Enter on what is focused lets it go on"
        await at(pilot, ConfirmDialog, "x")
        await push(pilot, "#accept")
        await until(pilot, lambda: "cancelled" in foot(pilot))
    assert commands(world)[-1] == ("cancel_job", {"job": 3})


async def test_the_job_under_the_cursor_stays_chosen_while_others_come() -> None:
    world = at_work()
    app = console_on(world)
    async with running(app) as pilot:
        view = await at(pilot, JobsView, "5", "E")
        await until(pilot, lambda: "120/200" in screen(pilot))
        await pilot.press("down")
        world.job("v003", "running", host="atlas", items=10, answered=1)
        await until(pilot, lambda: "v003" in screen(pilot) and "1/10" in screen(pilot))
        chosen = view._chosen()
        assert chosen is not None and chosen["model"] == "checkpoint-160"
        world.lost = "no engine is running for this home"
        await until(pilot, lambda: screen(pilot).count("no engine is running") >= 2)
        assert "checkpoint-160" in screen(pilot), "what is known stays"


async def test_no_job_yet_says_where_they_come_from() -> None:
    app = console_on(branched())
    async with running(app) as pilot:
        await at(pilot, JobsView, "3", "E")
        await until(pilot, lambda: "No evaluation job yet" in screen(pilot))
        await pilot.press("x", "+", "enter", "down")
        await pilot.pause()
        assert isinstance(app.screen, JobsView)


async def test_a_read_only_console_sees_jobs_and_hosts_and_orders_nothing() -> None:
    world = at_work()
    app = console_on(world, readonly=True)
    async with running(app) as pilot:
        await pilot.press("5", "e")
        await until(pilot, lambda: "read-only, so no evaluate" in screen(pilot))
        await at(pilot, JobsView, "E")
        await until(pilot, lambda: "120/200" in screen(pilot))
        await pilot.press("escape")
        await at(pilot, HostsView, "H")
        assert "titan" in screen(pilot)


# -- in the panes


async def test_what_is_evaluated_stands_in_the_header_and_the_hint_line() -> None:
    world = at_work()
    app = console_on(world)
    async with running(app, WIDE) as pilot:
        await until(pilot, lambda: "evaluating v004 on titan 120 of 200" in screen(pilot))
        assert "hosts 1 busy 1 idle" in lines(pilot)[0]
        world.hosts.pop()
        await until(pilot, lambda: "titan 60%" in lines(pilot)[0])
        world.jobs[1]["state"] = "done"
        world.hosts[0] = world.host("titan", "unreachable", error="not reached: timed out")
        await until(pilot, lambda: "titan unreachable" in lines(pilot)[0])
        assert "evaluating" not in screen(pilot)


@pytest.mark.parametrize("size", [WIDE, NARROW, (60, 16)])
async def test_scores_and_the_best_version_stand_in_the_list(size: tuple[int, int]) -> None:
    world = branched()
    world.versions_[0] |= {"tags": ["best"], "pinned": True}
    world.versions_[0]["scores"] = {"syllo": scored(0.71), "gsm8k": scored(0.5, n=300)}
    app = console_on(world)
    async with running(app, size) as pilot:
        await pilot.press("5", *(["z"] if size == WIDE else []), "G")
        await until(pilot, lambda: re.search(r"v001 *\^", screen(pilot)))
        rows = [line for line in lines(pilot) if "%" in line and "exact" not in line]
        (row,) = (line for line in rows if "v001" in line)
        assert " 55% " in row, "221 of 400 over all sets"
        (other,) = (line for line in rows if "v002" in line)
        assert other.count("%") == row.count("%") - 1, "one that was never evaluated has none"
        assert "[best]" in row or size[0] == 60
        if size[1] > 16:
            assert "best · kept" in screen(pilot)
        await at(pilot, TextDialog, "i")
        shown = " ".join(screen(pilot).split())
        assert "syllo 71% (61-79) of 100" in shown and "gsm8k 50% (61-79) of 300" in shown
        await pilot.press("escape", "G", "up")
        await at(pilot, TextDialog, "i")
        assert "never evaluated" in screen(pilot)


def test_a_rollback_tells_what_the_version_scored() -> None:
    world = branched()
    world.versions_[0]["scores"] = {"syllo": scored(0.71)}
    told = dict(fact for fact in plan_facts(world.do_rollback_plan("v001")) if fact[0])
    assert told["then"].endswith("syllo 71% (61-79) of 100") and "syllo" not in told["now"]


@pytest.mark.parametrize("size", [WIDE, NARROW, (60, 16)])
async def test_hosts_stand_in_the_meters_and_an_error_with_them(size: tuple[int, int]) -> None:
    world = at_work()
    world.hosts.append(world.host("far", "unreachable", error="not reached: no route", seen=0.0))
    app = console_on(world)
    async with running(app, size) as pilot:
        await pilot.press("3", *(["z"] if size == WIDE else []))
        await until(pilot, lambda: "titan" in screen(pilot) or "HOSTS" in screen(pilot))
        seen = screen(pilot)
        for _ in range(4):
            await pilot.press("pagedown")
            await pilot.pause()
            seen += screen(pilot)
        if size[1] > 16:
            assert "titan" in seen and "0.4/24G" in seen and "v004 120 of 200" in seen
            assert "not reached: no route" in seen
        else:
            assert "1 busy, 1 idle, 1 unreachable: far not reached" in seen, "folded"


def test_many_hosts_fold_and_an_unreachable_one_is_named() -> None:
    world = World()
    hosts = [world.host(f"h{n:02}") for n in range(30)]
    hosts[7] = world.host("h07", "unreachable", error=f"no route {BAD}")
    status = {"hosts": hosts, "evaluation": {"waiting": 0, "running": []}}
    (line,) = host_rows(status, world.now, 60, TIGHT)
    assert line_text(line).startswith("HOSTS 29 idle, 1 unreachable: h07 no route")
    assert len(host_rows(status, world.now, 60, SHORT)) == 13
    assert "18 more hosts" in line_text(host_rows(status, world.now, 60, FULL)[-1])
    for width in (30, 36, 60):
        for line in host_rows(status, world.now, width, TIGHT):
            assert len(line_text(line)) <= width
    assert host_rows({"hosts": unknown("no engine is running")}, 0.0, 60, FULL) == []
    assert host_rows({"hosts": [world.host("local")]}, 0.0, 60, FULL) == []


async def test_the_events_of_evaluation_are_a_kind_of_their_own() -> None:
    world = RowsWorld(steps=30)
    world.event("evaluation.done", "evaluation 1 of v001 is done: 40 of 40 items answered")
    world.event("best.moved", "v001 is better than base")
    world.event("version", "version v001 at step 30")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("6")
        for _ in range(8):
            if app.events_pane.group == "evaluation":
                break
            await pilot.press("o")
        await until(pilot, lambda: "version v001 at step" not in screen(pilot))
        assert "is better than base" in screen(pilot) and "40 of 40 items" in screen(pilot)
