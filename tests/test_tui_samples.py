"""The samples browser and the prompt box: what each example became, and one's own questions."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.test_tui_screen import trained
from tests.tui_pilot import (
    NARROW,
    WIDE,
    console_on,
    running,
    screen,
    until,
)
from tests.tui_world import World
from tui import history
from tui.dialogs.development import DevelopmentView


def past(marks: str, every: int = 100) -> history.History:
    return tuple((every * n, mark) for n, mark in enumerate(marks, 1))


def browsed(*marks: str) -> World:
    """A world whose examples went so; the answers of each tick say at which step they are."""
    world = World(steps=1)
    world.step = 100 * len(marks[0])
    world.loss = [1.0] * world.step
    for n in range(len(marks[0])):
        world.answers[100 * (n + 1)] = [
            {
                "branch": 1,
                "step": 100 * (n + 1),
                "example": f"syllo/0123abcd/line {number}",
                "set": "syllo",
                "position": number,
                "prompt": f"Clue {number} of many",
                "expected": "WINDOW",
                "answer": "WINDOW" if row[n] == "o" else f"said at {n // 2}",
                "exact": row[n] == "o",
                "similarity": {"o": 1.0, "x": 0.9, ".": 0.1}[row[n]],
                "expected_loss": 2.0 - n / 10,
                "tokens": 3,
                "seconds": 0.1,
                "time": world.now,
            }
            for number, row in enumerate(marks, 1)
        ]
    return world


MARKS = ("oooooo", "..oooo", ".o..oo", ".oo...", "..xx..")
"""Always right, right later, lost and right again, lost, never right."""


# -- a history in words, as a strip -------------------------------------------------------------


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ("", "not asked yet"),
        (".", "never right in 1 tick"),
        ("..x.", "never right in 4 ticks"),
        ("ooo", "always right, in 3 ticks"),
        ("..oo", "right since step 300"),
        ("o..", "first right at step 100, lost at 200"),
        (".o.xoo", "first right at step 200, lost at 300, right again since 500"),
        ("o.o.o", "first right at step 100, lost 2 times, last at 400, right again since 500"),
        ("o.o.", "first right at step 100, lost 2 times, last at 400"),
    ],
)
def test_a_history_is_told_in_words(marks: str, words: str) -> None:
    assert history.told(past(marks)) == words


def test_steps_are_written_as_everywhere() -> None:
    assert history.told(past(".o.", 1200)) == "first right at step 2 400, lost at 3 600"


def test_a_strip_keeps_its_room_and_says_where_it_was_both() -> None:
    assert history.strip(past("..xo"), 10) == "..xo"
    assert history.strip(past("....oo.ooo"), 5) == "..o/o"
    assert history.strip(past("." * 1000), 30) == "." * 30
    assert history.strip(past(".x"), 1) == "x"
    assert history.axis(past("....oo.ooo"), 5, 700) == "   ^  steps 100 to 1 000"
    assert history.axis(past("...."), 10, 400) == "   ^  steps 100 to 400"


# -- the browser --------------------------------------------------------------------------------


async def test_list_and_chosen_example_stand_beside_each_other_and_fold() -> None:
    for size in (WIDE, NARROW):
        async with running(console_on(browsed(*MARKS)), size) as pilot:
            await pilot.press("4")
            await until(pilot, lambda: "step 600 · 1/5 · exact 60%" in screen(pilot))
            assert "wrong 2 lost 1 never 1 right 3" in screen(pilot)
            assert "line 4 Clue 4" in screen(pilot) and "always right, in 6 ticks" in screen(pilot)
            await pilot.press("j", "j")
            await until(pilot, lambda: "first right at step 200, lost at" in screen(pilot))
            await pilot.press("G")
            await until(pilot, lambda: "never right in 6 ticks" in screen(pilot))
            assert "similarity 0.100" in screen(pilot)
            assert "expected loss 1.500 nats a token" in " ".join(screen(pilot).split("|"))
            await pilot.press("n")
            await until(pilot, lambda: "· 1/5 ·" in screen(pilot))
            await pilot.press("N", "f")
            await until(pilot, lambda: "line 4 Clue 4" not in screen(pilot))
            assert "history  ..xx.." in screen(pilot)


async def test_only_one_kind_is_shown_and_each_is_counted() -> None:
    app = console_on(browsed(*MARKS))
    async with running(app) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "1/5" in screen(pilot))
        seen = []
        for kind in ("wrong 2", "lost 1", "never 1", "right 3"):
            await pilot.press("o")
            await until(pilot, lambda kind=kind: f"[{kind}]" in screen(pilot), kind)
            seen.append([str(key)[-1] for key in app.samples_pane.shown()])
        assert seen == [["4", "5"], ["4"], ["5"], ["1", "2", "3"]]
        await pilot.press("o", "[", "[", "[")
        await until(pilot, lambda: "step 300 · 1/5" in screen(pilot))
        # At that step the third was lost, and the fourth was not yet.
        await pilot.press("o", "o")
        await until(pilot, lambda: "[lost 1]" in screen(pilot))
        assert [str(key)[-1] for key in app.samples_pane.shown()] == ["3"]
        assert "then     wrong" in screen(pilot)
        await pilot.press("}")
        await until(pilot, lambda: "now      wrong" in screen(pilot))


async def test_a_text_is_looked_for_in_all_of_an_example() -> None:
    world = browsed(*MARKS)
    world.answers[600][2]["answer"] = "a rare word"
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("4", "slash", *"RARE", "enter")
        await until(pilot, lambda: "· 1/1 · /RARE ·" in screen(pilot))
        assert "line 3" in screen(pilot) and "line 4" not in screen(pilot)
        await pilot.press("slash", *"xyz", "enter")
        await until(pilot, lambda: "no example contains 'RARExyz' (Esc shows all)" in screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "/5 ·" in screen(pilot))


async def test_what_was_answered_over_time_shows_changes_alone() -> None:
    app = console_on(browsed(*MARKS))
    async with running(app) as pilot:
        await pilot.press("4", "n", "n", "n", "D")
        await until(pilot, lambda: isinstance(app.screen, DevelopmentView))
        await until(pilot, lambda: "Example line 4 over time" in screen(pilot))
        shown = screen(pilot)
        assert "first right at step 200, lost at 400" in shown
        assert re.findall(r"│ (steps? .*?(?:wrong|exact|close)) +│", shown) == [
            "step 100 wrong",
            "steps 200 to 300, 2 ticks, exact",
            "step 400 wrong",
            "steps 500 to 600, 2 ticks, wrong",
        ]
        assert "expected loss 1.900 to 1.800 nats a token" in shown
        await pilot.press("d")
        await until(pilot, lambda: "[-WINDOW-]" in screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base())


async def test_a_rollback_takes_the_later_marks_away_and_new_ticks_are_read_alone() -> None:
    world = trained(200)
    read: list[int] = []
    marks = world.sample_marks

    def counted(after: int = -1) -> Any:
        read.append(after)
        return marks(after)

    world.sample_marks = counted  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("4", "G")
        await until(pilot, lambda: "....xxoo" in screen(pilot))
        world.train(25)
        await until(pilot, lambda: "....xxooo" in screen(pilot))
        assert read == [-1, 200]
        world.version("good")
        world.versions_[-1]["step"] = 150
        world.do_rollback("v002", world.plan)
        await until(pilot, lambda: "never right in 6 ticks" in screen(pilot))
        world.step = 199
        world.train(1)
        await until(pilot, lambda: "right since step 200" in screen(pilot))
        assert set(read) == {-1, 150, 200}


async def test_no_samples_says_why_and_notices_when_that_changes() -> None:
    world = World(steps=3)
    world.no_samples = "no held-out examples: put JSONL files into the home's evaluation/ folder"
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: "no held-out examples: put JSONL files" in screen(pilot))
        await pilot.press("4", "n", "o", "d", "}", "D")
        await until(pilot, lambda: "there is no example to look at" in screen(pilot))
        world.no_samples = "samples are switched off: samples.count = 0 in config.toml"
        await until(pilot, lambda: "samples.count = 0" in screen(pilot))
