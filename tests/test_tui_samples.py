"""The samples browser and the prompt box: what each example became, and one's own questions."""

from __future__ import annotations

import re
from typing import Any

import pytest
from textual.widgets import Input, TextArea

from tests.test_tui_screen import trained
from tests.tui_pilot import (
    NARROW,
    WIDE,
    configured,
    console_on,
    go_to,
    lines,
    running,
    screen,
    until,
)
from tests.tui_terminal_app import HOSTILE
from tests.tui_world import World
from tui import history
from tui.dialogs.development import DevelopmentView
from tui.dialogs.prompt import PromptBox


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
        await until(pilot, lambda: "step 600" in screen(pilot))
        assert "now      wrong" in screen(pilot)


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


# -- the prompt box -----------------------------------------------------------------------------


async def asking(pilot: Any, text: str = "") -> TextArea:
    await pilot.press("4", "t")
    await until(pilot, lambda: isinstance(pilot.app.screen, PromptBox), "the box opens")
    if text:
        await pilot.press(*text)
    box = pilot.app.screen.query_one("#prompt", TextArea)
    await until(pilot, lambda: pilot.app.focused is box)
    return box


@pytest.mark.parametrize("size", [WIDE, NARROW, (60, 16)])
async def test_a_prompt_is_asked_and_its_answer_shown(size: tuple[int, int]) -> None:
    world = trained()
    world.said = "It is a WINDOW."
    app = console_on(world)
    async with running(app, size) as pilot:
        await asking(pilot, "hello")
        assert "training: answered after the step under way" in screen(pilot)
        await pilot.press("ctrl+j", *"you", "enter")
        await until(pilot, lambda: "It is a WINDOW." in screen(pilot))
        shown = " ".join(screen(pilot).translate({ord(c): " " for c in "│┃║|"}).split())
        assert "step 120 · no digest · 9 tokens in 0.2 s · ended by" in shown
        words = next(words for command, words in world.log if command == "generate")
        assert words["prompt"] == "hello\nyou" and words["system"] is None
        assert (words["max_tokens"], words["temperature"]) == (256, 0.0)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base())


async def test_prompts_of_before_come_back_and_fields_are_sent() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        box = await asking(pilot, "one")
        await pilot.press("enter")
        await until(pilot, lambda: "ended by itself" in screen(pilot))
        await pilot.press(*"two", "enter")
        await until(pilot, lambda: screen(pilot).count("ended by itself") == 2)
        await pilot.press(*"dra", "up")
        assert box.text == "two"
        await pilot.press("up", "up")
        assert box.text == "one"
        await pilot.press("down", "down", "down")
        assert box.text == "dra"
        await pilot.press("tab", *"Be kind", "tab", "tab", *["backspace"] * 3, *"12")
        await pilot.press("tab", "backspace", *"0.5", "enter")
        await until(pilot, lambda: screen(pilot).count("ended by itself") == 3)
        words = world.log[-1][1]
        assert (words["prompt"], words["system"]) == ("dra", "Be kind")
        assert (words["max_tokens"], words["temperature"]) == (12, 0.5)
        # The box closes and opens again: what was asked is still there.
        await pilot.press("escape")
        box = await asking(pilot)
        await pilot.press("up")
        assert box.text == "dra" and "Be kind" in screen(pilot)


async def test_while_one_is_asked_escape_cancels_it_and_a_second_is_not_sent() -> None:
    world = trained()
    world.asking.clear()
    app = console_on(world)
    async with running(app) as pilot:
        await asking(pilot, "slow")
        await pilot.press("enter")
        await until(pilot, lambda: "asked, 0 s ago" in screen(pilot))
        await pilot.press(*"more", "enter")
        await until(pilot, lambda: "one prompt at a time" in screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "· cancelled" in screen(pilot))
        assert [command for command, _ in world.log] == ["generate", "cancel_generate"]
        assert world.cancelled == {world.log[0][1]["key"]}
        assert isinstance(app.screen, PromptBox)


async def test_what_an_earlier_box_asked_is_answered_in_the_next_one() -> None:
    world = trained()
    world.asking.clear()
    app = console_on(world)
    async with running(app) as pilot:
        await asking(pilot, "slow")
        await pilot.press("enter")
        await until(pilot, lambda: "asked, 0 s ago" in screen(pilot))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.screen is app._base())
        await asking(pilot)
        await until(pilot, lambda: "s ago" in screen(pilot))
        world.asking.set()
        await until(pilot, lambda: "ended by itself" in screen(pilot))


