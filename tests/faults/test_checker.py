"""The checker is independent, and sees what it is there for."""

from __future__ import annotations

import ast
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.bench import Bench, scratch
from tests.faults.checker import check
from tests.faults.mutants import ROOT
from tests.faults.scenarios import NAMES
from tests.store_world import flip

PARTS = ["checker", "acks", "looked", "outside"]
ALLOWED = {"tests.faults", "blake3", *(f"tests.faults.{part}" for part in PARTS)}


@pytest.mark.parametrize("name", [f"{part}.py" for part in PARTS])
def test_the_checker_imports_nothing_that_it_checks(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / "tests" / "faults" / name).read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for one in names:
            top = one.partition(".")[0]
            assert one in ALLOWED or top in sys.stdlib_module_names, f"{name} imports {one}"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with scratch() as folder:
        yield Bench(folder)


def sql(*statements: str) -> Callable[[Path], None]:
    """An edit of state.db behind the program's back."""

    def edit(store: Path) -> None:
        with closing(sqlite3.connect(store / "state.db", isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)

    return edit


def newest(store: Path, folder: str) -> Path:
    return max((store / folder).iterdir(), key=lambda path: path.name)


def metrics(statement: str) -> Callable[[Path], None]:
    def edit(store: Path) -> None:
        with closing(sqlite3.connect(store / "metrics.db", isolation_level=None)) as db:
            db.execute(statement)

    return edit


BREAKS: tuple[tuple[int, str, Callable[[Path], object]], ...] = (
    (1, "an item's bytes", lambda store: flip(newest(store, "items"))),
    (1, "an acknowledged item", sql("UPDATE items SET digest = 'x', name = 'y' WHERE id = 1")),
    (1, "a missing optimizer", lambda s: (s / "versions/v001/optimizer.safetensors").unlink()),
    (2, "an item's file", lambda store: newest(store, "items").unlink()),
    (3, "the head's folder", lambda store: shutil.rmtree(newest(store, "checkpoints"))),
    (3, "the head's row", sql("UPDATE head SET checkpoint = 99")),
    (4, "a verified version", lambda store: flip(store / "versions/v001/model.safetensors")),
    (5, "two verified", sql("UPDATE versions SET state = 'unverified'")),
    (6, "a stray checkpoint", lambda store: (store / "checkpoints" / "checkpoint-9").mkdir()),
    (6, "a leftover", lambda store: (store / "tmp" / "version-1-x").mkdir()),
    (7, "two claims", sql("UPDATE items SET state = 'training'")),
    (
        7,
        "a fourth attempt",
        sql(*(f"INSERT INTO attempts VALUES(3, {n}, 1, 2, 'killed', '')" for n in range(5, 9))),
    ),
    (9, "a quiet removal", sql("DELETE FROM items WHERE id = 3")),
    (9, "a quiet deletion", sql("DELETE FROM versions WHERE id = 1")),
    (10, "a row twice", metrics("UPDATE steps SET cursor_from = 2 WHERE step = 4")),
    (10, "a lost step", metrics("DELETE FROM steps WHERE step = 5")),
    (10, "a cursor", sql("UPDATE items SET cursor = 3 WHERE id = 2")),
)


@pytest.mark.parametrize(("invariant", "what", "do"), BREAKS, ids=[b[1] for b in BREAKS])
def test_each_invariant_is_seen_broken(
    bench: Bench, invariant: int, what: str, do: Callable[[Path], object]
) -> None:
    template, acks = bench.template(NAMES["rollback"])
    home = bench.copy(template)
    do(home / "store")
    found = check(home, acks)
    assert invariant in {violation.invariant for violation in found}, (what, found)


def test_a_home_that_nothing_happened_to_is_whole(bench: Bench) -> None:
    template, acks = bench.template(NAMES["rollback"])
    home = bench.copy(template)
    # An item trains there: as after a kill, not after an end.
    assert check(home, acks, recovered=False) == []
