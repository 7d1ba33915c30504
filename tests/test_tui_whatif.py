"""The view of memory: every key answers at once, and nothing of the home is changed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.tui_pilot import NARROW, WIDE, console_on, running, screen, until
from tests.tui_world import World
from tui.dialogs.whatif import WhatIfView


def world(**more: Any) -> World:
    made = World(steps=3)
    for name, value in more.items():
        setattr(made, name, value)
    return made


async def opened(pilot: Any) -> WhatIfView:
    await pilot.press("3", "m")
    await until(pilot, lambda: isinstance(pilot.app.screen, WhatIfView), "it opens")
    view: WhatIfView = pilot.app.screen
    return view


@pytest.mark.parametrize("size", [WIDE, NARROW, (60, 16)])
async def test_a_change_changes_the_total_at_once(size: tuple[int, int]) -> None:
    async with running(console_on(world()), size) as pilot:
        view = await opened(pilot)
        await until(pilot, lambda: "does not fit" in screen(pilot))
        assert view.found is not None
        before = view.found.estimate()
        await pilot.press("j", "left")
        now = view.found.estimate()
        assert now is not None and before is not None and now.total < before.total
        assert "1024" in screen(pilot) and "max_length" in screen(pilot)
        await pilot.press("0")
        assert view.found.estimate() == before and "2048" in screen(pilot)


async def test_what_fits_is_taken_by_its_number_and_told_as_lines() -> None:
    async with running(console_on(world())) as pilot:
        view = await opened(pilot)
        await until(pilot, lambda: "1 fits" in screen(pilot))
        await pilot.press("1")
        await until(pilot, lambda: "to spare" in screen(pilot))
        assert "[training]" in screen(pilot) and "nothing is changed from here" in screen(pilot)
        assert "1 fits" not in screen(pilot)
        assert view.found is not None and view.found.lines()


@pytest.mark.parametrize(
    ("items", "high", "told"),
    [
        (1, 0.74, "in 1 item: predicted 74% of what was measured: 7.4 GB and 10.0 GB"),
        (2, 1.02, "over 2 items: predicted 74% to 102% of what was measured; last 7.4 GB and"),
    ],
)
async def test_how_well_it_was_so_far_is_a_range_only_of_several_items(
    items: int, high: float, told: str
) -> None:
    last = {"predicted": 7_400_000_000, "measured": 10_000_000_000}
    well = {"items": items, "low": 0.74, "high": high, "last": last}
    async with running(console_on(world(well=well))) as pilot:
        await opened(pilot)
        await until(pilot, lambda: told in screen(pilot))


async def test_another_card_is_looked_at() -> None:
    async with running(console_on(world())) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "RTX 3090" in screen(pilot))
        await pilot.press(*["right"] * 4)
        await until(pilot, lambda: "RTX 4070" in screen(pilot))


async def test_keys_answer_while_the_model_is_measured_and_closing_breaks_it_off() -> None:
    held = world(hold=threading.Event())
    app = console_on(held)
    async with running(app) as pilot:
        view = await opened(pilot)
        await until(pilot, lambda: "50%" in screen(pilot), "how far it is")
        await pilot.press("j", "right")
        await until(pilot, lambda: "4096" in screen(pilot))
        assert view.found is not None and view.found.estimate() is None
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base())
        ours = [t for t in threading.enumerate() if t.name == "console-what-if"]
        await until(pilot, lambda: not any(t.is_alive() for t in ours), "its thread ends")
        assert view.stop.is_set()


async def test_why_it_is_not_known_is_said() -> None:
    async with running(console_on(world(unmeasured="no such model type: mamba9"))) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "what it takes is not known" in screen(pilot))
        assert "mamba9" in screen(pilot)
        await pilot.press("j", "right", "1", "0")
    async with running(console_on(world(memory_problem="the model is not here"))) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "the model is not here" in screen(pilot))
        await pilot.press("j", "right", "1", "0", "escape")


async def test_it_opens_without_an_engine_and_read_only() -> None:
    gone = world()
    app = console_on(gone, readonly=True)
    async with running(app) as pilot:
        gone.lost = "no engine is running for this home"
        await until(pilot, lambda: app.frame.lost)
        await opened(pilot)
        await until(pilot, lambda: "does not fit" in screen(pilot))
        assert not gone.log or all(word == "close" for word, _ in gone.log)
