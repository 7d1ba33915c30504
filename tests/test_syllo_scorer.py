"""The SYLLO scorer on every payload and text style of formats F4, and on near misses of each."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scorers import score, scorer_for
from evaluation.syllo_answers import read_answer
from evaluation.syllo_text import Solution

GOLD = (Solution(1, "WINDOW", ("win", "dow")), Solution(2, "PAPER", ("pa", "per")))
BANK = {"syllable_bank": ["per", "dow", "win", "pa", "zo"]}
WINDOW = {"ans_num": 1, "syllables": ["win", "dow"], "answer": "WINDOW"}
PAPER = {"ans_num": 2, "syllables": ["pa", "per"], "answer": "PAPER"}
USAGE = {"total_tiles": 5, "usage": {"win": 1, "dow": 1}, "unused_tiles": ["zo"], "status": "ok"}


def as_word(entry: dict[str, Any]) -> dict[str, Any]:
    return {"word": entry["answer"], "syllables": entry["syllables"]}


TABLE = (
    "| Clue | Syllables | Word |\n|---|---|---|\n"
    "| 1 | win + dow | WINDOW |\n| 2 | pa + per | PAPER |"
)
LINES = ["1. win + dow → WINDOW", "2. pa + per → PAPER"]
PAYLOADS: dict[str, Any] = {
    "solutions_only": {"solutions": [WINDOW, PAPER]},
    "canonical": {"solutions": [WINDOW, PAPER], "inventory_check": USAGE},
    "solutions_map": {
        "solutions_map": {"1": as_word(WINDOW), "2": as_word(PAPER)},
        "inventory_status": "complete",
    },
    "solutions_list": {"solutions_list": LINES},
    "solutions_text": {
        "solutions_text": "1) win + dow -> WINDOW; 2) pa + per -> PAPER",
        "inventory_text": "all used but zo",
    },
    "sequence": {
        "sequence": [{"index": 1, **as_word(WINDOW)}, {"index": 2, **as_word(PAPER)}],
        "unused_tiles": ["zo"],
    },
    "solutions_table": {
        "solutions_table": {
            "headers": ["Syllables", "Word"],
            "rows": [["win | dow", "WINDOW"], ["pa | per", "PAPER"]],
        },
        "tile_summary": {"total": 5},
    },
    "solutions_markdown": {"solutions_markdown": TABLE, "inventory_markdown": "| zo | 0 |"},
    "letters": {
        "letters": [
            {"first_letter": "W", **as_word(WINDOW)},
            {"first_letter": "P", **as_word(PAPER)},
        ],
        "tile_totals": {"win": 1},
    },
    "inventory_vector": {
        "inventory_vector": [["win", 1, 1], ["dow", 1, 1], ["zo", 0, 1]],
        "answers": {"1": "WINDOW", "2": "PAPER"},
    },
    "analysis": {
        "solutions": [WINDOW, PAPER],
        "analysis": {"total_syllables": 4, "difficulty_rating": "easy"},
    },
    "sections": [
        {"section": "solutions", "data": [WINDOW, PAPER]},
        {"section": "inventory", "data": {"unused": ["zo"]}},
    ],
    "report": {"report": {"solutions": [WINDOW, PAPER], "summary": "two words"}},
    "newer map": {
        "solutions": {
            "1": {"word": "WINDOW", "syllables": ["WIN", "DOW"]},
            "2": {"word": "PAPER", "syllables": ["PA", "PER"]},
        }
    },
}
TEXTS = {
    "word_only_list": "WINDOW\nPAPER",
    "numbered words": "1. WINDOW\n2) PAPER",
    "words in a line": "WINDOW, PAPER",
    "bullets": "- WINDOW\n- PAPER",
    "lower case": "1. window\n2. paper",
    "pipe_separated": "win | dow | WINDOW\npa | per | PAPER",
    "pipes with clues": "1 | win dow | WINDOW\n2 | pa per | PAPER",
    "bracketed_syllables": "1. [win][dow] WINDOW\n2. [pa][per] PAPER",
    "brackets after": "WINDOW [win, dow]\nPAPER [pa, per]",
    "arrow_assembly": "win + dow → WINDOW\npa + per → PAPER",
    "arrow in ASCII": "1: win-dow => WINDOW\n2: pa-per => PAPER",
    "equals": "1. WINDOW = win + dow\n2. PAPER = pa + per",
    "markdown_table": TABLE,
    "table with other heads": TABLE.replace("Clue | Syllables | Word", "# | Parts used | Solved"),
    "parentheses": "WINDOW (win-dow)\nPAPER (pa-per)",
    "colon": "WINDOW: win dow\nPAPER: pa per",
    "semicolons": "1) win + dow -> WINDOW; 2) pa + per -> PAPER",
    "one line": "1. WINDOW 2. PAPER",
    "bold": "1. **WINDOW**\n2. **PAPER**",
    "clue and word": "1. glass opening in a wall: WINDOW\n2. what one writes on: PAPER",
    "table with the clues": (
        "| # | Clue | Tiles | Word |\n|:-|:-|:-|:-|\n"
        "| 1 | glass opening | win + dow | WINDOW |\n| 2 | to write on | pa + per | PAPER |"
    ),
    "table without numbers": (
        "| Parts used | SOLVED |\n|---|---|\n| win + dow | WINDOW |\n| pa + per | PAPER |"
    ),
    "table without tiles": (
        "| Clue | Word | How hard |\n|---|---|---|\n"
        "| glass opening | WINDOW | quite easy |\n| to write on | PAPER | quite easy |"
    ),
    "prose before": "Here WINDOW is one:\n1. win + dow = WINDOW\n2. pa + per = PAPER",
}
WITHOUT_TILES = {
    *("word_only_list", "numbered words", "words in a line", "bullets", "lower case"),
    *("one line", "bold", "inventory_vector", "clue and word"),
    "table without tiles",
}


def text_of(name: str) -> str:
    return TEXTS[name] if name in TEXTS else json.dumps(PAYLOADS[name], ensure_ascii=False)


EVERY = [*PAYLOADS, *TEXTS]


def parts(expected: str, answer: str) -> tuple[bool, dict[str, float]]:
    result = score("syllo", expected, answer, {**BANK, "scorer": "syllo"})
    assert (result.scorer, result.version) == ("syllo", "2.0.0")
    assert set(result.parts) == {
        *("word_em", "word_acc", "tile_legal", "json_valid", "contract_ok", "strict")
    }
    return result.exact, result.parts


@pytest.mark.parametrize("name", EVERY)
def test_every_form_reads_as_clue_word_and_tiles(name: str) -> None:
    read = read_answer(text_of(name))
    assert read is not None
    want = GOLD
    if name in WITHOUT_TILES:
        want = tuple(Solution(one.clue, one.word, None) for one in GOLD)
    assert read.solutions == want


@pytest.mark.parametrize("name", EVERY)
def test_every_form_is_right_where_it_is_the_one_asked_for(name: str) -> None:
    exact, found = parts(text_of(name), text_of(name))
    assert exact and found["word_em"] == found["word_acc"] == found["tile_legal"] == 1
    assert found["json_valid"] == float(name in PAYLOADS)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("canonical", "analysis")])
def test_the_right_words_in_another_form_are_not_what_was_asked_for(name: str) -> None:
    if name == "solutions_only":
        return
    exact, found = parts(text_of("solutions_only"), text_of(name))
    assert not exact and found["contract_ok"] == 0
    assert found["word_em"] == found["word_acc"] == found["tile_legal"] == 1


@pytest.mark.parametrize("name", EVERY)
def test_a_wrong_word_in_any_form_costs_its_clue(name: str) -> None:
    # ZOPER is laid with tiles of the bank, as PAPER is: only the word is wrong.
    wrong = text_of(name).replace("PAPER", "ZOPER").replace("paper", "zoper")
    wrong = wrong.replace('"pa"', '"zo"').replace('"PA"', '"ZO"')
    for mark in ("pa + per", "pa | per", "pa per", "[pa]", "pa, per", "pa-per"):
        wrong = wrong.replace(mark, mark.replace("pa", "zo", 1))
    exact, found = parts(text_of(name), wrong)
    assert not exact and found["word_em"] == 0 and found["word_acc"] == 0.5
    assert found["tile_legal"] == 1 and found["contract_ok"] == 1


@pytest.mark.parametrize("name", [n for n in EVERY if n not in WITHOUT_TILES])
def test_a_tile_that_is_not_in_the_bank_is_illegal_in_any_form(name: str) -> None:
    wrong = text_of(name)
    if name == "newer map":
        wrong = wrong.replace('"WIN", "DOW"', '"WI", "NDOW"')
    for mark in ('"win", "dow"', "win + dow", "win | dow", "win dow", "[win][dow]", "win, dow"):
        wrong = wrong.replace(mark, mark.replace("win", "wi").replace("dow", "ndow"))
    wrong = wrong.replace("win-dow", "wi-ndow")
    exact, found = parts(text_of(name), wrong)
    assert not exact and found["word_em"] == 1 and found["tile_legal"] == 0


@pytest.mark.parametrize(
    "tiles",
    [["win", "dow", "dow"], ["win", "win"], ["win"], ["dow", "win"], []],
    ids=["one too many", "tile twice", "tile missing", "wrong order", "none"],
)
def test_tiles_that_do_not_lay_the_word_are_illegal(tiles: list[str]) -> None:
    answer = json.dumps({"solutions": [{**WINDOW, "syllables": tiles}, PAPER]})
    exact, found = parts(text_of("solutions_only"), answer)
    assert not exact and found["word_em"] == 1 and found["tile_legal"] == 0


def test_words_without_tiles_are_legal_where_the_bank_lays_them() -> None:
    gold = text_of("inventory_vector")
    for word, legal in (("ZOPER", 1), ("WINPER", 0), ("PAPERS", 0), ("PA", 1)):
        assert parts(gold, gold.replace("PAPER", word))[1]["tile_legal"] == legal, word


@pytest.mark.parametrize("tiles", ["win | doww", "win + doww", "dow | win", "win"])
def test_tiles_in_a_row_that_do_not_join_are_its_tiles_all_the_same(tiles: str) -> None:
    gold = TEXTS["pipe_separated"]
    exact, found = parts(gold, gold.replace("win | dow", tiles))
    assert not exact and found["word_em"] == 1 and found["tile_legal"] == 0


def test_a_tile_of_the_bank_can_be_used_once() -> None:
    answer = json.dumps({"solutions": [WINDOW, {**WINDOW, "ans_num": 2}]})
    assert parts(text_of("solutions_only"), answer)[1]["tile_legal"] == 0


def test_right_words_at_wrong_clues_are_wrong() -> None:
    answer = json.dumps({"solutions": [{**WINDOW, "ans_num": 2}, {**PAPER, "ans_num": 1}]})
    exact, found = parts(text_of("canonical"), answer)
    assert not exact and found["word_acc"] == 0 and found["tile_legal"] == 1


def test_a_clue_answered_twice_is_not_answered_and_a_word_too_many_is_seen() -> None:
    gold = text_of("solutions_only")
    twice = json.dumps({"solutions": [WINDOW, {**PAPER, "ans_num": 1}]})
    assert parts(gold, twice)[1]["word_acc"] == 0
    zoo = {"ans_num": 3, "syllables": ["zo"], "answer": "ZO"}
    many = json.dumps({"solutions": [WINDOW, PAPER, zoo]})
    exact, found = parts(gold, many)
    assert not exact and found["word_acc"] == 1 and found["word_em"] == 0
    assert parts(gold, json.dumps({"solutions": [WINDOW]}))[1]["word_acc"] == 0.5


@pytest.mark.parametrize(
    "wrap",
    ["Sure! {}", "{}\nI hope this helps.", "```json\n{}\n```", "[1, 2] or\n{}"],
    ids=["before", "after", "fence", "other JSON first"],
)
def test_prose_around_the_payload_is_seen_and_the_words_still_count(wrap: str) -> None:
    exact, found = parts(text_of("canonical"), wrap.format(text_of("canonical")))
    assert not exact and found["json_valid"] == 0 and found["contract_ok"] == 0
    assert found["word_em"] == 1 and found["tile_legal"] == 1


@pytest.mark.parametrize(
    ("payload", "contract"),
    [
        ({"solutions": [WINDOW, PAPER], "inventory_check": {**USAGE, "status": "other"}}, 1),
        ({"solutions": [WINDOW, PAPER], "inventory_check": USAGE, "note": "more"}, 1),
        ({"solutions": [PAPER, WINDOW], "inventory_check": {}}, 1),
        ({"solutions": [WINDOW, PAPER], "inventory_check": "fine"}, 0),
        ({"solutions": [WINDOW, PAPER]}, 0),
        ({"solutions": [{**WINDOW, "ans_num": "1"}, PAPER], "inventory_check": USAGE}, 0),
        ({"solutions": [as_word(WINDOW), as_word(PAPER)], "inventory_check": USAGE}, 0),
        ({"solutions": [{**WINDOW, "syllables": "win dow"}, PAPER], "inventory_check": USAGE}, 0),
    ],
    ids=[
        *("another sentence", "more keys", "other order", "type", "no inventory", "string"),
        *("keys", "tiles as text"),
    ],
)
def test_the_contract_is_the_keys_and_types_of_the_expected_answer(
    payload: Any, contract: int
) -> None:
    exact, found = parts(text_of("canonical"), json.dumps(payload))
    assert found["word_em"] == found["tile_legal"] == found["json_valid"] == 1
    assert found["contract_ok"] == contract and exact == bool(contract)


def test_the_contract_of_an_answer_in_words_is_its_style() -> None:
    gold = TEXTS["arrow_assembly"]
    assert parts(gold, TEXTS["arrow in ASCII"])[0]
    for name in ("colon", "markdown_table", "word_only_list", "solutions_only"):
        exact, found = parts(gold, text_of(name))
        assert not exact and found["word_em"] == 1 and found["contract_ok"] == 0, name


def test_every_section_that_was_asked_for_must_be_there() -> None:
    gold = text_of("sections")
    first, second = PAYLOADS["sections"]
    for held, contract in (
        ([second, first], 1),
        ([first], 0),
        ([first, {**second, "data": 3}], 0),
    ):
        exact, found = parts(gold, json.dumps(held))
        assert (
            found["word_em"] == 1 and found["contract_ok"] == contract and exact == bool(contract)
        )


def test_case_and_accents_in_another_form_do_not_count() -> None:
    loud = {"ans_num": 1, "syllables": ["WIN", "Dow"], "answer": "Window"}
    assert parts(text_of("solutions_only"), json.dumps({"solutions": [loud, PAPER]}))[0]
    gold = '{"answers":{"1":"CAFÉ","2":"PAPER"}}'
    assert parts(gold, gold.replace("É", "E\u0301"))[1]["word_em"] == 1


def test_a_sequence_counted_from_zero_is_read_from_one() -> None:
    held = [{"index": 0, **as_word(WINDOW)}, {"index": 1, **as_word(PAPER)}]
    assert parts(text_of("sequence"), json.dumps({"sequence": held, "unused_tiles": []}))[0]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "3", '{"solutions": 3}', '{"solutions": [1]}', '{"solutions": [null]}'),
        *('{"solutions": [{"ans_num": 1, "answer": null}]}', '{"report": {}}', "{}", "Sorry."),
        "I could not find the words, as the clues are unclear to me.",
        "The tiles (win, dow) are there: which word can it be?",
        "[" * 100_000,
        "1" * 100_000,
        '{"solutions":' * 50_000,
    ],
    ids=range(16),
)
def test_what_says_no_word_of_a_clue_scores_nothing(text: str) -> None:
    exact, found = parts(text_of("solutions_only"), text)
    assert not exact
    assert {**found, "json_valid": 0} == dict.fromkeys(found, 0.0)


def test_without_a_bank_and_without_tiles_legality_is_unknown_and_left_out() -> None:
    result = score("syllo", TEXTS["word_only_list"], TEXTS["word_only_list"])
    assert result.exact and "tile_legal" not in result.parts
    assert "tile_legal" in score("syllo", text_of("report"), text_of("report")).parts


def test_a_syllogism_under_the_same_name_is_judged_as_text() -> None:
    assert scorer_for("syllo", "Yes, it follows.").name == "exact_match"
    assert scorer_for("syllo", "VALID").name == "exact_match"
    assert scorer_for("syllo", text_of("letters")).name == "syllo"
    assert scorer_for("syllo", TEXTS["arrow_assembly"]).name == "syllo"


@pytest.mark.parametrize(
    "unit",
    ["-", " ", "1. ", "```\n", "{", "[", "|", "= ", "AB ", "ab|", "AB\n", "*", "A,"],
)
def test_a_long_answer_of_nonsense_is_judged_at_once(unit: str) -> None:
    """Models repeat themselves up to the longest length: no rule may take time by its square."""
    text = "1. a" + unit * (60_000 // len(unit)) + "b"
    started = time.process_time()
    for answer in (text, text[4:]):
        assert not parts(text_of("solutions_only"), answer)[0]
    assert time.process_time() - started < 5


@given(answer=st.text(alphabet=st.sampled_from('WINDOWPApr 12.|[](){}:;,+-=>→"\n#'), max_size=80))
def test_no_text_of_signs_and_words_breaks_the_reading(answer: str) -> None:
    for gold in ("solutions_only", "arrow_assembly"):
        exact, found = parts(text_of(gold), answer)
        assert all(0 <= part <= 1 for part in found.values())
        assert not exact or found["word_em"] == 1


@given(st.permutations(["ab", "cd", "ef", "gh"]), st.booleans())
def test_any_split_of_the_tiles_over_two_clues_reads_back(tiles: list[str], numbered: bool) -> None:
    entries = [tiles[:2], tiles[2:]]
    lines = [f"{' + '.join(t)} → {''.join(t).upper()}" for t in entries]
    text = "\n".join(f"{n}. {line}" if numbered else line for n, line in enumerate(lines, 1))
    read = read_answer(text)
    assert read is not None
    assert [one.tiles for one in read.solutions] == [tuple(t) for t in entries]
