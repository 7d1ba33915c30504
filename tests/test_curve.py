"""The curves: a million points, spikes, gaps, and no colour."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tui import raster, series
from tui.curve import Look, plot
from tui.marks import Mark
from tui.safe import line_text


def made(values: np.ndarray, first: int = 1) -> series.Series:
    steps = np.arange(first, first + len(values), dtype=np.int64)
    return series.Series("loss", 1, steps, values, values, values)


def drawn(data: series.Series, **look: object) -> list[str]:
    shape = Look(float(data.steps[0]), float(data.last), **look)  # type: ignore[arg-type]
    return [line_text(line) for line in plot(data, None, (), shape, 120, 20).lines]


def test_a_spike_of_one_step_among_a_million_is_seen() -> None:
    values = np.full(1_000_000, 0.2)
    values[654_321] = 9.0
    rows = drawn(made(values))
    high = [x for row in rows[1:15] for x, c in enumerate(row) if "\u2800" < c <= "\u28ff"]
    assert len(high) >= 13 and len(set(high)) == 1, "one upright, as high as the spike"
    assert abs((high[0] - 8) / 112 - 0.654321) < 0.02


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_leaves_a_gap_and_a_marker(bad: float) -> None:
    values = np.full(100, 0.5)
    values[40:60] = bad
    rows = drawn(made(values))
    foot = rows[-2]
    marked = [x for x, character in enumerate(foot) if character == "!"]
    assert marked
    middle = (marked[0] + marked[-1]) // 2
    assert all(row[middle] in " !" for row in rows[:-1]), "the line runs through the gap"


def test_a_series_without_any_number_draws_no_line_and_says_so() -> None:
    rows = drawn(made(np.full(50, np.nan)))
    assert not any("\u2800" < character <= "\u28ff" for character in "".join(rows))
    assert "!" in rows[-2]


def test_ascii_uses_no_other_character_and_keeps_line_and_band_apart() -> None:
    noisy = np.linspace(3, 1, 2000) + np.random.default_rng(0).normal(0, 0.3, 2000)
    text = "\n".join(drawn(made(noisy), ascii=True))
    assert text.isascii()
    assert ":" in text and any(character in text for character in "'-.|")


def test_without_colour_the_band_has_half_the_dots_of_a_line() -> None:
    top, bottom = np.zeros(40), np.full(40, 19.0)
    dots = raster.band_dots(top, bottom, 20)
    assert dots[0].all() and dots[19].all(), "its edges, where a spike ends, are whole"
    assert 0.45 < dots[1:19].mean() < 0.55


def test_validation_and_versions_are_marked_at_their_steps() -> None:
    data = made(np.full(100, 0.5))
    val = series.Series("val_loss", 1, np.array([50]), *(np.array([0.7]) for _ in range(3)))
    marks = [Mark("version", 25, "v001", "version v001")]
    result = plot(data, val, marks, Look(1.0, 100.0), 108, 20)
    rows = [line_text(line) for line in result.lines]
    at = next(row.index("*") for row in rows if "*" in row)
    assert abs((at - 8) - 49) <= 1
    assert "v001" in rows[0] and abs(rows[0].index("v001") - 1 - 8 - 24) <= 1


def test_the_axis_rests_while_values_move_within_it() -> None:
    assert raster.nice_range(0.131, 2.42, log=False) == raster.nice_range(0.12, 2.49, log=False)
    low, high = raster.nice_range(0.131, 2.42, log=True)
    assert low <= 0.131 and high >= 2.42


def test_a_flat_series_and_a_single_point_can_be_drawn() -> None:
    for values in (np.full(10, 0.0), np.array([1.5]), np.full(3, -2.0)):
        assert len(drawn(made(values))) == 20


@pytest.mark.parametrize("log", [False, True])
def test_zero_and_negative_values_do_not_break_a_scale(log: bool) -> None:
    assert len(drawn(made(np.linspace(-1, 1, 50)), log=log)) == 20


def test_the_smoothed_line_lies_within_its_values() -> None:
    values = np.random.default_rng(1).normal(1, 0.2, 5000)
    part = raster.columns(made(values), 1, 5000, 200)
    smooth = raster.smoothed(part.mean, part.points, 80.0)
    assert np.nanmin(values) < np.nanmin(smooth) and np.nanmax(smooth) < np.nanmax(values)
    assert np.nanstd(smooth) < np.nanstd(part.mean)


def test_extending_past_the_limit_merges_and_loses_no_extreme() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(1, 0.1, 50_000)
    values[12_345], values[33_333] = 7.0, -5.0
    data = made(values[:100])
    for start in range(100, 50_000, 5_000):
        data = series.extended(data, made(values[start : start + 5_000], start + 1))
    assert len(data) <= 2 * series.LIMIT
    assert data.high.max() == 7.0 and data.low.min() == -5.0
    assert data.spacing > 1 and data.last > 50_000 - 2 * data.spacing


def test_an_answer_with_nulls_becomes_gaps() -> None:
    result = {
        "metric": "loss",
        "branch": 1,
        "points": [[1, 0.5, 0.6, 0.55, 0.5], [2, None, None, None, None]],
    }
    data = series.of({**result, "total": 2})
    assert data.mean[0] == 0.55 and math.isnan(data.mean[1]) and data.spacing == 1


def test_nothing_is_extended_by_what_is_already_there() -> None:
    data = made(np.ones(10))
    assert series.extended(data, made(np.ones(5))) is data