async def test_what_cannot_be_asked_is_said() -> None:
    world = trained()
    world.refuse["generate"] = "no model is loaded: training is parked"
    app = console_on(world)
    async with running(app) as pilot:
        await asking(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "type a prompt first" in screen(pilot))
        await pilot.press(*"x", "enter")
        await until(pilot, lambda: "refused  no model is loaded" in screen(pilot))
        await pilot.press("up")
        await go_to(pilot, "#tokens")
        await pilot.press("x", "enter")
        await until(pilot, lambda: "tokens: '256x' is not a whole number" in screen(pilot))
        await pilot.press("backspace")
        await go_to(pilot, "#temperature")
        await pilot.press("9", "9", "enter")
        await until(pilot, lambda: "is not a number from 0 to 10" in screen(pilot))
        await pilot.press("escape")
        world.lost = "no engine is running"
        await until(pilot, lambda: bool(app.frame.lost))
        await pilot.press("t")
        await until(
            pilot,
            lambda: (
                "try a prompt needs the engine" in " ".join(lines(pilot)[-2:])
                or "engine lost" in screen(pilot)
            ),
        )
        assert app.screen is app._base()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("paused", "paused: answered at once, within 60 s"),
        ("starting", "loading tiny: answered once the model is loaded"),
        ("preparing", "answered between the rows"),
        ("stopping", "the engine is stopping: it answers nothing any more"),
    ],
)
async def test_the_box_says_when_an_answer_can_come(state: str, words: str) -> None:
    world = trained()
    world.state, world.phase = state, "loading tiny" if state == "starting" else ""
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: app.frame.state == state)
        await asking(pilot)
        assert words in screen(pilot)


async def test_hostile_text_in_answer_and_paste_is_shown_as_signs() -> None:
    world = trained()
    world.said = HOSTILE
    for answers in world.answers.values():
        for answer in answers:
            answer |= {"answer": HOSTILE, "example": "e\x1b[31m"}
    app = console_on(world, configured(ascii=True))
    async with running(app) as pilot:
        box = await asking(pilot)
        from textual.events import Paste

        box.post_message(Paste("a\x1b]52;c;x\x07\nb"))
        await until(pilot, lambda: "b" in box.text)
        assert "\x1b" not in box.text and box.text.endswith("\nb")
        await pilot.press("enter")
        await until(pilot, lambda: "ended by itself" in screen(pilot))
        assert "[INST] [/INST]" in screen(pilot)
        first = screen(pilot)
        await pilot.press("escape", "D")
        await until(pilot, lambda: isinstance(app.screen, DevelopmentView))
        for text in (first, screen(pilot)):
            assert not set(text) & {*map(chr, range(9)), "\x1b", "\x85", "\x9b", "\u202e"}


# -- several models, and answers that grow --------------------------------------------------------


async def ask_models(pilot: Any, names: str, text: str = "hi") -> None:
    await asking(pilot, text)
    await go_to(pilot, "#models")
    await pilot.press(*["backspace"] * 3, *names, "enter")


async def test_versions_and_the_present_model_answer_beside_each_other() -> None:
    world = trained()
    world.said = "WINDOW"
    app = console_on(world)
    async with running(app, WIDE) as pilot:
        await ask_models(pilot, "now v001 base")
        await until(pilot, lambda: screen(pilot).count("ended by itself") == 3)
        shown = screen(pilot)
        row = next(line for line in shown.splitlines() if "WINDOW says v001" in line)
        assert row.index("WINDOW") < row.index("WINDOW says v001") < row.index("WINDOW says base")
        assert "v001 · step 10 · 111111111111" in " ".join(shown.split("|"))
        asked = dict(world.log[-2:])
        assert asked["ask"]["models"] == ["v001", "base"] and "models" not in asked["generate"]
    async with running(console_on(world), NARROW) as pilot:
        await ask_models(pilot, "now,v001,base")
        await until(pilot, lambda: "WINDOW says base" in screen(pilot))
        lines_ = screen(pilot).splitlines()
        assert not any("says v001" in line and "says base" in line for line in lines_)


async def test_a_model_that_is_not_there_is_refused_in_its_place() -> None:
    world = trained()
    world.said = "WINDOW"
    app = console_on(world)
    async with running(app, WIDE) as pilot:
        await ask_models(pilot, "now v999")
        await until(pilot, lambda: "no model v999" in screen(pilot))
        await until(pilot, lambda: "WINDOW" in screen(pilot))
        assert "says" not in screen(pilot), "nobody else answered for it"


async def test_answers_are_shown_while_they_grow_and_esc_cancels_all_of_them() -> None:
    world = trained()
    world.asking.clear()
    app = console_on(world)
    async with running(app, WIDE) as pilot:
        await ask_models(pilot, "now v001 base")
        world.growing[""] = {"answering": True, "answer": "It is a \x1b[3", "tokens": 4}
        await until(pilot, lambda: "It is a ␛[3…" in screen(pilot))
        whole = {"model": "v001", "step": 1, "digest": "c" * 64, "answer": "A DOOR", "stop": "end"}
        world.growing["-models"] = {
            **{"answering": True, "model": "base", "answer": "", "tokens": 0},
            **{"doing": "sending its weights, 40 %", "said": [whole]},
        }
        await until(pilot, lambda: "sending its weights, 40 %…" in screen(pilot))
        assert "A DOOR" in screen(pilot) and "cccccccccccc" in screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: len(world.cancelled) == 2)
        await until(pilot, lambda: "· cancelled" in screen(pilot))


async def test_up_and_down_name_the_models_that_can_be_asked() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await asking(pilot)
        await until(pilot, lambda: bool(app.frame.versions))
        names = [str(one["name"]) for one in app.frame.versions]
        await go_to(pilot, "#models")
        field = app.screen.query_one("#models", Input)
        await pilot.press("down")
        assert field.value == names[-1]
        await pilot.press("space", "up")
        assert field.value == f"{names[-1]} base"
        await pilot.press("up")
        assert field.value == f"{names[-1]} {names[0]}"
