"""An answer on a terminal: harmless while it grows, whole at its end, beside others in columns."""

from __future__ import annotations

import pytest

from trainctl import columns
from trainctl.commands import generate as command
from trainctl.growing import Growing


@pytest.mark.parametrize(
    "pieces",
    [
        ("\x1b", "\x1b[", "\x1b[2J", "\x1b[2Jgone"),
        ("\x1b]", "\x1b]52;c;", "\x1b]52;c;aGk=\x07 copied"),
        ("one\r", "one\r\n", "one\r\ntwo\rover"),
        ("caf\ufffd", "caf\ufffd\ufffd", "café \x9b31m"),
    ],
)
def test_what_grows_is_harmless_across_its_pieces(pieces, capsys) -> None:
    growing = Growing()
    shown = []
    for piece in pieces:
        growing.grow(piece)
        shown.append(capsys.readouterr().out)
    growing.finish(pieces[-1])
    shown.append(capsys.readouterr().out)
    whole = "".join(shown)
    assert not set(whole) & {"\x1b", "\x07", "\r", "\x9b"}
    assert whole == command.safe(pieces[-1]) + "\n", "each character once, as in the whole text"


def test_an_answer_that_ends_otherwise_is_told_whole(capsys) -> None:
    growing = Growing()
    growing.grow("The answer")
    growing.grow("An answer")
    growing.finish("An answer\x1b")
    out = capsys.readouterr().out
    assert out.startswith("The answer\n\nIt ended otherwise") and out.endswith("\nAn answer␛\n")


def test_columns_keep_their_width_and_every_word() -> None:
    texts = ["word " * 40, "一二三四五六七八九十" * 9, "x" * 100 + "\x1b[0m"]
    assert columns.fits(3, 156) and not columns.fits(3, 155) and not columns.fits(1, 200)
    shown = columns.beside(texts, 156).split("\n")
    assert {columns.cell_width(line) for line in shown} == {156}
    parts = [line.split(" | ") for line in shown]
    for place, text in enumerate(texts):
        column = "".join(part[place] for part in parts).replace(" ", "")
        assert column == command.safe(text).replace(" ", "")
