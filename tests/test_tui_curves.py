"""Pane 2 driven by keys and mouse: what is held, what is marked, what lies beside the curve."""

from __future__ import annotations

from typing import Any

import pytest

from queue_store.errors import NotFound
from tests.test_tui_screen import trained
from tests.tui_pilot import NARROW, configured, console_on, lines, push, running, screen, until
from tests.tui_world import World
from tui.console import Console
from tui.curve import AXIS
from tui.marks import SIGNS
from tui.metrics import METRICS, TITLES


def picture(app: Console) -> list[str]:
    """The curve's own lines, without the one above it."""
    return ["".join(text for text, _ in line) for line in app.curves_pane._drawn[1:]]


def above(app: Console) -> str:
    return "".join(text for text, _ in app.curves_pane._drawn[0])


def rolled_back() -> World:
    """A branch went on from step 60 to 120 at a high loss and was left; the present goes on."""
    world = World(steps=60)
    world.version("good")
    world.train(60)
    world.loss[60:] = [1.5] * 60
    world.do_rollback("v001", world.plan)
    world.train(40)
    return world


async def test_what_is_held_stays_the_same_to_the_dot_and_newer_steps_are_told() -> None:
    world = trained(400)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2", "w", "h")
        await until(pilot, lambda: "held" in screen(pilot))
        await pilot.pause(0.3)
        before, title = picture(app), app.curves_pane.title()
        for _ in range(5):
            world.train(77)
            await until(pilot, lambda: app.frame.series["loss"].last == world.step)
        await pilot.pause()
        assert picture(app) == before and app.curves_pane.title() == title
        newer = world.step - int(app.curves_pane.view()[1])
        assert f">> {newer} newer steps: f" in above(app)
        await pilot.press("f")
        await until(pilot, lambda: picture(app) != before)
        assert "newer" not in above(app)


async def test_a_held_view_of_all_steps_stays_when_the_history_becomes_coarser() -> None:
    world = trained(300)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2", "f")
        await pilot.pause(0.3)
        before = picture(app)
        world.train(9000)  # more than the points of one reading: merged
        await until(pilot, lambda: app.frame.series["loss"].last == world.step)
        await pilot.pause()
        assert picture(app) == before


async def test_a_rollback_lets_go_of_what_was_held() -> None:
    world = trained(100)
    world.train(100)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2", "f")
        world.do_rollback("v001", world.plan)
        await until(pilot, lambda: app.frame.series["loss"].last == 100)
        await until(pilot, lambda: "1 left" in above(app))
        held = app.curves_pane.base("loss")
        assert held is not None and held.last == 100, "steps taken back are not shown as present"


async def test_the_branch_left_behind_is_drawn_from_its_fork_on_until_b_hides_it() -> None:
    app = console_on(rolled_back())
    async with running(app, (200, 50)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: any("~" in row for row in picture(app)))
        assert "~ 1 left" in above(app)
        pane = app.curves_pane
        assert pane._plot is not None
        columns = {x for row in picture(app)[:-1] for x, c in enumerate(row[AXIS:]) if c == "~"}
        assert abs(min(columns) - pane._plot.column_of(61)) <= 1, "from the fork on"
        tones = {tone for line in pane._drawn for text, tone in line if "~" in text}
        assert tones == {"dim"}
        await pilot.press("B")
        await until(pilot, lambda: not any("~" in row for row in picture(app)))
        await pilot.press("B")
        await until(pilot, lambda: any("~" in row for row in picture(app)))


async def test_a_branch_that_blew_up_does_not_flatten_the_present_line() -> None:
    world = rolled_back()
    world.left_[0]["losses"] = dict.fromkeys(range(61, 121), 900.0)
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.left)
        await pilot.pause(0.1)
        top = float(picture(app)[1].split()[0])
        assert top <= 2 * 3.0


async def test_i_cycles_which_marks_are_shown_and_the_read_out_tells_them() -> None:
    world = rolled_back()
    failure = {"kind": "failure", "step": 80, "name": "bad.jsonl", "text": "bad.jsonl failed: nan"}
    world.marks_ += [failure, {"kind": "restart", "step": 90, "name": "", "text": "a new run"}]
    app = console_on(world)
    async with running(app, (200, 50)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: app.frame.marks)
        await until(pilot, lambda: "xbad" in picture(app)[0])
        signs = set(picture(app)[0])
        assert {">", "x", "+"} <= signs and ("<" in signs or "|v001" in picture(app)[0])
        shown = []
        for _ in range(5):
            await pilot.press("i")
            await pilot.pause()
            shown.append((app.curves_pane.title().rpartition("marks: ")[2], picture(app)[0]))
        words = [word for word, _ in shown]
        assert words[:4] == ["versions", "items", "faults", "none"]
        assert "v001" in shown[0][1] and ">" not in shown[0][1]
        assert ">" in shown[1][1] and "x" not in shown[1][1].split(">")[0]
        assert "<" in shown[2][1] and "|v001" not in shown[2][1]
        assert not set(SIGNS.values()) & set(shown[3][1][AXIS:])
        app.curves_pane.cursor = 80
        app.curves_pane._changed()
        await until(pilot, lambda: "bad.jsonl failed: nan" in above(app))


