"""The row of marks above a curve, and the signs of the curves beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.test_curve import made
from tui import marks, series
from tui.curve import AXIS, Look, Other, plot
from tui.marks import SIGNS, Mark
from tui.metrics import METRICS, axis, figure
from tui.safe import line_text


def row(placed: list[Mark], width: int = 100) -> str:
    """Marks of steps that are columns."""
    by = marks.by_column(placed, lambda step: int(step), width)
    return line_text(marks.row(by, width))


def mark(kind: str, step: int, name: str = "") -> Mark:
    return Mark(kind, step, name, f"{kind} at {step}")


def test_every_kind_has_a_sign_of_its_own_in_ascii() -> None:
    assert len(set(SIGNS.values())) == len(SIGNS)
    assert "".join(SIGNS.values()).isascii()
    assert not set("-:~o*!") & set(SIGNS.values()), "nor one that a curve has"


def test_a_hundred_items_are_signs_in_one_row_and_hide_nothing() -> None:
    values = np.full(1000, 0.5)
    many = [mark("item", n * 10 + 1, f"item_{n}.jsonl") for n in range(100)]
    bare = plot(made(values), None, None, Look(1, 1000), 120, 20).lines
    drawn = plot(made(values), None, many, Look(1, 1000), 120, 21).lines
    assert [line_text(line) for line in drawn[1:]] == [line_text(line) for line in bare]
    assert line_text(drawn[0]).count(">") == 100


def test_many_versions_draw_no_uprights_through_the_curve() -> None:
    values = np.full(1000, 0.5)
    few = [mark("version", 100 * n, f"v{n:03d}") for n in range(1, 9)]
    many = [mark("version", 20 * n, f"v{n:03d}") for n in range(1, 50)]
    for placed, wanted in ((few, 8), (many, 0)):
        lines = plot(made(values), None, placed, Look(1, 1000), 120, 20).lines
        assert line_text(lines[2]).count("┊") == wanted


def test_where_several_meet_the_gravest_stands() -> None:
    kinds = list(SIGNS)
    assert row([mark(kind, 40) for kind in kinds])[40] == "x"
    assert row([mark(kind, 40) for kind in reversed(kinds)])[40] == "x"
    assert row([mark("item", 40), mark("version", 40)])[40] == "|"


def test_a_name_stands_where_there_is_room_and_on_the_left_at_the_right_edge() -> None:
    shown = row([mark("item", 10, "short"), mark("item", 14, "another"), mark("version", 98, "v2")])
    assert ">another" in shown and "short" not in shown
    assert shown.endswith("v2| ")
    long = "a_very_long_name_of_a_file_that_somebody_made"
    assert "a_very_long" in row([mark("item", 10, long), mark("item", 30)])
    assert len(row([mark("item", 10, long), mark("item", 30)])) == 100


def test_a_wide_or_hostile_name_keeps_the_row_its_width() -> None:
    told = [{"kind": "item", "step": 3, "name": "数据\x1b]52;c;x\x07.jsonl", "text": "\x1b[31m"}]
    (found,) = marks.marks(told, ("item",))
    assert "\x1b" not in found.name + found.text and "数" not in found.name
    assert len(row([found])) == 100
    assert marks.marks([{"kind": "strange", "step": 1}, {"kind": "item"}], tuple(SIGNS)) == []


@pytest.mark.parametrize("ascii", [False, True])
def test_every_series_has_a_sign_of_its_own_without_colour(ascii: bool) -> None:
    steps = np.linspace(3.0, 1.0, 400)
    left = Other(made(np.full(100, 2.8), 200), "~", "dim")
    look = Look(1, 400, ascii=ascii, band=False)
    val = series.Series("val_loss", 1, np.array([300]), *(np.array([2.0]) for _ in range(3)))
    text = [
        line_text(line)[AXIS:] for line in plot(made(steps), val, (), look, 108, 24, [left]).lines
    ]
    body = "\n".join(text[:-1])
    assert "~" in body and "*" in body
    other = Other(made(np.full(300, 2.5)), "o", "accent", every=2, whole=True)
    text = [line_text(line) for line in plot(made(steps), None, (), look, 108, 24, [other]).lines]
    crossed = next(line for line in text if line.count("o") > 20)
    assert "oo" not in crossed, "the line below shows between the signs"
    line_signs = set("'-.|") if ascii else {c for r in text for c in r if "⠀" < c <= "⣿"}
    assert line_signs & set("".join(text))
    assert not ascii or "\n".join(text).isascii()


def test_a_curve_beside_it_keeps_its_gap_where_it_was_no_number() -> None:
    values = np.full(100, 1.0)
    values[40:60] = math.nan
    other = Other(made(values), "o", "accent", whole=True)
    lines = plot(made(np.full(100, 2.0)), None, (), Look(1, 100), 108, 24, [other]).lines
    columns = {x for line in lines[:-1] for x, c in enumerate(line_text(line)[AXIS:]) if c == "o"}
    assert columns and not columns & set(range(42, 58))


def test_values_have_their_units_and_fit_the_axis() -> None:
    assert figure("memory", 1.2e9) == "1.2 GB" and axis("memory", 912e6) == "912 MB"
    assert figure("tokens_per_second", 8200) == "8.2k tok/s"
    assert axis("tokens_per_second", 8200) == "8.2k/s"
    assert figure("seconds", 0.0512) == "51 ms" and figure("seconds", 2.1) == "2.10 s"
    assert figure("learning_rate", 2e-4) == "2.0e-04" and axis("learning_rate", 2e-4) == "2.0e-4"
    assert figure("loss", math.nan) == "NaN"
    likely = {"learning_rate": range(-9, -2), "seconds": range(-4, 3)}
    for metric in METRICS:
        for power in likely.get(metric, range(-9, 14)):
            for figure_ in (1.0, 2.5, 9.99, 99.9):
                assert len(axis(metric, figure_ * 10.0**power)) <= 6, (metric, power, figure_)


def test_values_close_together_have_different_figures_on_the_axis() -> None:
    from tui import raster

    for metric, low, high in (
        ("loss", 0.1370, 0.1372),
        ("memory", 912.1e6, 912.3e6),
        ("learning_rate", 2e-4, 2e-4),
        ("tokens_per_second", 8200.0, 8210.0),
    ):
        y0, y1 = raster.nice_range(low, high, log=False)
        assert y0 <= low and high <= y1 and axis(metric, y0) != axis(metric, y1), metric
