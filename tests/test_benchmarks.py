"""The table of `make bench`: what a row says, what is skipped, and that nobody is named in it."""

from __future__ import annotations

import getpass
import importlib
import json
import platform
from pathlib import Path

from benchmarks import __main__ as runner
from benchmarks import machine
from benchmarks.figures import at_least, at_most, median_and_p95, missing, skipped


def test_every_benchmark_still_finds_what_it_measures() -> None:
    for path in sorted(Path(runner.__file__).parent.glob("bench_*.py")):
        assert callable(importlib.import_module(f"benchmarks.{path.stem}").run)


def test_a_target_is_judged_by_the_median() -> None:
    row = at_most("time", [1.0, 2.0, 9.0], "ms", 2.0)
    assert (row["value"], row["target"], row["met"]) == (2.0, "<= 2", True)
    assert row["spread"] == "1 to 9, n=3"
    assert not at_least("ratio", [0.8, 0.96], "times", 0.9)["met"]


def test_a_95th_percentile_over_the_target_is_missed() -> None:
    median, p95 = median_and_p95("add", [1.0] * 80 + [50.0] * 20, "ms", 20.0)
    assert median["met"] and not p95["met"]


def test_what_is_not_installed_is_told_with_the_command() -> None:
    why = missing("no_such_package_of_anybody")
    assert "pip install -e '.[bench]'" in why
    assert why in runner.cells(skipped("speed", why))
    assert missing("json") == ""


def test_a_bench_that_breaks_down_is_a_row_that_is_not_met() -> None:
    (row,) = runner.measure("no_such", quick=True)
    assert not row["met"] and "exit code" in row["skipped"]


def test_the_description_names_no_machine_user_or_folder() -> None:
    about = machine.describe()
    text = json.dumps(about) + machine.slug(about)
    assert platform.node() not in text and str(Path.home()) + "/" not in text
    assert getpass.getuser() not in text
    assert about["packages"]["torch"] and about["cores"] >= 1


def test_the_page_has_a_row_for_every_figure() -> None:
    rows = [at_most("a | b", [1.0], "ms", 2.0), skipped("c", "why")]
    about = {**machine.describe()}
    report = {"date": "2026-01-01", "quick": True, "machine": about}
    page = runner.markdown({**report, "benches": [{"name": "x", "seconds": 1, "rows": rows}]})
    assert "| a / b | 1.0 | ms | <= 2 | yes |  |" in page
    assert "| c |  |  |  |  | why |" in page