async def test_the_read_out_tells_value_validation_item_and_time_of_the_step() -> None:
    app = console_on(trained())
    async with running(app, (200, 50)) as pilot:
        await pilot.press("2", ".", "h", "h", "h")
        await until(pilot, lambda: app.frame.under.get("asked") == app.curves_pane.cursor)
        await until(pilot, lambda: "train_syllo_level1_2000" in above(app))
        step = app.curves_pane.cursor
        assert step is not None and f"step {step}" in above(app)
        tick = step // 25 * 25
        assert f"val {app.poller._curves.series['val_loss'].mean[tick // 25 - 1]:.3f}" in above(app)
        assert f"at {tick}" in above(app) and "2026-05-28" in above(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.curves_pane.cursor is None)


async def test_the_cursor_stays_on_its_step_while_training_goes_on() -> None:
    world = trained(400)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2", ".", *"hhhhhhhhhh")
        step = app.curves_pane.cursor
        world.train(100)
        await until(pilot, lambda: app.frame.step == 500)
        await pilot.pause()
        assert app.curves_pane.cursor == step


async def test_two_versions_are_laid_over_each_other_and_taken_off() -> None:
    world = rolled_back()
    world.version("after it")
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: len(app.frame.versions) == 3)
        await pilot.press("2", "C")
        await until(pilot, lambda: "Lay two lines" in screen(pilot))
        assert "the present" in screen(pilot) and "v002" in screen(pilot)
        await pilot.press("tab", "tab")
        app.screen.query("#second RadioButton")[2].value = True  # type: ignore[attr-defined]
        await pilot.pause()
        await push(pilot, "#accept")
        await until(pilot, lambda: "o v002" in above(app))
        assert "- the present" in above(app) and "o less -" in above(app)
        assert sum(row.count("o") for row in picture(app)) > 20
        assert any("⠀" < c <= "⣿" for row in picture(app) for c in row), "the other one is a line"
        assert "the present over v002" in app.curves_pane.title()
        await pilot.press("escape")
        await until(pilot, lambda: "o v002" not in above(app))
        app.curves_pane.lay_over(("v003", "v002"))
        await until(pilot, lambda: "- v003" in above(app) and "o v002" in above(app))
        await pilot.press("C")
        await until(pilot, lambda: app.curves_pane.overlay is None)
        assert not app.frame.lost and "train" in above(app)


async def test_the_same_line_twice_is_refused_in_the_dialog() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("2", "C")
        await until(pilot, lambda: "Lay two lines" in screen(pilot))
        app.screen.query("#second RadioButton")[0].value = True  # type: ignore[attr-defined]
        await pilot.pause()
        await push(pilot, "#accept")
        await until(pilot, lambda: "choose two" in screen(pilot))


async def test_without_a_version_the_overlay_says_why_not() -> None:
    app = console_on(World(steps=20))
    async with running(app) as pilot:
        await pilot.press("2", "C")
        await until(pilot, lambda: "no version to lay over" in screen(pilot))


async def test_a_version_deleted_under_the_overlay_is_told() -> None:
    world = trained()
    good = world.series

    def gone(metric: str, version: str | None = None, **more: Any) -> Any:
        if version is not None:
            raise NotFound("no version v001")
        return good(metric, **more)

    world.series = gone  # type: ignore[method-assign, assignment]
    app = console_on(world)
    async with running(app) as pilot:
        app.curves_pane.lay_over(("", "v001"))
        await until(pilot, lambda: "v001 has no loss here" in screen(pilot))
        app.curves_pane.lay_over(("v001", ""))
        await until(pilot, lambda: "v001 has no loss here" in screen(pilot))


async def test_m_goes_through_the_metrics_both_ways() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("2")
        for metric in (*METRICS[1:], METRICS[0]):
            await pilot.press("m")
            await until(pilot, lambda metric=metric: metric in app.frame.series)
            assert TITLES[metric] in app.curves_pane.title()
        await pilot.press("M")
        await until(pilot, lambda: "memory" in app.curves_pane.title())


