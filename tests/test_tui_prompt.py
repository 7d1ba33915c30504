"""The prompt box: asked, answered, cancelled; several models, answers that grow."""

from __future__ import annotations

import re
from typing import Any

import pytest
from textual.events import Paste
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
from tui.dialogs.development import DevelopmentView
from tui.dialogs.prompt import PromptBox

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
        await until(pilot, lambda: re.search(r"asked, \d+ s ago", screen(pilot)))
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
        await until(pilot, lambda: re.search(r"asked, \d+ s ago", screen(pilot)))
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


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
async def test_a_pasted_prompt_of_several_lines_is_asked_as_it_was_copied(end: str) -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        box = await asking(pilot)
        box.post_message(Paste(end.join(("def f():", "", "\treturn 1"))))
        await until(pilot, lambda: "return" in box.text)
        assert world.log == [], "no line end of it is an Enter"
        await pilot.press("enter")
        await until(pilot, lambda: bool(world.log))
    assert world.log[0][1]["prompt"] == "def f():\n\n\treturn 1"


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
