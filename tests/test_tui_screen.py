"""The six panes: live data, layout, the states that need words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from queue_store.errors import Refused
from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_world import World, unknown


def trained(steps: int = 120, **more: Any) -> World:
    world = World(steps=steps, **more)
    world.version("first good one")
    return world


async def test_all_six_panes_show_live_data() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.samples is not None)
        shown = screen(pilot)
        for part in ("train_syllo", "CPU only", "step 120", "v001", "first good one", "val "):
            assert part in shown
        world.train(7)
        world.event("note", "something new happened")
        await until(pilot, lambda: "step 127" in screen(pilot))
        await until(pilot, lambda: "something new happened" in screen(pilot))


async def test_the_wide_screen_has_six_panes_and_the_narrow_one_a_tab_strip() -> None:
    app = console_on(trained())
    async with running(app, WIDE) as pilot:
        heads = [f"{n} {name}" for n, name in enumerate(app.panes, 1)]
        assert all(head in screen(pilot) for head in heads)
        assert "[1 queue]" not in screen(pilot)
        await pilot.resize_terminal(*NARROW)
        await until(pilot, lambda: "[1 queue]" in screen(pilot))
        assert "RAM" in lines(pilot)[-3], "the meter strip"
        assert "trainctl" in lines(pilot)[0]
        await pilot.press("4")
        await until(pilot, lambda: "[4 samples]" in screen(pilot))
        assert "expected" in screen(pilot)


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (100, 29), (110, 30), (120, 36), (200, 50)])
async def test_no_line_is_wider_than_the_terminal_and_none_is_missing(
    size: tuple[int, int],
) -> None:
    app = console_on(trained())
    async with running(app, size) as pilot:
        for key in "123456":
            await pilot.press(key)
            await pilot.pause()
            rows = app.screen._compositor.render_strips()
            assert len(rows) == size[1]
            assert {row.cell_length for row in rows} == {size[0]}


async def test_resizing_back_and_forth_keeps_pane_selection_and_data() -> None:
    app = console_on(trained())
    async with running(app, (200, 50)) as pilot:
        await pilot.press("1", "down", "down")
        chosen = app.queue_pane.selected()
        for size in ((80, 24), (40, 10), (80, 24), (200, 50)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: app.size == size)
        assert app.queue_pane.selected() == chosen
        assert app.focused is app.queue_pane
        await until(pilot, lambda: "gsm8k" in screen(pilot))


async def test_tab_and_digits_go_through_the_panes() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("tab", "tab")
        assert app.focused is app.panes["meters"]
        await pilot.press("shift+tab")
        assert app.focused is app.curves_pane
        await pilot.press("6")
        assert app.focused is app.events_pane


async def test_z_gives_a_pane_the_whole_screen_and_takes_it_back() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("2", "z")
        await until(pilot, lambda: "6 events" not in screen(pilot))
        assert app.curves_pane.size.width > 110
        await pilot.press("escape")
        await until(pilot, lambda: "6 events" in screen(pilot))


async def test_the_cursor_stays_on_its_item_while_others_move() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("down", "down")
        item = app.queue_pane.selected()
        assert item is not None
        world.add_item("urgent.jsonl", "high", "queued")
        world.event("add", "urgent added")
        await until(pilot, lambda: "urgent" in screen(pilot))
        after = app.queue_pane.selected()
        assert after is not None and after["id"] == item["id"]


async def test_a_filter_shows_only_matching_events_until_escape() -> None:
    world = trained()
    for n in range(20):
        world.event("note", f"event {n} {'special' if n == 7 else 'plain'}")
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: "event 19" in screen(pilot))
        await pilot.press("6", "/", *"special", "enter")
        await until(pilot, lambda: "event 7 special" in screen(pilot))
        assert "event 19" not in screen(pilot)
        await pilot.press("p")
        await until(pilot, lambda: world.state == "paused", "keys act again after the filter")
        await pilot.press("escape")
        await until(pilot, lambda: "event 19" in screen(pilot))


async def test_an_unknown_value_is_a_question_mark_with_its_reason_never_none() -> None:
    world = trained()
    world.gpus = unknown("NVML: driver/library version mismatch")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "mismatch" in screen(pilot))
        assert "None" not in screen(pilot) and "unknown" not in screen(pilot)


async def test_two_gpus_are_shown_each() -> None:
    world = trained()
    card = {
        "name": "NVIDIA GeForce RTX 4090",
        "utilization": 91,
        "memory_used": 19.2e9,
        "memory_total": 25.8e9,
        "temperature": 63,
        "power": 281.0,
    }
    world.gpus = [card, {**card, "utilization": unknown("not supported"), "power": unknown("no")}]
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: "GPU1" in screen(pilot))
        assert "91% 19/26G 63C 281W" in screen(pilot)


async def test_an_empty_queue_says_how_to_add() -> None:
    world = World(steps=3)
    world.items.clear()
    world.state = "idle"
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: "trainctl add FILE" in screen(pilot))


async def test_before_the_first_step_it_says_what_is_loading_and_how_far() -> None:
    world = World()
    world.state, world.phase, world.progress = "starting", "loading the model", 0.4
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: "loading the model" in screen(pilot))
        assert "40%" in screen(pilot) and "no steps yet" in screen(pilot)


async def test_a_finished_queue_keeps_the_view_with_a_summary() -> None:
    world = trained()
    for item in world.items:
        item["state"] = "done"
    world.state = "idle"
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: "training finished: 4 files · 120 steps" in screen(pilot))
        assert "train 0." in screen(pilot), "the curve stays"


async def test_paused_is_written_and_the_footer_offers_to_resume() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("p")
        await until(pilot, lambda: "paused at step 120" in screen(pilot))
        await until(pilot, lambda: "p resume" in lines(pilot)[-1])
        assert " paused " in lines(pilot)[0]
        await pilot.press("p")
        await until(pilot, lambda: world.state == "training")


async def test_a_failed_item_tells_why_in_its_row_and_its_details() -> None:
    world = trained()
    attempts = [
        {
            "n": 1,
            "started": world.now,
            "ended": world.now + 9,
            "cause": "nan",
            "error": "loss is NaN",
        }
    ]
    world.add_item(
        "bad.jsonl", "normal", "failed", error="loss is NaN at step 41", attempts=attempts
    )
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await until(pilot, lambda: "loss is NaN at step 41" in screen(pilot))
        await pilot.press("G", "enter")
        await until(pilot, lambda: "try 1" in screen(pilot))
        assert "nan" in screen(pilot)


async def test_nan_on_the_curve_is_marked() -> None:
    world = trained()
    world.loss[-20:] = [None] * 20
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: "!" in screen(pilot))
        assert "not a number" in screen(pilot)


async def test_a_rollback_takes_the_later_steps_off_the_curve() -> None:
    world = trained(100)
    world.train(100)
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.series["loss"].last == 200)
        world.do_rollback("v001", world.plan)
        await until(pilot, lambda: app.frame.series["loss"].last == 100)
        world.train(5)
        await until(pilot, lambda: app.frame.series["loss"].last == 105)
        steps = list(app.frame.series["loss"].steps)
        assert steps == sorted(set(steps)), "no step twice"


async def test_ascii_draws_nothing_but_ascii() -> None:
    world = trained()
    app = console_on(world, configured(ascii=True))
    async with running(app) as pilot:
        for key in "123456":
            await pilot.press(key)
            await pilot.pause()
            text = screen(pilot)
            assert text.isascii(), {c for c in text if not c.isascii()}


async def test_series_are_told_apart_without_colour() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        legend = next(line for line in lines(pilot) if "(EMA)" in line)
        assert "- train" in legend and ": min to max" in legend and "* val" in legend


async def test_metric_scale_band_ema_and_window_change_the_picture() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("2")
        seen = {screen(pilot)}
        for key in ("y", "b", "e", "w", "w", "m"):
            await pilot.press(key)
            await pilot.pause()
            if key != "w":
                assert screen(pilot) not in seen, key
            seen.add(screen(pilot))
        await until(pilot, lambda: "learning rate" in screen(pilot))


async def test_panning_holds_and_follow_returns_to_the_newest_step() -> None:
    world = trained(400)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2", "w", "w", "w")
        assert app.curves_pane.viewport.window == 100
        await pilot.press("h", "h")
        left = app.curves_pane.view()
        world.train(30)
        await until(pilot, lambda: app.frame.step == 430)
        assert app.curves_pane.view() == left and "held" in screen(pilot)
        await pilot.press("f")
        assert app.curves_pane.view()[1] >= 430


async def test_the_cursor_reads_the_values_of_its_step() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("2", ".")
        await pilot.press("h", "h", "h")
        await until(pilot, lambda: "| step " in screen(pilot))
        await pilot.press(".")
        await until(pilot, lambda: "| step " not in screen(pilot))


async def test_zooming_in_a_long_history_asks_for_finer_points() -> None:
    world = World(steps=9000)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("2")
        for _ in range(6):
            await pilot.press(">")
        await until(pilot, lambda: app.frame.detail, "a finer series")
        assert app.frame.detail["loss"].spacing < app.frame.series["loss"].spacing


async def test_samples_go_through_examples_and_steps_and_show_their_history() -> None:
    world = trained(200)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "step 200 · 1/6" in screen(pilot))
        await pilot.press("n", "n", "n", "n", "n")
        await until(pilot, lambda: "6/6" in screen(pilot))
        await until(pilot, lambda: "history  ....xxoo" in screen(pilot))
        await pilot.press("[", "[", "[")
        await until(pilot, lambda: "step 125 ·" in screen(pilot))
        await pilot.press("d")
        await until(pilot, lambda: "[-" in screen(pilot) and "{+" in screen(pilot))


async def test_an_idle_console_draws_nothing() -> None:
    world = trained()
    world.state = "idle"
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.samples is not None)
        await pilot.pause(0.3)
        marked: list[object] = []
        for pane in (*app.panes.values(), *app._bars):
            pane._set_dirty = lambda *regions, pane=pane: marked.append(pane)  # type: ignore[method-assign]
        before = app.poller.frame
        for _ in range(4):
            await pilot.pause(0.25)
        assert app.poller.frame is before and marked == []


async def test_a_new_step_repaints_only_what_changed() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.samples is not None)
        await pilot.pause(0.3)
        cells: list[int] = []
        for pane in (*app.panes.values(), *app._bars):
            old = pane._set_dirty

            def count(*regions: Any, old: Any = old, pane: Any = pane) -> None:
                cells.append(sum(r.area for r in regions) if regions else pane.size.area)
                old(*regions)

            pane._set_dirty = count  # type: ignore[method-assign]
        world.train(1)
        await until(pilot, lambda: app.frame.step == 121)
        await pilot.pause(0.1)
        assert 0 < sum(cells) < math.prod(WIDE) / 3


async def test_a_store_that_cannot_be_read_is_not_said_to_be_empty() -> None:
    world = World()
    app = console_on(world)

    def unreadable() -> Any:
        raise Refused("state.db: written by a newer trainctl", mend="update trainctl")

    world.queue_list = unreadable  # type: ignore[method-assign]
    world.items.clear()
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "cannot read the store" in screen(pilot))
        for shown in ("No files yet", "No versions yet"):
            assert shown not in screen(pilot)
        assert "not known: state.db: written by a" in screen(pilot)
