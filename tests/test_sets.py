"""Held-out sets of a home, and files made by the generators with their lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from evaluation.lineage import SUFFIX
from evaluation.make import default_name, make_file
from evaluation.sets import held_out_digests, load_sets
from queue_store.errors import DataError, NotFound, Refused, UsageError
from queue_store.home import Home
from queue_store.rows import Row, badge, prompt_digest, quick_check, read_rows


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def talk(*contents: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant") * len(contents)
    turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return {"messages": turns, **more}


def test_sets_hold_prompts_and_expected_answers_under_unique_ids(home: Home) -> None:
    make_file("syllo", 2, 9, 1, True, home.evaluation / "puzzles.jsonl")
    write(
        home.evaluation / "own.jsonl",
        talk("a?", "b.", "c?", "d.", metadata={"id": "x", "level": "easy"}),
        talk("e?", "f.", metadata={"id": "x"}, skill="letters", level=3),
        talk("g?", "h."),
    )
    own, puzzles = load_sets(home)
    assert (own.name, puzzles.name) == ("own", "puzzles")
    assert [e.id for e in own.examples] == ["x", "x (line 2)", "line 3"]
    assert [m["content"] for m in own.examples[0].prompt] == ["a?", "b.", "c?"]
    assert own.examples[0].expected == "d."
    assert [(e.skill, e.level) for e in own.examples] == [("", None), ("letters", 3), ("", None)]
    assert own.digest == blake3((home.evaluation / "own.jsonl").read_bytes()).hexdigest()
    assert len({e.id for e in puzzles.examples}) == 9
    assert {(e.skill, e.level) for e in puzzles.examples} == {("syllo", 2)}
    assert all(e.metadata["syllable_bank"] for e in puzzles.examples)
    assert [s.name for s in load_sets(home, ["puzzles"])] == ["puzzles"]


def test_an_unknown_set_names_its_neighbour(home: Home) -> None:
    with pytest.raises(NotFound, match="known: none"):
        load_sets(home, ["own"])
    write(home.evaluation / "own.jsonl", talk("a?", "b."))
    with pytest.raises(NotFound, match="did you mean own"):
        load_sets(home, ["owm"])


def test_a_row_that_cannot_be_asked_is_an_error_with_file_and_line(home: Home) -> None:
    path = write(home.evaluation / "own.jsonl", talk("a?", "b."), {"text": "no question"})
    with pytest.raises(DataError, match=r"own\.jsonl:2: has no expected answer"):
        load_sets(home)
    write(path, talk("a?", "b."), talk("a?", "b.", "c?"))
    with pytest.raises(DataError, match=r"own\.jsonl:2: has no expected answer"):
        load_sets(home)
    path.write_text("rubbish\n")
    with pytest.raises(DataError, match=r"own\.jsonl:1: not JSON"):
        load_sets(home)


def test_held_out_digests_are_those_of_the_rows_prompts(home: Home) -> None:
    assert held_out_digests(home) == frozenset()
    path = make_file("binary", 2, 20, 1, True, home.evaluation / "sums.jsonl")
    digests = held_out_digests(home)
    assert digests == {prompt_digest(row) for row in read_rows(path) if isinstance(row, Row)}
    assert len(digests) == 20
    train = make_file("binary", 2, 300, 1, False, home.root / "train.jsonl")
    assert not digests & {prompt_digest(row) for row in read_rows(train) if isinstance(row, Row)}


def test_a_file_is_the_same_bytes_for_the_same_arguments(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    make_file("syllo", 3, 50, 11, False, one)
    make_file("syllo", 3, 50, 11, False, other)
    assert one.read_bytes() == other.read_bytes()
    metas = [json.loads(Path(f"{path}{SUFFIX}").read_text()) for path in (one, other)]
    for meta in metas:
        del meta["generated_at"], meta["validated_at"]
    assert metas[0] == metas[1]
    third = make_file("syllo", 3, 50, 12, False, tmp_path / "third.jsonl")
    assert third.read_bytes() != one.read_bytes()


def test_the_lineage_names_generator_parameters_and_check(tmp_path: Path) -> None:
    path = make_file("binary", 3, 40, 5, False, tmp_path / "x.jsonl")
    meta = json.loads((tmp_path / f"x.jsonl{SUFFIX}").read_text())
    assert meta["generator_id"] == "trainctl_binary" and meta["generator_version"] == "1.0.0"
    assert meta["example_count"] == 40 == quick_check(path).accepted
    assert meta["params"] == {
        "skill": "binary",
        "level": 3,
        "count": 40,
        "seed": 5,
        "held_out": False,
    }
    assert meta["validator_versions"] == {"scorer_binary": "1.1.0"}
    assert meta["validation_passed"] is True and meta["validation_errors"] == 0
    assert meta["extra"]["blake3"] == blake3(path.read_bytes()).hexdigest()


def test_in_a_folder_the_name_says_skill_level_and_count(tmp_path: Path) -> None:
    path = make_file("binary", 4, 12, 5, False, tmp_path)
    found = badge(path.name)
    assert found is not None
    assert (found["skill"], found["level"], found["count"]) == ("binary", 4, 12)
    assert badge(default_name("syllo", 1, 3, held_out=True)) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, path.name + SUFFIX]


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("mine")
    with pytest.raises(Refused, match=r"x\.jsonl: exists already"):
        make_file("binary", 3, 5, 1, False, path)
    assert path.read_text() == "mine"
    with pytest.raises(NotFound, match="no such folder"):
        make_file("binary", 3, 5, 1, False, tmp_path / "none" / "x.jsonl")
    with pytest.raises(UsageError):
        make_file("binary", 3, 10**9, 1, False, tmp_path / "y.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]
