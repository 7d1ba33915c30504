"""The lexicon and the generators of both skills."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import binary, syllo
from evaluation.lexicon import lexicon
from evaluation.skills import SKILLS, generate, get_skill
from queue_store.errors import UsageError

SOME_LEVELS = [("syllo", 1), ("syllo", 5), ("syllo", 10), ("binary", 3), ("binary", 30)]


def common_start(one: str, other: str) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def test_lexicon_has_words_of_two_to_five_syllables_that_join_exactly() -> None:
    words = lexicon()
    assert len(words) >= 320
    assert len({w.label for w in words}) == len(words)
    assert len({w.definition for w in words}) == len(words)
    for word in words:
        assert re.fullmatch("[a-z]+", word.label), word
        assert "".join(word.syllables) == word.label, word
        assert 2 <= len(word.syllables) <= 5, word
        assert all(word.syllables), word
        assert word.band in (1, 2, 3, 4), word
        assert 3 < len(word.definition) <= 40 and word.definition == word.definition.strip()
    short = sum(len(w.syllables) <= 3 for w in words)
    assert short > len(words) / 2


def test_no_clue_contains_its_word_or_a_derived_form() -> None:
    for word in lexicon():
        for token in re.findall("[a-z]+", word.definition.lower()):
            assert word.label not in token, word
            assert len(token) < 4 or token not in word.label, word
            assert common_start(word.label, token) < 4, word


@pytest.mark.parametrize("level", list(syllo.LEVELS))
def test_syllo_bank_is_exactly_the_words_tiles_and_the_red_herrings(level: int) -> None:
    rules = syllo.LEVELS[level]
    for row in syllo.make(level, 60, seed=3):
        data = row["metadata"]
        tiles = [tile for word in data["words"] for tile in word["syllables"]]
        assert Counter(data["syllable_bank"]) == Counter(tiles + data["red_herrings"])
        assert not set(data["red_herrings"]) & set(tiles)
        assert rules.words[0] <= len(data["words"]) == data["word_count"] <= rules.words[1]
        assert rules.red_herrings[0] <= len(data["red_herrings"]) <= rules.red_herrings[1]
        for word in data["words"]:
            assert "".join(word["syllables"]) == word["label"]
            assert rules.syllables[0] <= word["syllable_count"] == len(word["syllables"])
            assert word["syllable_count"] <= rules.syllables[1]


def test_syllo_prompt_states_the_number_of_words_the_clues_and_the_bank() -> None:
    for row in syllo.make(5, 30, seed=1):
        data, (user, assistant) = row["metadata"], row["messages"]
        lines = user["content"].split("\n")
        assert lines[0] == f"SYLLO: find {data['word_count']} words."
        for number, word in enumerate(data["words"], 1):
            assert lines[number] == f"{number}. {word['definition']}"
        assert f"Tiles: {' '.join(data['syllable_bank'])}" in lines
        assert f"Tiles to leave: {len(data['red_herrings'])}" in lines
        solutions = json.loads(assistant["content"])["solutions"]
        assert [s["answer"] for s in solutions] == [w["label"].upper() for w in data["words"]]
        assert [s["syllables"] for s in solutions] == [w["syllables"] for w in data["words"]]
        assert [s["ans_num"] for s in solutions] == list(range(1, data["word_count"] + 1))


def test_syllo_ids_are_unique_over_levels_and_seeds() -> None:
    ids = [
        row["metadata"]["puzzle_id"]
        for level in syllo.LEVELS
        for seed in (1, 2, 3)
        for row in syllo.make(level, 200, seed)
    ]
    assert len(set(ids)) == len(ids)


def test_syllo_held_out_sets_of_words_never_occur_in_training_rows() -> None:
    def sets(level: int, seed: int, held_out: bool) -> set[frozenset[str]]:
        rows = list(syllo.make(level, 400, seed, held_out))
        found = {frozenset(w["label"] for w in row["metadata"]["words"]) for row in rows}
        assert len(found) == len(rows), "a set of words occurs twice in a file"
        return found

    held = set.union(*(sets(level, seed, True) for level in (1, 2) for seed in (1, 2)))
    train = set.union(*(sets(level, seed, False) for level in (1, 2) for seed in (1, 2)))
    assert not held & train
    assert all(syllo.is_held_out(sorted(words)) for words in held)
    assert all(syllo.is_held_out(sorted(words, reverse=True)) for words in held)
    share = sum(syllo.is_held_out((str(n),)) for n in range(4000)) / 4000
    assert 0.13 < share < 0.17


def test_higher_syllo_levels_share_more_tiles() -> None:
    def overlap(level: int) -> float:
        return sum(row["metadata"]["overlap"] for row in syllo.make(level, 200, 1)) / 200

    assert overlap(10) > overlap(6) > overlap(1)


def value(text: str) -> int:
    assert set(text) <= {binary.ZERO, binary.ONE}, text
    return int(text.replace(binary.ZERO, "0").replace(binary.ONE, "1"), 2)


PYTHON_RESULT = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "increment": lambda a: a + 1,
    "decrement": lambda a: a - 1,
    "multiply_by_2": lambda a: a + a,
    "divide_by_2": lambda a: a >> 1,
    "equals": lambda a, b: 1 if a == b else 0,
    "lessthan": lambda a, b: 1 if a < b else 0,
    "greaterthan": lambda a, b: 1 if a > b else 0,
    "minimum": lambda a, b: a if a <= b else b,
    "maximum": lambda a, b: a if a >= b else b,
    "tobinary": lambda a: a,
    "todecimal": lambda a: a,
}

WIDTH = {
    "add": lambda bits: bits + 1,
    "multiply": lambda bits: 2 * bits,
    "increment": lambda bits: bits + 1,
    "multiply_by_2": lambda bits: bits + 1,
    "equals": lambda bits: 1,
    "lessthan": lambda bits: 1,
    "greaterthan": lambda bits: 1,
}


@settings(max_examples=60, deadline=None)
@given(level=st.integers(1, 30), seed=st.integers(0, 10**9), held_out=st.booleans())
def test_binary_results_are_those_of_python_integers(level: int, seed: int, held_out: bool) -> None:
    count = min(30, binary.possible(level, held_out))
    for row in binary.make(level, count, seed, held_out):
        user, assistant = row["messages"]
        parsed = re.fullmatch(r"Compute: (\w+)\((.*)\)", user["content"])
        assert parsed is not None
        name, arguments = parsed[1], parsed[2].split(",")
        if name == "tobinary":
            values = [int(a) for a in arguments]
        else:
            assert all(len(a) == level + 1 for a in arguments)
            values = [value(a) for a in arguments]
        assert all(0 <= v < 2 ** (level + 1) for v in values)
        answer = assistant["content"]
        given_result = int(answer) if name == "todecimal" else value(answer)
        assert given_result == PYTHON_RESULT[name](*values) >= 0
        assert binary.is_held_out(name, tuple(values)) == held_out
        if name != "todecimal":
            assert len(answer) == WIDTH.get(name, lambda bits: bits)(level + 1)


def test_binary_holds_out_a_problem_at_every_width_and_seed() -> None:
    def problems(level: int, held_out: bool) -> set[tuple[str, ...]]:
        count = binary.possible(level, held_out)
        rows = list(binary.make(level, count, 5, held_out))
        assert len(rows) == count
        texts = set()
        for row in rows:
            text = row["messages"][0]["content"].removeprefix("Compute: ").rstrip(")")
            name, _, arguments = text.partition("(")
            short = [re.sub("^⓪+(?=[⓪①])", "", a) for a in arguments.split(",")]
            texts.add((name, *short))
        assert len(texts) == count, "a problem occurs twice in a file"
        return texts

    held = set.union(*(problems(level, True) for level in (1, 2, 3)))
    train = set.union(*(problems(level, False) for level in (1, 2, 3)))
    assert not held & train
    assert len(held) / len(held | train) == pytest.approx(binary.HELD_OUT_SHARE, abs=0.02)


def test_binary_uses_every_operation_in_equal_shares() -> None:
    counts = Counter(row["metadata"]["scenario"] for row in binary.make(8, 2800, 1))
    assert set(counts) == set(binary.OPERATIONS)
    assert all(120 < count < 290 for count in counts.values()), counts


@pytest.mark.parametrize("skill,level", SOME_LEVELS)
def test_rows_are_the_same_in_another_interpreter_with_another_hash_seed(
    skill: str, level: int
) -> None:
    code = (
        "import json,sys;from evaluation.skills import generate;"
        f"sys.stdout.write(json.dumps(generate({skill!r},{level},40,7)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "123"},
    )
    assert json.loads(out.stdout) == generate(skill, level, 40, 7)
    assert generate(skill, level, 40, 8) != generate(skill, level, 40, 7)


@pytest.mark.parametrize("skill,level", SOME_LEVELS)
def test_rows_name_their_skill_level_and_generator_and_pass_their_scorer(
    skill: str, level: int
) -> None:
    found = SKILLS[skill]
    for row in generate(skill, level, 30, 2):
        data, answer = row["metadata"], row["messages"][-1]["content"]
        assert (data["skill"], data["level"]) == (skill, level)
        assert data["generator_id"] == found.generator_id
        assert data["generator_version"] == found.generator_version
        exact, parts = found.scorer.judge(answer, answer, data)
        assert exact and all(part == 1.0 for part in parts.values())


def test_what_cannot_be_made_is_refused_with_what_can() -> None:
    with pytest.raises(UsageError, match="did you mean syllo"):
        get_skill("sylo")
    with pytest.raises(UsageError, match="levels 1 to 10"):
        generate("syllo", 11, 5, 1)
    with pytest.raises(UsageError, match="levels 1 to 30"):
        generate("binary", 0, 5, 1)
    with pytest.raises(UsageError, match="give 1 or more"):
        generate("binary", 1, 0, 1)
    most = binary.possible(1, True)
    with pytest.raises(UsageError, match=f"at most {most} in one file"):
        generate("binary", 1, most + 1, 1, True)
    assert len(generate("binary", 1, most, 1, True)) == most
