"""SIGKILL between any two acts on disk: what was acknowledged stays, what is left trains once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.mutants import ROOT
from tests.faults.parts import nothing_wrong, part
from tests.faults.scenarios import NAMES

SOURCES = ("queue_store", "snapshots", "engine", "evaluation", "trainctl", "tui")


def existing_points() -> dict[str, str]:
    """Every `durable.crash_point("…")` of the source, and where it stands."""
    found: dict[str, str] = {}
    for path in (one for name in SOURCES for one in sorted((ROOT / name).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called == "crash_point":
                point, where = node.args[0], f"{path.relative_to(ROOT)}:{node.lineno}"
                assert isinstance(point, ast.Constant), f"{where}: the name is no literal"
                found[str(point.value)] = where
    return found


def test_a_kill_at_some_points_of_every_protocol_loses_nothing() -> None:
    told = part("kills", "--every", 6)
    nothing_wrong(told)
    assert {one["scenario"] for one in told if "wrong" in one} == NAMES.keys()


def elsewhere() -> set[str]:
    """Points at which another test of this project kills by name: of copies at targets, rebuilds
    and the supervisor, whose homes are not the scenarios'."""
    found = set()
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value.partition(":")[0])
    return found


def test_every_crash_point_is_reached() -> None:
    passed = set(part("kills", "--trace")[-1]["passed"])
    passed |= set(part("engine_points")[-1]["passed"]) | elsewhere()
    missed = {name: where for name, where in existing_points().items() if name not in passed}
    assert not missed, "\n".join(
        f"crash point {name} is never reached ({where})" for name, where in missed.items()
    )


def test_an_engine_that_dies_again_and_again_fails_nothing_that_steps_on() -> None:
    nothing_wrong(part("restarts"))


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", NAMES)
def test_a_kill_at_every_point_and_at_every_one_of_its_recovery(scenario: str) -> None:
    nothing_wrong(part("kills", "--recovery", scenario))


def test_the_search_for_crash_points_sees_those_of_durable_itself() -> None:
    assert existing_points()["publish.renamed"].startswith(str(Path("queue_store/durable.py")))
