"""Every foreign string goes through one filter, and no control byte comes out of it."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from queue_store.safe import cell_width, safe, safe_line
from tui.safe import clip, content, fit, pad, strip, wrap

OSC52 = "\x1b]52;c;aGFja2Vk\x07"
C1 = "\x9b31mred\x9d0;title\x9c"
HOSTILE = f"a{OSC52}b{C1}c\u202egnp\u2066x\x7f\x00\r"


def harmless(text: str) -> bool:
    return all(
        character in "\t\n"
        or (unicodedata.category(character) not in ("Cc", "Cs") and not _bidi(character))
        for character in text
    )


def _bidi(character: str) -> bool:
    return unicodedata.bidirectional(character) in (
        ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )


def test_clipboard_writes_c1_and_bidi_overrides_become_visible_signs() -> None:
    assert harmless(safe(HOSTILE))
    assert "]52;c;aGFja2Vk" in safe(HOSTILE)


def test_tab_and_newline_stay_in_text_and_go_in_a_line() -> None:
    assert safe("a\tb\nc") == "a\tb\nc"
    assert "\n" not in safe_line("a\tb\nc") and "\t" not in safe_line("a\tb\nc")


@given(st.text(st.characters(), max_size=80))
def test_no_text_at_all_brings_a_control_character_through(text: str) -> None:
    assert harmless(safe(text))
    assert harmless(safe_line(text)) and "\n" not in safe_line(text)


@given(st.text(st.characters(), max_size=60), st.integers(0, 40))
def test_a_clipped_text_is_never_wider_than_its_room(text: str, width: int) -> None:
    assert cell_len(clip(text, width)) <= width
    assert cell_len(pad(text, width)) == width


@given(st.text(max_size=60), st.integers(1, 30))
def test_a_drawn_line_is_exactly_as_wide_as_its_room_and_clean(text: str, width: int) -> None:
    drawn = strip(fit(((text, ""),), width), width, lambda tone: Style.null(), Style.null())
    assert drawn.cell_length == width
    assert harmless(drawn.text)


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
JOINED = (FAMILY, "\u2764\ufe0f", "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3")
PIECES = st.sampled_from(["a", "\u200d", "\ufe0f", "\U0001f3fd", "漢", "\u3164", *JOINED])


@given(st.lists(PIECES, max_size=30).map("".join))
def test_a_row_is_as_wide_in_a_terminal_that_joins_no_signs(text: str) -> None:
    """Such a terminal (tmux before 3.5, the Linux console) goes by each character alone."""
    for drawn in (clip(text, 20), pad(text, 20), fit(((text, ""),), 20)[0][0] if text else ""):
        assert cell_len(drawn) == cell_width(drawn)
    assert cell_width(pad(text, 20)) == 20
    assert "\u200d" not in content(text).plain


def test_joined_signs_stay_readable() -> None:
    assert pad("\U0001f468\u200d\U0001f467", 6) == "\U0001f468\U0001f467  "
    assert pad("\u2764\ufe0f ok", 5) == "\u2764 ok "


def test_text_that_looks_like_markup_is_shown_letter_by_letter() -> None:
    text = "[INST] what? [/INST] [bold red]x[/]"
    assert content(text).plain == text
    assert strip(((text, ""),), 60, lambda tone: Style.null(), Style.null()).text.strip() == text


def test_wrapping_loses_no_word_and_keeps_its_width() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 5
    wrapped = wrap(text, 17)
    assert all(cell_len(line) <= 17 for line in wrapped)
    assert "".join(wrapped).replace(" ", "") == text.replace(" ", "")


def test_a_word_wider_than_the_room_is_broken_and_wide_characters_are_not_halved() -> None:
    wrapped = wrap("漢字" * 20, 7)
    assert all(cell_len(line) <= 7 for line in wrapped)
    assert "".join(wrapped) == "漢字" * 20
