"""The groups of events: every kind that is written is in one, and the filter agrees everywhere."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from queue_store import journal, kinds
from queue_store.database import State, open_state
from queue_store.home import Home
from queue_store.items import ItemState
from queue_store.jobs import JobState
from tests.engine_kit import make_home
from trainctl.__main__ import main

ROOT = Path(engine.__file__).parents[1]
WRITERS = {"record", "_tell", "_event", "move_state", "move_head"}
"""The functions that are handed a kind."""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    home = make_home(tmp_path / "home")
    with open_state(home) as state:
        yield state


def _name(node: ast.Assign) -> str:
    return str(getattr(node.targets[0], "id", ""))


def written() -> set[str]:
    """The literal kinds in the source: arguments of the writers, and names set to be one."""
    found = {f"item.{of.value}" for of in ItemState if of is not ItemState.WAITING}
    found |= {f"evaluation.{of.value}" for of in JobState}
    for path in (
        p
        for d in ("engine", "evaluation", "snapshots", "queue_store", "trainctl")
        for p in (ROOT / d).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name == "record":
                    values = node.args[1:2]
                elif name in WRITERS:
                    values = [*node.args[1:3], *(k.value for k in node.keywords if k.arg == "kind")]
            elif isinstance(node, ast.FunctionDef) and node.name in WRITERS:
                defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                values = [value for one, value in defaults if one.arg == "kind" and value]
            elif path.is_relative_to(ROOT / "evaluation"):
                continue  # there a kind is one of failure, or of files
            elif isinstance(node, ast.Assign) and _name(node) in ("EVENT", "kind"):
                values = [node.value]
            for value in values:
                both = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                found |= {
                    one.value
                    for one in both
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
    return found


def test_every_kind_that_is_written_is_in_the_table_once_and_no_other() -> None:
    assert written() - set(kinds.KINDS) == set()
    assert set(kinds.KINDS) - written() == set()
    for group, gravity in kinds.KINDS.values():
        assert group in kinds.GROUPS and group != kinds.TROUBLE
        assert gravity in (kinds.BAD, kinds.WARN, kinds.GOOD, kinds.PLAIN)


def fill(state: State, names: list[str]) -> None:
    with state.transaction():
        for number, kind in enumerate(names):
            journal.record(state, kind, f"50% of it_em {number}")


@pytest.mark.parametrize("group", ["", *kinds.GROUPS])
def test_the_store_and_the_screen_agree_on_what_belongs_to_a_group(
    state: State, group: str
) -> None:
    names = [*kinds.KINDS, "of.another.release"]
    fill(state, names)
    wanted = [kind for kind in names if kinds.belongs(kind, group)]
    assert wanted
    assert [e.kind for e in journal.events(state, group=group)] == wanted
    assert [e.kind for e in journal.latest(state, 1000, group=group)] == wanted


def test_pages_go_back_to_the_first_event_and_forward_again(state: State) -> None:
    fill(state, ["samples"] * 25 + ["item.failed"])
    back: list[int] = []
    at: int | None = None
    while page := journal.latest(state, 7, before=at, group=kinds.TRAINING):
        back = [e.seq for e in page] + back
        at = page[0].seq
    assert back == list(range(1, 26))
    assert [e.seq for e in journal.events(state, 20, 3)] == [21, 22, 23]


def test_a_text_is_found_in_any_case_and_letter_by_letter(state: State) -> None:
    fill(state, ["samples", "warning"])
    assert len(journal.latest(state, text="50% OF IT_EM")) == 2
    assert [e.kind for e in journal.latest(state, text="WARN")] == ["warning"]
    assert journal.latest(state, text="50_") == [] and journal.latest(state, text="%%") == []
    assert [e.seq for e in journal.events(state, text="em 1")] == [2]


def test_trainctl_log_shows_a_group_or_what_contains_a_text(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state, ["samples", "item.failed", "disk.low"])
    home = str(Home(state.home.root).root)

    def told(*words: str) -> list[str]:
        assert main(["--home", home, "--json", "log", *words]) == 0
        return [event["kind"] for event in json.loads(capsys.readouterr().out)]

    assert told("--only", "trouble") == ["item.failed", "disk.low"]
    assert told("--only", "training", "--contains", "em 0") == ["samples"]
    assert told("--contains", "nothing like it") == []
    assert main(["--home", home, "log", "--only", "everything"]) == 2
    assert "trouble" in capsys.readouterr().err
