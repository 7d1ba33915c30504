"""Every terminal: sizes, themes, 16 colours, no colour, ASCII, the mouse, pasted text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.cells import cell_len
from textual.events import MouseScrollDown, MouseScrollUp, Paste
from textual.theme import BUILTIN_THEMES

from tests.test_tui_screen import trained
from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_rows import RowsWorld
from tui.actions import ACTIONS, key_label
from tui.contrast import READABLE, contrast
from tui.terminal import to_ascii, unicode_terminal
from tui.themes import fitting


def faint(app: Any) -> dict[str, float]:
    """Words on the screen (of the dialog on top, where there is one) that cannot be read well."""
    box = app.screen.query("#dialog")
    area = box.first().region if box else app.screen.region
    found: dict[str, float] = {}
    for strip in app.screen._compositor.render_strips()[area.y : area.bottom]:
        for text, style, _ in strip.crop(area.x, area.right):
            if style is None or not re.search(r"\w", text):
                continue
            color, ground = style.color, style.bgcolor
            if color is None or ground is None or not (color.triplet and ground.triplet):
                continue  # the terminal's own colours
            ratio = contrast(color.triplet, ground.triplet)
            if ratio < READABLE:
                found[text.strip()] = round(ratio, 2)
    return found


async def test_every_word_can_be_read_in_every_theme_of_textuals() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        for theme in BUILTIN_THEMES:
            app.theme = theme
            # One dialog with facts, choices, a field and buttons; the others once.
            others = ("s", "a", "question_mark") if theme == "solarized-light" else ()
            for key in ("1", "k", *others):
                await pilot.press(key)
                await pilot.pause()
                assert faint(app) == {}, (theme, key)
                if app.screen is not app._base():
                    await pilot.press("escape")
                    await until(pilot, lambda: app.screen is app._base())


def test_in_sixteen_colours_the_terminals_own_palette_is_used_dark_or_light_as_wanted() -> None:
    assert fitting("nord", BUILTIN_THEMES, "truecolor") == "nord"
    assert fitting("nord", BUILTIN_THEMES, "standard") == "ansi-dark"
    assert fitting("textual-light", BUILTIN_THEMES, "standard") == "ansi-light"
    assert fitting("ansi-light", BUILTIN_THEMES, "256") == "ansi-light"
    assert fitting("no-such-theme", BUILTIN_THEMES, "256") == ""


@pytest.mark.parametrize("theme", ["ansi-dark", "ansi-light"])
async def test_an_ansi_theme_uses_the_sixteen_colours_alone(theme: str) -> None:
    app = console_on(trained(), configured(theme=theme))
    async with running(app) as pilot:
        await pilot.press("1", "j")
        for strip in app.screen._compositor.render_strips():
            for text, style, _ in strip:
                for color in (style.color, style.bgcolor) if style else ():
                    assert color is None or color.triplet is None, (text, style)
        assert any(
            style is not None and style.reverse and ">" in text
            for strip in app.screen._compositor.render_strips()
            for text, style, _ in strip
        ), "the chosen row is told apart without a colour"


@pytest.mark.parametrize(
    "size",
    [NARROW, WIDE, *(pytest.param(size, marks=pytest.mark.slow) for size in ((60, 16), (200, 60)))],
)
async def test_ascii_holds_in_every_pane_and_every_dialog_at_every_size(
    size: tuple[int, int],
) -> None:
    world = RowsWorld(steps=60)
    world.version("one")
    app = console_on(world, configured(ascii=True))
    async with running(app, size) as pilot:
        for action in ACTIONS:
            if action.id == "leave":
                continue
            app.perform(action)
            await pilot.pause()
            while True:  # also of a dialog that opens late, behind another one
                shown = screen(pilot).replace("天", "")  # a letter of the data
                assert shown.isascii(), (action.id, {c for c in shown if not c.isascii()})
                if app.screen is app._base():
                    break
                await pilot.press("escape")
                await pilot.pause()
        app.do_leave()


@pytest.mark.parametrize(
    ("environ", "unicode"),
    [
        (b"", True),
        (b"LANG=C.UTF-8\0", True),
        (b"LANG=en_US.utf8\0", True),
        (b"LANG=de_DE\0", True),
        (b"LANG=C\0", False),
        (b"LANG=POSIX\0", False),
        (b"LANG=de_DE.ISO-8859-1\0", False),
        (b"LANG=de_DE.ISO-8859-15@euro\0", False),
        (b"LANG=en_US.UTF-8\0LC_ALL=C\0", False),
        (b"LANG=C\0LC_CTYPE=C.UTF-8\0", True),
        (b"LANG=C\0LC_ALL=\0LC_CTYPE=\0", False),
        (b"LANG=ca_ES.UTF-8@valencia\0", True),
    ],
)
def test_the_locale_of_the_start_says_whether_there_is_more_than_ascii(
    environ: bytes, unicode: bool
) -> None:
    assert unicode_terminal(environ) is unicode


def test_what_an_ascii_terminal_cannot_show_keeps_its_columns() -> None:
    for text in ("plain", "héllo", "漢字 in a row", "a\u0301", "⟦x⟧"):
        assert to_ascii(text).isascii() and len(to_ascii(text)) == cell_len(text)


async def test_no_color_draws_no_hue_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.pause()
        for strip in app.screen._compositor.render_strips():
            for text, style, _ in strip:
                for color in (style.color, style.bgcolor) if style else ():
                    if color is not None and color.triplet is not None:
                        assert max(color.triplet) - min(color.triplet) <= 2, (text, style)


# -- the mouse


def where(pilot: Any, text: str) -> tuple[int, int]:
    """The cell of the first letter of `text` on the screen."""
    for y, line in enumerate(lines(pilot)):
        if text in line:
            return cell_len(line[: line.index(text)]), y
    raise AssertionError(f"{text!r} is not on the screen:\n{screen(pilot)}")


async def test_a_click_chooses_pane_and_row_and_the_wheel_moves_without_taking_the_focus() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("6")
        await pilot.click(offset=where(pilot, "gsm8k"))
        await until(pilot, lambda: app.focused is app.queue_pane)
        chosen = app.queue_pane.selected()
        assert chosen is not None and chosen["name"] == "gsm8k.jsonl"
        assert app.pane_name == "queue"
        await pilot.press("6")
        x, y = where(pilot, "gsm8k")
        for kind, name in (
            (MouseScrollUp, "train_binary_level2_500.jsonl"),
            (MouseScrollDown, "gsm8k.jsonl"),
        ):
            await pilot._post_mouse_events([kind], offset=(x, y))
            await until(pilot, lambda name=name: app.queue_pane.selected()["name"] == name)  # type: ignore[index]
        assert app.focused is app.events_pane


async def test_the_wheel_changes_the_scale_of_a_curve() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        before = app.curves_pane.view()
        await pilot._post_mouse_events([MouseScrollUp], offset=where(pilot, "gap "))
        await until(pilot, lambda: app.curves_pane.view() != before)


async def test_every_key_of_the_footer_and_every_tab_can_be_clicked() -> None:
    world = trained()
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        for pane in ("curves", "samples", "events", "queue"):
            await pilot.click(offset=where(pilot, f" {pane}"))
            await until(pilot, lambda pane=pane: app.pane_name == pane, pane)
        ran: list[str] = []
        app.perform = lambda action: ran.append(action.id)  # type: ignore[method-assign]
        foot = lines(pilot)[-1]
        shown = [
            action
            for action in app.keymap.footer("queue")
            if f"{key_label(action)} {action.label}" in foot
        ]
        assert len(shown) > 5
        for action in shown:
            for part in (key_label(action) + " ", action.label):
                x, y = where(pilot, f"{key_label(action)} {action.label}")
                await pilot.click(offset=(x + (0 if part.endswith(" ") else len(part)), y))
                await pilot.pause()
        assert ran == [action.id for action in shown for _ in range(2)]


async def test_pasted_text_with_control_bytes_filters_and_reaches_nothing_else() -> None:
    world = trained()
    world.event("note", "a special event")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("6", "/")
        app.post_message(Paste("special\x1b]52;c;SEFDS0VE\x07\x9b31m\n:p q\r"))
        await until(pilot, lambda: "special" in app.events_pane.filter)
        await until(pilot, lambda: "nothing contains" in screen(pilot))
        shown = screen(pilot)
        assert "\x1b" not in shown and "\x9b" not in shown and "\x07" not in shown
        assert world.state == "training" and app.left == "", "no key of it was obeyed"
        await pilot.press("escape")
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "-filtering" not in app._base().classes)


async def test_pasted_text_outside_of_a_field_is_no_key() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        app.post_message(Paste("p\nq\nk\n"))
        world.train(1)
        await until(pilot, lambda: "step 121" in screen(pilot))
        assert world.state == "training" and app.left == "" and app.screen is app._base()
