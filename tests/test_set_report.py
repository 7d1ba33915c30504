"""`trainctl sets` and tiers: who judges what, and every bad line by its number."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation.scorers import score
from evaluation.set_report import report
from evaluation.sets import load_set
from evaluation.skills import SKILLS, TIERS, generate, generate_tier
from queue_store.errors import UsageError
from queue_store.home import Home
from queue_store.rows import badge
from tests.prepare_model import GSM8K


def row(asked: str, answer: str, **metadata: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "metadata": metadata}


def write(path: Path, *rows: Any) -> Path:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_set_says_what_it_holds_and_who_judges_it(home: Home) -> None:
    write(
        home.evaluation / "mixed.jsonl",
        row("a?", "b", skill="letters", level=2, tier="easy"),
        row("c?", "d", skill="letters", level=10, difficulty="hard", scorer="token_f1"),
        row("e?", "f #### 4", skill="sums", level=2, tier="impossible"),
        row("e?", "f #### 4"),
        row("Compute: add(①,①)", "①⓪", skill="binary", tier="easy", difficulty="hard"),
    )
    (found,) = report(home)
    assert (found["name"], found["rows"], found["examples"], found["prompts"]) == ("mixed", 5, 5, 4)
    assert found["skills"] == ["binary", "letters", "sums"]
    assert found["levels"] == {"2": 2, "10": 1} and found["tiers"] == {"easy": 2, "hard": 1}
    judges = {(s["name"], s["version"]): s["rows"] for s in found["scorers"]}
    assert judges == {
        ("exact_match", "1.1.0"): 1,
        ("token_f1", "1.0.0"): 1,
        ("number", "1.1.0"): 2,
        ("binary", "1.1.0"): 1,
    }
    assert all(s["about"] for s in found["scorers"])
    assert found["problems"] == [{"line": 4, "what": "asks the same as line 3", "error": False}]
    loaded = load_set(home.evaluation / "mixed.jsonl")
    assert [e.tier for e in loaded.examples] == ["easy", "hard", "", "", "easy"]
    assert loaded.digest == found["digest"]


def test_rows_of_older_systems_are_judged_as_they_are(home: Home) -> None:
    """The binary sets of formats F5 (no messages, the tier among the tags), sparring rows of F6."""
    legacy = {
        **{"id": "bin-0001", "skill": "binary", "scenario": "add-verify", "tags": ["add", "hard"]},
        **{"user_prompt": "Compute: add(①,①)", "assistant_response": "①+① = ①⓪", "rubric": "."},
    }
    asked = "Compute: add(①,①)\n\n---\nProposed answer:\n①\n---\n\nIs this answer correct?"
    sparring = {
        **{"skill": "binary", "level": 3, "type": "sparring_identify_incorrect"},
        "messages": row(asked, "It is incorrect.")["messages"],
    }
    write(home.evaluation / "old.jsonl", legacy, sparring)
    (found,) = report(home)
    assert found["problems"] == [] and found["tiers"] == {"hard": 1} and found["levels"] == {"3": 1}
    one, other = load_set(home.evaluation / "old.jsonl").examples
    assert score("binary", one.expected, "①⓪", one.metadata).exact
    assert not score("binary", one.expected, "①⓪ = ①", one.metadata).exact
    assert not score("binary", other.expected, "It is correct.", other.metadata).exact


def test_every_bad_line_is_named_once_with_what_to_do(home: Home, trainctl) -> None:
    write(
        home.evaluation / "own.jsonl",
        row("a?", "b"),
        "rubbish",
        {"text": "no question"},
        row("c?", "d", scorer="nmber"),
        row("e?", "no number", scorer="number"),
        row("f?", "⓪ =", skill="binary"),
        row("a?", "other"),
    )
    (home.evaluation / "gone.jsonl").symlink_to(home.root / "nowhere")
    gone, own = report(home)
    assert gone["rows"] == 0 and "unknown" in gone["digest"] and gone["problems"][0]["line"] is None
    assert (own["rows"], own["examples"], own["prompts"]) == (7, 5, 4)
    said = {p["line"]: p["what"] for p in own["problems"]}
    assert sorted(said) == [2, 3, 4, 5, 6, 7]
    assert said[2].startswith("not JSON") and "end it with an assistant turn" in said[3]
    assert "did you mean number?" in said[4] and "no number after ####" in said[5]
    assert said[6] == "its own answer is wrong by its scorer, binary 1.1.0"
    done = trainctl("sets", home=home)
    assert done.code == 1
    for line, what in said.items():
        assert f"own.jsonl:{line}: {what}" in done.out
    assert "gone.jsonl: cannot be read" in done.out


def test_the_command_prints_the_sets_and_the_scorers_rules(home: Home, trainctl) -> None:
    empty = trainctl("sets", home=home)
    assert empty.code == 0 and str(home.evaluation) in empty.out
    (home.evaluation / "gsm8k.jsonl").write_bytes(GSM8K.read_bytes())
    made = trainctl(
        *("data", "make", "syllo", "--tier", "easy", "--count", 9, "--held-out"),
        *("-o", home.evaluation, "--json"),
        home=home,
    )
    assert made.code == 0 and json.loads(made.out)["tier"] == "easy"
    path = Path(json.loads(made.out)["file"])
    assert path.name.startswith("held_out_syllo_easy_9_") and badge(path.name) is None
    done = trainctl("sets", home=home)
    assert done.code == 0
    assert "number 1.1.0" in done.out and "after the last ####" in done.out
    assert "easy 9" in done.out and "syllo 2.0.0" in done.out
    rows = json.loads(trainctl("sets", "--json", home=home).out)
    assert [one["examples"] for one in rows] == [100, 9]


@pytest.mark.parametrize("skill", SKILLS)
def test_the_tiers_share_out_all_levels(skill: str) -> None:
    low, high = SKILLS[skill].levels
    tiers = [SKILLS[skill].tiers[tier] for tier in TIERS]
    levels = [level for first, last in tiers for level in range(first, last + 1)]
    assert levels == list(range(low, high + 1))


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_is_rows_of_all_its_levels_that_never_train(skill: str, tier: str) -> None:
    rows = generate_tier(skill, tier, 100, 5, held_out=True)
    assert rows == generate_tier(skill, tier, 100, 5, held_out=True)
    asked = {r["messages"][0]["content"] for r in rows}
    assert len(asked) == 100
    assert {r["metadata"]["tier"] for r in rows} == {tier}
    low, high = SKILLS[skill].tiers[tier]
    levels = Counter(r["metadata"]["level"] for r in rows)
    assert (
        set(levels) == set(range(low, high + 1))
        and max(levels.values()) - min(levels.values()) <= 1
    )
    assert {r["metadata"]["level"] for r in rows[: len(levels)]} == set(levels)
    for one in rows[:20]:
        answer = one["messages"][1]["content"]
        assert score(skill, answer, answer, one["metadata"]).exact
    for level in (low, high):
        train = generate(skill, level, 60, 5)
        assert not asked & {r["messages"][0]["content"] for r in train}


def test_small_levels_give_what_they_have_and_the_others_the_rest() -> None:
    rows = generate_tier("binary", "easy", 800, 1, held_out=True)
    levels = Counter(r["metadata"]["level"] for r in rows)
    assert levels[1] == SKILLS["binary"].possible(1, True) < levels[4]
    assert len({r["messages"][0]["content"] for r in rows}) == len(rows) == 800


def test_wrong_words_of_a_tier_are_told_in_one_line(home: Home, trainctl) -> None:
    for words, says in (
        (("--tier", "esy", "--count", 1), "did you mean easy"),
        (("--count", 1), "--level --tier"),
        (("--tier", "easy", "--level", 1, "--count", 1), "not allowed with"),
        (("--tier", "easy", "--count", 10**9), "at most"),
    ):
        done = trainctl("data", "make", "binary", *words, "-o", "x.jsonl", home=home)
        assert done.code == 2 and says in done.err and done.err.count("\n") == 1, done.err
    with pytest.raises(UsageError, match="no tier 'all'"):
        generate_tier("syllo", "all", 1, 1)
    with pytest.raises(UsageError, match="makes no file"):
        generate_tier("syllo", "easy", 0, 1)
