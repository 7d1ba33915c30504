"""Two versions by what they answered to the evaluation sets, and the items that changed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.widgets import Static

from tests.test_tui_compare import SIZES, at
from tests.test_tui_dialogs import commands
from tests.test_tui_versions import branched
from tests.tui_pilot import NARROW, configured, console_on, lines, running, screen, until
from tests.tui_world import World
from tui.dialogs.changed import ChangedView
from tui.dialogs.compare import CompareView
from tui.dialogs.judged import judged_lines
from tui.safe import line_text


def judged(**right: Any) -> World:
    """Versions of which v001 and v004 were evaluated: 14 gained, 2 lost of 40."""
    world = branched()
    world.evaluate(v001=lambda n: n < 10, v004=lambda n: 2 <= n < 24)
    if right:
        world.right = dict(right)
    return world


async def compared(pilot: Any) -> CompareView:
    """v001 at the left, v004 at the right."""
    view = await at(pilot, CompareView, "5", "g", "space", "G", "c")
    assert isinstance(view, CompareView)
    return view


def foot(pilot: Any) -> str:
    """The last line of the view on top."""
    return str(pilot.app.screen.query_one("#foot", Static).render())


async def read_all(pilot: Any) -> str:
    """All lines of a view that scrolls."""
    seen = screen(pilot)
    for _ in range(20):
        await pilot.press("pagedown")
        await pilot.pause()
        seen += "\n" + screen(pilot)
    return seen


@pytest.mark.parametrize("size", SIZES)
async def test_the_sets_say_how_sure_the_difference_is(size: tuple[int, int]) -> None:
    world = judged()
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        view = await compared(pilot)
        await until(pilot, lambda: "adj" in screen(pilot) or view._judged is not None)
        seen = await read_all(pilot)
        words = " ".join(seen.split())
        for part in (
            *("v004 is better than v001", "22 of 40 right", "25% 14-40", "55% 40-69"),
            *("easy", "medium", "hard", "word_em", "412 tokens/s (plain, titan, batch 8)"),
            *("v004 has no answer that counts to 2: timeout 2", "v001 has no results on set gsm8k"),
        ):
            assert part in words, part
        (row,) = {line for line in seen.splitlines() if " all " in line}
        assert "14" in row and " 2 " in row and "*" in row, row
        assert seen.isascii() or size != (60, 16), {c for c in seen if not c.isascii()}
        assert view.query_one("#foot").region.bottom <= size[1]
    assert commands(world) == []


def test_what_chance_explains_is_said_with_how_many_items_would_show_it() -> None:
    world = judged()
    world.evaluate(v004=lambda n: n < 11)
    found = world.do_compare_answers("v001", "v004")
    told = " ".join(line_text(line) for line in judged_lines(found, ("v001", "v004"), 200))
    assert "no difference shown with n = 40" in told and "would be needed to see 5 points" in told
    marked = [line for line in judged_lines(found, ("v001", "v004"), 100) if "*" in line_text(line)]
    assert len(marked) == 1, "only the legend has the mark"


@pytest.mark.parametrize("width", [56, 72, 90, 108])
def test_no_line_is_wider_than_the_view(width: int) -> None:
    world = judged()
    world.items_asked = 12_000
    found = world.do_compare_answers("v001", "v004")
    found["sets"][0]["set"] = "a very long name of a set " * 4
    for line in judged_lines(found, ("v001", "v004"), width):
        assert len(line_text(line)) <= width, line_text(line)


async def test_no_key_waits_for_the_answers_to_be_read() -> None:
    world = judged()
    world.reads = threading.Event()
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await compared(pilot)
        await until(pilot, lambda: "reading the answers" in screen(pilot))
        before = screen(pilot)
        await pilot.press("pagedown")
        await until(pilot, lambda: screen(pilot) != before, "it scrolls meanwhile")
        await pilot.press("i")
        await until(pilot, lambda: foot(pilot).startswith("reading the answers"))
        assert isinstance(app.screen, CompareView)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base(), "it closes meanwhile")
        await pilot.press("p")
        await until(pilot, lambda: world.state == "paused", "and the console goes on")
        world.reads.set()
        await at(pilot, CompareView, "c")
        await until(pilot, lambda: "is better than" in screen(pilot))


async def test_what_is_read_stays_where_it_is_when_the_answers_come() -> None:
    world = judged()
    world.reads = threading.Event()
    app = console_on(world)
    async with running(app, (60, 16)) as pilot:
        view = await compared(pilot)
        await pilot.press("end")
        await until(pilot, lambda: "rows trained" in screen(pilot))
        before, top = lines(pilot)[2:12], view._body.top
        assert not any("reading the answers" in line for line in before)
        world.reads.set()
        await until(pilot, lambda: view._judged is not None)
        await until(pilot, lambda: view._body.top > top, "there is more above")
        assert lines(pilot)[2:12] == before
        await pilot.press("home")
        await until(pilot, lambda: "55% 40-69 better" in screen(pilot), "first things first")


async def test_without_an_evaluation_the_reason_stands_there_and_i_says_it() -> None:
    world = branched()
    app = console_on(world)
    async with running(app) as pilot:
        await compared(pilot)
        await until(pilot, lambda: "v001 has no results" in screen(pilot))
        assert "right in both" in screen(pilot), "the rest is there"
        await pilot.press("i")
        await until(pilot, lambda: foot(pilot).startswith("v001 has no results"))


async def test_the_present_state_is_compared_by_its_answers_too() -> None:
    world = judged()
    world.right["the present state"] = lambda n: n < 30
    app = console_on(world)
    async with running(app) as pilot:
        await at(pilot, CompareView, "5", "G", "c")
        await until(pilot, lambda: "the present state is better than v001" in screen(pilot))


async def test_a_version_is_compared_with_the_base_model_too() -> None:
    world = judged(base=lambda n: n < 3, v001=lambda n: n < 10, v004=lambda n: 2 <= n < 24)
    app = console_on(world)
    async with running(app) as pilot:
        view = await compared(pilot)
        await until(pilot, lambda: "v004 is better than v001" in screen(pilot))
        await pilot.press("b")
        await until(pilot, lambda: "v004 is better than base: 22 of 40" in screen(pilot))
        assert "the answers of v004 against those of base" in screen(pilot)
        assert "is better than v001" not in screen(pilot)
        await at(pilot, ChangedView, "i")
        assert "Items that changed from base to v004" in screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is view)
        # What was asked for last counts, whatever comes last.
        await pilot.press("b")
        await until(pilot, lambda: "v004 is better than v001" in screen(pilot))
        slow = world.reads = threading.Event()
        await pilot.press("b")
        await until(pilot, lambda: world.reading_answers, "the base's answers are being read")
        world.reads = None
        await pilot.press("b")
        await until(pilot, lambda: "v004 is better than v001" in screen(pilot))
        slow.set()
        await until(pilot, lambda: not world.reading_answers)
        await pilot.pause(0.1)
        assert "v004 is better than v001" in screen(pilot)
        await pilot.press("escape")
        await at(pilot, CompareView, "space", "c")
        await pilot.press("b")
        await until(pilot, lambda: "v001 is better than base: 10 of 40" in screen(pilot))


# -- the items


@pytest.mark.parametrize("size", SIZES)
async def test_items_that_changed_are_listed_and_read_in_full(size: tuple[int, int]) -> None:
    world = judged()
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        view = await compared(pilot)
        await until(pilot, lambda: view._judged is not None)
        changed = await at(pilot, ChangedView, "i")
        assert "14 gained, 2 lost" in screen(pilot)
        assert "- q0 " in screen(pilot), "the lost ones first"
        assert "Clue 0: tiles GLA" in screen(pilot)
        await pilot.press("end")
        await until(pilot, lambda: ">+ q23" in screen(pilot), "the last is in sight")
        await pilot.press("home", "enter")
        seen = ""
        await until(pilot, lambda: "asked" in screen(pilot))
        seen = " ".join((await read_all(pilot)).split())
        for part in ("Answer with JSON.", 'expected {"answer": "WORD0"}', "no idea no idea"):
            assert part in seen, part
        assert "syllo 1.2.0" in seen and "word_em 1.00" in seen and "right" in seen
        await pilot.press("n")
        await until(pilot, lambda: "· q1 ·" in screen(pilot) or "- q1 -" in screen(pilot))
        await pilot.press("n", "n", "n", "p")
        await until(pilot, lambda: "q11" in screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: ">+ q11" in screen(pilot), "the list where it was read")
        await pilot.press("o")
        await until(pilot, lambda: "lost alone" in screen(pilot))
        assert "q11" not in screen(pilot) and ">- q0" in screen(pilot)
        assert changed.query_one("#foot").region.bottom <= size[1]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is view)
    assert commands(world) == []


async def test_an_item_that_is_read_slowly_gives_way_to_the_next_and_to_esc() -> None:
    world = judged()
    app = console_on(world)
    async with running(app) as pilot:
        view = await compared(pilot)
        await until(pilot, lambda: view._judged is not None)
        await at(pilot, ChangedView, "i")
        world.reads = threading.Event()
        await pilot.press("enter", "n")
        await until(pilot, lambda: "reading…" in screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "14 gained" in screen(pilot))
        world.reads.set()
        await pilot.pause(0.1)
        assert "14 gained" in screen(pilot), "a late answer changes nothing"
        await pilot.press("enter")
        await until(pilot, lambda: "WORD1" in screen(pilot), "q1 is the chosen one")


async def test_hostile_prompts_and_answers_are_text() -> None:
    bad = "[red]x[/nope] \x1b]52;c;eA==\x07 \x9b31m \u202e{n}"
    world = judged()
    world.texts = {"prompt": bad, "answer": bad}
    app = console_on(world)
    async with running(app) as pilot:
        view = await compared(pilot)
        await until(pilot, lambda: view._judged is not None)
        await at(pilot, ChangedView, "i")
        assert "[red]x[/nope]" in screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "expected" in screen(pilot))
        assert "[red]x[/nope]" in screen(pilot)
        assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(screen(pilot))


async def test_where_both_answer_the_same_there_is_nothing_to_read() -> None:
    world = judged(v001=lambda n: n < 9, v004=lambda n: n < 9)
    app = console_on(world)
    async with running(app) as pilot:
        view = await compared(pilot)
        await until(pilot, lambda: view._judged is not None)
        await at(pilot, ChangedView, "i")
        assert "No item changed sides" in screen(pilot)
        await pilot.press("enter", "n", "o", "end")
        await pilot.pause()
        assert isinstance(app.screen, ChangedView)