async def test_a_click_sets_the_cursor_and_the_wheel_zooms_about_the_pointer() -> None:
    app = console_on(trained(800))
    async with running(app) as pilot:
        pane = app.curves_pane
        await until(pilot, lambda: pane._plot is not None)
        await pilot.click(pane, offset=(40, 6))
        await until(pilot, lambda: pane.cursor is not None and app.pane_name == "curves")
        assert pane._plot is not None and pane.cursor is not None
        assert abs(pane._plot.column_of(pane.cursor) - (39 - AXIS)) <= 1
        step, before = pane.cursor, pane.view()
        region = pane.region
        pilot.app.screen._forward_event(wheel(region.x + 40, region.y + 6, up=True))
        await until(pilot, lambda: pane.view() != before)
        x0, x1 = pane.view()
        assert x1 - x0 < before[1] - before[0] and x0 <= step <= x1
        assert abs(pane._plot.column_of(step) - (39 - AXIS)) <= 2
        for _ in range(3):
            pilot.app.screen._forward_event(wheel(region.x + 40, region.y + 6, up=False))
        await until(pilot, lambda: pane.viewport.following)


def wheel(x: int, y: int, *, up: bool) -> Any:
    from textual.events import MouseScrollDown, MouseScrollUp

    kind = MouseScrollUp if up else MouseScrollDown
    return kind(None, x, y, 0, 0, 0, False, False, False, x, y)


async def test_the_gap_compares_the_same_steps_and_says_which() -> None:
    world = trained(100)
    world.loss = [2.0] * 100
    world.val = {100: 2.5}
    app = console_on(world)
    async with running(app, (200, 50)) as pilot:
        await until(pilot, lambda: "gap +0.500" in above(app))
        world.train(20)
        world.loss[100:] = [0.1] * 20
        await until(pilot, lambda: app.frame.step == 120)
        await pilot.pause()
        assert "val 2.500 at 100" in above(app) and "gap +0.500" in above(app)


async def test_early_the_gap_is_not_that_to_a_model_that_had_learned_less() -> None:
    world = trained(15)
    world.val = {10: world.loss[9]}
    app = console_on(world)
    async with running(app, (200, 50)) as pilot:
        await until(pilot, lambda: "at 10" in above(app))
        assert "gap" not in above(app), "any mean would be that of other steps"
        world.train(105)  # its loss falls by half every 42 steps; its validation loss is 5% above
        await until(pilot, lambda: "at 100" in above(app))
        gap = float(above(app).split("gap ")[1].split()[0])
        assert abs(gap) < 0.1, "that to the mean of all the steps is -0.7"


async def test_before_a_metric_was_measured_it_says_so() -> None:
    world = trained()
    good = world.series

    def nothing(metric: str, **more: Any) -> Any:
        answer = good(metric, **more)
        return {**answer, "points": [], "total": 0} if metric == "memory" else answer

    world.series = nothing  # type: ignore[method-assign, assignment]
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2", "M")
        await until(pilot, lambda: "no memory was measured" in screen(pilot))


@pytest.mark.parametrize("size", [NARROW, (60, 16), (200, 60)])
async def test_everything_at_once_fits_every_size_in_ascii(size: tuple[int, int]) -> None:
    world = rolled_back()
    world.loss[70] = None
    app = console_on(world, configured(ascii=True))
    async with running(app, size) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: app.frame.left and app.frame.marks)
        for key in ("y", "b", "i", "h", ">", ".", "h", "escape", "f"):
            await pilot.press(key)
            await pilot.pause()
            assert screen(pilot).isascii()
            assert {len(row) for row in lines(pilot)} == {size[0]}
        app.curves_pane.lay_over(("v001", "v002"))
        await until(pilot, lambda: "o v002" in above(app))
        assert screen(pilot).isascii()


async def test_keys_act_while_another_metric_is_still_being_read() -> None:
    world = trained(400)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2")
        before = app.curves_pane.view()
        app.curves_pane.do_metric()
        app.curves_pane.do_zoom_in()
        x0, x1 = app.curves_pane.view()
        assert x1 - x0 < 0.6 * (before[1] - before[0])
        await until(pilot, lambda: "learning_rate" in app.frame.series)
        assert app.curves_pane.view() == (x0, x1)


async def test_the_legend_of_a_held_view_tells_the_validation_in_view() -> None:
    app = console_on(trained(400))
    async with running(app, (200, 50)) as pilot:
        await pilot.press("2", "w", "w", "w", "h", "h")
        x1 = int(app.curves_pane.view()[1])
        await until(pilot, lambda: f"at {x1 // 25 * 25}" in above(app))
