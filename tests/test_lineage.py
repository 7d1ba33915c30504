"""Lineage: sidecars read strictly, never at the cost of a file; rates by generator and version."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from evaluation import rates
from evaluation.lineage_report import report
from queue_store import durable, intake, journal, lineage, queue, transitions
from queue_store.database import State, open_metrics, open_state
from queue_store.errors import DataError
from queue_store.home import Home
from queue_store.inbox import Inbox
from tests.store_world import LINE, World

GOOD: dict[str, Any] = {"generator_id": "gen", "generator_version": "1.0.0"}
BAD_LINE = '{"messages": []}\n'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.close()


def write(folder: Path, name: str, said: object, rows: int = 3, bad: int = 0) -> Path:
    """A file of `rows` good and `bad` bad lines; `said` is its sidecar (text, bytes or JSON)."""
    path = folder / name
    path.write_text(LINE * rows + BAD_LINE * bad)
    if said is not None:
        raw = said if isinstance(said, bytes) else json.dumps(said).encode()
        lineage.sidecar_of(path).write_bytes(raw)
    return path


def look(state: State, home: Home, **words: Any) -> dict[str, Any]:
    db = open_metrics(home)
    try:
        return report(state, db, live=False, **words)
    finally:
        db.close()


def test_a_sidecar_is_read_with_every_field_of_the_format(tmp_path: Path) -> None:
    full = {
        **GOOD,
        "generated_at": "2026-01-02T03:04:05+00:00",
        "example_count": 3,
        "params": {"level": 2},
        "validator_versions": {"data_validator": "1.1.0"},
        "validation_passed": False,
        "validation_errors": ["a", "b"],
        "validation_warnings": 4,
        "source": "api",
        "extra": {"x": 1},
        "colour": "blue",
    }
    path = write(tmp_path, "a.jsonl", full)
    said = lineage.read(lineage.sidecar_of(path))
    assert said["validation_errors"] == 2 and said["validation_warnings"] == 4
    assert said["unread"] == ["colour"] and said["validated_at"] is None
    assert said["params"] == {"level": 2} and said["validator_versions"]["data_validator"]


BROKEN = {
    "no JSON": (b"{", "not usable JSON"),
    "a list": (b"[]", "not a JSON object"),
    "empty": (b"", "not usable JSON"),
    "UTF-16": ("{}".encode("utf-16"), "UTF-8"),
    "no generator": ({"generator_version": "1"}, "generator_id"),
    "no version": ({"generator_id": "g"}, "generator_version"),
    "an empty id": ({**GOOD, "generator_id": ""}, "generator_id"),
    "a number as version": ({**GOOD, "generator_version": 1}, "generator_version"),
    "a negative count": ({**GOOD, "example_count": -1}, "example_count"),
    "parameters as text": ({**GOOD, "params": "x"}, "params"),
    "a key twice": (b'{"generator_id": "a", "generator_id": "b"}', "twice"),
    "NaN": (b'{"params": {"x": NaN}}', "NaN"),
    "a lone surrogate": (b'{"generator_id": "\\ud800", "generator_version": "1"}', "surrogates"),
    "deep": (b'{"a":' * 100_000, "nested"),
    "far too long": (b" " * (lineage.LIMIT + 1), "longer"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("way", ["add", "inbox"])
def test_a_broken_sidecar_costs_its_lineage_and_never_the_file(
    what: str, way: str, home: Home, tmp_path: Path
) -> None:
    raw, says = BROKEN[what]
    path = write(home.inbox if way == "inbox" else tmp_path, "a.jsonl", raw)
    with pytest.raises(DataError, match=says):
        lineage.read(lineage.sidecar_of(path))
    with open_state(home) as state:
        if way == "add":
            item = intake.add_file(state, path)
        else:
            inbox = Inbox(home, lambda: open_state(home), 0.0)
            item = [*inbox.scan().taken, *inbox.scan().taken][0]
            inbox.close()
        assert item.state == "queued" and item.accepted == 3
        said = lineage.of_item(state, item)
        assert said is not None and says in said["unknown"]
        events = journal.events(state, kinds=[lineage.EVENT], item=item.id)
        assert len(events) == 1 and "unknown" in events[0].text
        found = look(state, home)
        assert found["broken"][0]["item"] == item.id and found["no_lineage"][0]["files"] == 1


@pytest.mark.parametrize("take", [True, False])
def test_a_sidecar_that_cannot_be_brought_along_is_said_and_left(
    take: bool, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(home.inbox if take else tmp_path, "a.jsonl", GOOD)
    name = "take_file" if take else "copy_file"
    original = getattr(durable, name)

    def refuses(source: Path, target: Path) -> None:
        if source.name.endswith(lineage.SIDECAR):
            raise PermissionError(13, "Permission denied", str(source))
        original(source, target)

    monkeypatch.setattr(durable, name, refuses)
    with open_state(home) as state:
        item = intake.add_file(state, path, take=take)
        assert item.state == "queued"
        assert "Permission denied" in (lineage.of_item(state, item) or {})["unknown"]
    assert lineage.sidecar_of(path).is_file()


def test_a_full_disk_while_the_sidecar_is_brought_is_no_broken_sidecar(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.jsonl", GOOD)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "copy_file", full)
    with open_state(home) as state, pytest.raises(Exception, match=r"no room|No space"):
        intake.add_file(state, path)


def test_show_tells_lineage_validators_and_where_sidecar_and_file_differ(
    home: Home, tmp_path: Path, trainctl
) -> None:
    said = {
        **{**GOOD, "generator_id": "g\x1b[31m", "example_count": 99, "validation_passed": True},
        "extra": {"blake3": "0" * 64},
    }
    path = write(tmp_path, "a.jsonl", said, rows=3, bad=1)
    assert trainctl("add", path, home=home).code == 0
    item = json.loads(trainctl("show", "1", "--json", home=home).out)[0]
    assert item["lineage"]["generator"]["generator_id"] == "g\x1b[31m"
    assert item["lineage"]["validators"] == [
        {
            **{"name": "rows", "version": lineage.ROW_CHECK[1], "level": "intake"},
            **{"errors": 1, "warnings": 0, "passed": False},
        }
    ]
    notes = item["lineage"]["notes"]
    assert len(notes) == 3 and "99" in notes[0] and "digest" in notes[1] and "1 did not" in notes[2]
    plain = trainctl("show", "1", home=home).out
    assert "\x1b" not in plain and "another digest" in plain and "rows" in plain
    write(tmp_path, "b.jsonl", None)
    trainctl("add", tmp_path / "b.jsonl", home=home)
    assert "no sidecar" in trainctl("show", "2", home=home).out


def prepared(state: State, item: int, report: dict[str, Any]) -> None:
    transitions.prepared(
        state, item, key="k", settings={}, rows=3, epochs=1, steps=1, held_out=0, report=report
    )


def test_the_report_counts_by_generator_version_and_badge(world: World, tmp_path: Path) -> None:
    state, home = world.state, world.home
    for name, version, rows, bad in (
        *(("a.jsonl", "1.9.0", 1000, 10), ("b.jsonl", "1.10.0", 1000, 200)),
        ("c.jsonl", "1.10.0", 0, 5),
    ):
        path = write(tmp_path, name, {**GOOD, "generator_version": version}, rows, bad)
        intake.add_file(state, path)
    write(tmp_path, "d.jsonl", {"generator_id": "other", "generator_version": "1"}, 500)
    intake.add_file(state, tmp_path / "d.jsonl")
    name = "train_syllo_level3_5_20260101_000000.jsonl"
    intake.add_file(state, write(tmp_path, name, None, 5))
    trained = world.add("plain.jsonl")
    prepared(
        state,
        1,
        {
            **{
                "lines": 1010,
                "accepted": 1000,
                "rejected": [],
                "rejected_count": 10,
                "over_limit": {"count": 40},
            },
            "checks": {
                "level": "deep",
                "versions": {"leakage": "1.2.0", "repetition": "1.0.0"},
                "counts": {"leakage": 100, "repetition": 7},
                "findings": [{"checker": "repetition", "severity": "warning"}],
            },
            "masks": {"checks": [{"name": "truncated", "passed": False, "text": "", "line": 3}]},
        },
    )
    world.train(trained)
    db = open_metrics(home)
    for step in (1, 2, 3):
        db.execute(
            "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss,"
            " learning_rate, tokens, seconds, time) VALUES(?,1,?,?,0,1,1,1,1,1,1)",
            (world.run, step, trained.id),
        )
    db.execute("UPDATE steps SET run = 999 WHERE step = 3")  # one that was taken back
    db.close()
    found = look(state, home)
    rows = {(r["generator"], r["version"]): r for r in found["generators"]}
    assert list(rows) == [("gen", "1.9.0"), ("gen", "1.10.0"), ("other", "1")]
    assert rows["gen", "1.9.0"]["over_length"]["hits"] == 40
    assert rows["gen", "1.9.0"]["over_length"]["total"] == 1000
    assert "unknown" in rows["gen", "1.10.0"]["over_length"]
    newer = rows["gen", "1.10.0"]
    assert (newer["files"], newer["rows"], newer["rejected"]) == (2, 1205, 205)
    assert newer["failures"] == newer["rejected_files"] == 1
    badges = {r["skill"]: r for r in found["no_lineage"]}
    assert badges["syllo"]["level"] == 3 and badges["syllo"]["rows"] == 5
    assert badges[""]["level"] == {"unknown": "the file's name says none"}
    assert badges[""]["steps"] == 2
    assert found["most_rejected"]["generator"] == "gen" and found["most_rejected"]["clear"]
    assert [(b["from"], b["to"], b["verdict"]) for b in found["bumps"]] == [
        ("1.9.0", "1.10.0", "worse")
    ]
    checks = {one["name"]: one for one in found["validators"]}
    assert checks["leakage"]["versions"] == ["1.2.0"] and checks["leakage"]["rows"] == 1010
    assert checks["repetition"]["warnings"] == 7 and checks["repetition"]["errors"] == 0
    assert checks["truncated"]["files_failed"] == 1 and checks["truncated"]["level"] == "masks"
    assert found["most_aggressive"]["name"] == "leakage"
    assert [r["generator"] for r in look(state, home, generator="other")["generators"]] == ["other"]


def test_one_of_three_is_not_called_worse(world: World, tmp_path: Path) -> None:
    one = write(tmp_path, "a.jsonl", GOOD, 3)
    two = write(tmp_path, "b.jsonl", {**GOOD, "generator_version": "2.0.0"}, 2, 1)
    for path in (one, two):
        intake.add_file(world.state, path)
    found = look(world.state, world.home)
    assert found["bumps"][0]["verdict"] == "no clear difference"
    assert found["most_rejected"]["rejected"]["total"] == 6
    assert not found["most_rejected"]["clear"]


def test_the_command_says_what_to_do_where_nothing_is_and_names_unknown_generators(
    home: Home, tmp_path: Path, trainctl
) -> None:
    done = trainctl("lineage", home=home)
    assert done.code == 0 and "generator_id" in done.out and "data make" in done.out
    trainctl("add", write(tmp_path, "a.jsonl", GOOD, 50, 30), home=home)
    plain = trainctl("lineage", home=home)
    assert "30 of 80 rows, 37.5 % (27.7-48.5)" in plain.out
    alone = tmp_path / "alone.jsonl"
    alone.write_text((tmp_path / "a.jsonl").read_text().splitlines()[0] + "\n")
    trainctl("add", alone, home=home)
    (row,) = (r for r in trainctl("lineage", home=home).out.splitlines() if "other names" in r)
    assert "unknown" not in row
    other = trainctl("lineage", "--generator", "gem", home=home)
    assert other.code == 1 and "known: gen" in other.err
    assert json.loads(trainctl("lineage", "--json", home=home).out)["bumps"] == []
    assert "RATE" in trainctl("lineage", "--help").out


def test_a_database_made_anew_knows_the_lineage_again(world: World, tmp_path: Path) -> None:
    intake.add_file(world.state, write(tmp_path, "a.jsonl", GOOD))
    world.state.db.execute("DELETE FROM items")
    (item,) = intake.adopt_orphans(world.state)
    assert (lineage.of_item(world.state, item) or {})["generator_id"] == "gen"
    assert queue.get(world.state, item.id).name == "a.jsonl"


def exact(hits: int, total: int, other: int, others: int) -> float:
    """Twice the smaller tail of the hypergeometric distribution, in whole numbers."""
    whole, all_hits = total + others, hits + other
    ways = [
        math.comb(all_hits, k) * math.comb(whole - all_hits, total - k)
        for k in range(min(all_hits, total) + 1)
    ]
    everything = sum(ways)
    low, high = sum(ways[: hits + 1]), sum(ways[hits:])
    return float(min(Fraction(1), Fraction(2 * min(low, high), everything)))


@pytest.mark.parametrize(
    "case",
    [
        (1, 3, 0, 3),
        (10, 1010, 205, 1205),
        (0, 5, 0, 9),
        (5, 5, 0, 5),
        (7, 100, 7, 100),
        (3, 9, 50, 60),
    ],
)
def test_the_exact_test_is_exact(case: tuple[int, int, int, int]) -> None:
    assert rates.difference(*case) == pytest.approx(exact(*case), rel=1e-9)
    swapped = (*case[2:], *case[:2])
    assert rates.difference(*swapped) == pytest.approx(rates.difference(*case), rel=1e-9)


def test_millions_of_rows_compare_at_once_and_intervals_hold_their_ends() -> None:
    assert rates.difference(100_000, 10_000_000, 100_100, 10_000_000) > 0.5
    assert rates.difference(100_000, 10_000_000, 103_000, 10_000_000) < 1e-9
    assert rates.wilson(0, 10)[0] == 0.0 and rates.wilson(10, 10)[1] == 1.0
    low, high = rates.wilson(1, 3)
    assert (round(low, 3), round(high, 3)) == (0.061, 0.792)
