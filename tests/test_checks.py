"""Each checker catches what it is for, and leaves alone what it is not for."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.checks import LEVELS, checkers, run_checks, versions
from evaluation.skills import generate
from queue_store.heldout import held_out
from queue_store.home import Home
from queue_store.rows import Message, Row, read_rows
from tests.prepare_model import GSM8K, chat, write_rows


def row(*contents: str, line: int = 1, system: str = "", **metadata: Any) -> Row:
    turns = chat(*contents, system=system)["messages"]
    return Row(line, tuple(Message(t["role"], t["content"]) for t in turns), None, metadata)


def turns(*given: tuple[str, str] | Message) -> Row:
    made = [one if isinstance(one, Message) else Message(*one) for one in given]
    return Row(1, tuple(made), None)


def found(*rows: Row, level: str = "deep") -> list[tuple[int, str, str]]:
    return [(one.line, one.checker, one.text) for one in run_checks(rows, level).findings]


CALL = Message("assistant", "", ({"name": "add", "arguments": {}},))
SENTENCE = "The cat sat on the mat. "
THINK, STOP = "\U0001f914", "\U0001f6d1"

CAUGHT = [
    ("empty_answer", row("q", " \n"), "the answer is empty"),
    ("empty_answer", row("q", "<think>so\n</think>\n\n"), "the answer is nothing after its think"),
    ("empty_answer", row("q", "a", "r", ""), "1 of 2 answers are empty; the first is empty"),
    ("empty_answer", Row(1, None, " \n"), "the text is nothing but white space"),
    ("degenerate_answer", row("q", "[object Object]"), "the answer is a placeholder that was not"),
    ("degenerate_answer", row("q", "{{ answer }}"), "the answer is a placeholder that was not"),
    ("degenerate_answer", row("q", "undefined"), "the answer is 'undefined': a placeholder?"),
    ("degenerate_answer", row("q", "No" + "o" * 30), "an answer repeats 'o' 31 times"),
    (
        "degenerate_answer",
        row("What is a cat, really?", "What is a  cat, really?"),
        "the answer is",
    ),
    ("repetition", row("q", "no no No no no"), "an answer repeats the word 'no' 5 times"),
    (
        "repetition",
        row("q", "I see the cat and I see the cat and I see the cat and"),
        "an answer rep",
    ),
    (
        "repetition",
        row("q", "First. " + SENTENCE * 2),
        "an answer says 'The cat sat on the mat.' tw",
    ),
    ("repetition", Row(1, None, "on and on on and on on and on"), "an answer repeats 'on and on'"),
    ("mojibake", row("q", "It\u00e2\u20ac\u2122s here"), "has '\u00e2\u20ac\u2122' where '\u2019'"),
    ("mojibake", row("caf\u00c3\u00a9", "a"), "has '\u00c3\u00a9' where '\u00e9' was meant"),
    (
        "mojibake",
        row("q", "\u00f0\u0178\u02dc\u20ac"),
        "has '\u00f0\u0178\u02dc\u20ac' where '\U0001f600'",
    ),
    ("mojibake", row("q", "Gr\ufffd\ufffde"), "has the replacement character U+FFFD in"),
    ("control_characters", row("q", "a \x1b[31mred"), "has an escape sequence (U+001B) after 'a'"),
    ("control_characters", row("q\x07", "a"), "has a control character (U+0007) after 'q'"),
    ("control_characters", row("q", "a\ufeffb"), "has a byte order mark (U+FEFF) after 'a'"),
    (
        "turn_order",
        turns(("user", "q"), ("user", "r"), ("assistant", "a")),
        "turns 1 and 2 are both",
    ),
    ("turn_order", turns(("user", "q"), ("assistant", "a"), ("assistant", "b")), "turns 2 and 3"),
    ("turn_order", turns(("user", "q"), ("system", "s"), ("assistant", "a")), "turn 2 is a system"),
    (
        "turn_order",
        turns(("assistant", "a"), ("user", "q"), ("assistant", "b")),
        "the assistant sp",
    ),
    ("turn_order", row("q", "a", "r"), "the last turn is the user's: it has no answer"),
    (
        "turn_order",
        turns(("user", "q"), ("tool", "3"), ("assistant", "a")),
        "turn 2 is a tool's ans",
    ),
    (
        "turn_order",
        turns(("user", "q"), CALL, ("tool", "3"), ("user", "r"), ("assistant", "a")),
        "turn 4: the user speaks before the assistant took up",
    ),
    (
        "answer_leak",
        row("Note: it is forty-two cats.", "it is forty-two cats."),
        "the prompt has the",
    ),
    (
        "answer_leak",
        row("Hint: Divide the total by seven.\nGo!", "Divide the total by seven.\n14/7 = 2"),
        "the prompt has the first line of the answer: 'Divide the total by seven.'",
    ),
    (
        "json_answer",
        row("q", "four", output_format="json"),
        "metadata.output_format says JSON, and",
    ),
    (
        "json_answer",
        row("q", "4", response_format={"type": "json_object"}),
        "metadata.response_form",
    ),
    (
        "json_answer",
        row("q", "CAT", output_variant="solutions_only"),
        "metadata.output_variant says",
    ),
    (
        "json_answer",
        row("2+2? Answer in JSON.", "four"),
        "the prompt asks for JSON, and the answer",
    ),
    ("json_answer", row("q", '{"a": 1,}'), "the answer begins as JSON and is not: "),
    ("json_answer", row("q", '[{"a": 1}, {"b"'), "the answer begins as JSON and is not: "),
    (
        "emoji_protocol",
        row("q", f"{THINK * 3}\nfour"),
        "the emoji protocol ('\U0001f914' before the",
    ),
    ("emoji_protocol", row("q", f"{THINK * 9}\nfour {STOP * 2}"), "the emoji protocol ("),
    ("emoji_protocol", row("q", f"{THINK * 3} four {STOP * 2}"), "the emoji protocol ("),
    ("emoji_protocol", row("q", f"{THINK * 3}\nfour {STOP * 5}"), "the emoji protocol ("),
    ("emoji_protocol", row("q", f"{THINK * 3}\nfour {STOP}"), "the emoji protocol ("),
]


@pytest.mark.parametrize(("checker", "bad", "told"), CAUGHT)
def test_a_checker_catches_what_it_is_for(checker: str, bad: Row, told: str) -> None:
    texts = [text for _, name, text in found(bad) if name == checker]
    assert len(texts) == 1 and texts[0].startswith(told)
    assert "\n" not in texts[0] and "\x1b" not in texts[0] and len(texts[0]) < 200


LEFT_ALONE = [
    row("q", "a"),
    row("What do you do?", "<think>Hm.</think>I answer."),
    turns(("user", "q"), CALL, ("tool", "3"), ("assistant", "a")),
    turns(("system", "s"), ("user", "q"), CALL, ("tool", "3"), ("tool", "4"), ("assistant", "a")),
    row("name a cat", "none of them", "why?", "They are all called Tom."),
    row("Compute: add(\u2460, \u24ea)", "add(\u2460, \u24ea) = " + "\u24ea" * 32),
    row("q", "24 + 24 + 24 + 24 + 24 = 120"),
    row("q", "| a | b |\n| --- | --- |\n| 1 | 2 |\n" + "-" * 40),
    row("q", "0 0 0 0 0 0 1 1 1 1 1 1"),
    row("q", "He said no, no, no. It was a long, long day. She ran and ran."),
    row(
        "q",
        "caf\u00e9, na\u00efve, N\u00c3O, \u00c2ge, \u4f60\u597d",
    ),
    row("q", "\u00abCAF\u00c9\u00bb \u00a310 \u2014 \u20ac5"),
    row("q", "tabs\tand\r\nbreaks"),
    row("Is it hot? yes", "yes"),
    row("What colour is the sky? It is blue.", "It is blue."),
    row("Explain what JSON is.", "A text format."),
    row('Convert this JSON to YAML: {"a": 1}', "a: 1"),
    row("2+2? Answer in JSON.", 'Sure:\n```json\n{"sum": 4}\n```\nDone.'),
    row("q", '{"a": 1} is an object.'),
    row("q", "[1] See the first footnote."),
    row("q", "{x | x > 3} is a set"),
    row("q", '<think>{</think>{"a": [1]}', output_format="JSON"),
    row("q", "1. win + dow -> WINDOW", output_variant="x", solution_format="arrow_assembly"),
    row("q", f"{THINK * 2}\nfour\n{STOP * 4}"),
    row("q", "\U0001f389\U0001f389 Well done!"),
    row("q", "Well done! \U0001f389"),
    row(
        "2+2?\n\n---\nProposed answer:\nFirst we add the two and two.\nIt is 5\n---\n\nThis"
        " answer is incorrect. Find the correct solution.",
        "First we add the two and two.\nIt is 4",
        type="sparring_correction",
    ),
]


@pytest.mark.parametrize("good", LEFT_ALONE)
def test_no_checker_tells_of_a_good_row(good: Row) -> None:
    assert found(good) == []


def test_rows_that_occur_twice_name_the_first(tmp_path: Path) -> None:
    rows = [
        row("q", "a", line=1),
        row("r", "a", line=2),
        row("q", "a", line=4),
        row(" q ", "b", line=5),
        row("q", "a", line=6, system="s"),
        Row(7, None, "text"),
        Row(8, None, "text"),
    ]
    assert found(*rows) == [
        (4, "duplicate_row", "is line 1 once more"),
        (5, "duplicate_prompt", "asks what line 1 asks, with another answer"),
        (8, "duplicate_row", "is line 7 once more"),
    ]


def test_an_answer_far_out_of_proportion_is_told() -> None:
    rows = [row("a question " * (3 + n % 5), "words " * (4 + n % 7), line=n) for n in range(1, 400)]
    outliers = [*rows, row("a question", "an answer " * 9_000, line=400)]
    told = [one for one in found(*outliers) if one[1] == "length_ratio"]
    assert [line for line, *_ in told] == [400] and "times longer for its prompt" in told[0][2]
    assert not [one for one in found(*outliers[-100:]) if one[1] == "length_ratio"]


def test_errors_are_few_and_the_rest_are_warnings() -> None:
    rows = [bad for _, bad, _ in CAUGHT]
    errors = {one.checker for one in run_checks(rows, "deep").findings if one.severity == "error"}
    assert errors == {"degenerate_answer", "json_answer"}


def test_levels_build_on_each_other() -> None:
    names = [set(versions(level)) for level in LEVELS]
    assert names[0] == set() and names[0] < names[1] < names[2]
    assert names[1] == {"empty_answer", "near_held_out"}
    assert names[2] == {one.name for one in checkers("deep")} and len(names[2]) == 13
    assert found(row("q", "no no no no no", line=1), level="standard") == []
    with pytest.raises(ValueError, match="level 'full' is unknown"):
        run_checks([], "full")


def test_findings_are_few_and_fair_and_counts_cover_all() -> None:
    rows = [row(f"q{n}", "", line=n) for n in range(1, 501)]
    rows.append(row("x", "\x07", line=501))
    report = run_checks(rows, "deep")
    assert len(report.findings) == 100 and report.rows == 501
    assert report.counts["empty_answer"] == 500 and report.counts["mojibake"] == 0
    assert report.findings[-1].line == 501  # not hidden by what came before
    as_json = report.to_json()
    assert json.loads(json.dumps(as_json)) == as_json
    assert as_json["findings"][0] == {
        "checker": "empty_answer",
        "version": "1.0.0",
        "level": "standard",
        "severity": "warning",
        "line": 1,
        "text": "the answer is empty",
    }


def test_rows_nearly_in_an_evaluation_set_are_told_and_those_in_it_are_not(home: Home) -> None:
    write_rows(home.evaluation / "own.jsonl", [chat("How many eggs are 2 + 2 eggs?", "4")] * 2)
    rows = [
        row("How many eggs are 2 + 2 eggs?", "4", line=1),
        row("how many  EGGS are 2 + 2 eggs", "4", line=2),
        row("How many eggs are 2 - 2 eggs?", "0", line=3),
        row("How many eggs are 2 + 2 eggs?", "4", line=4, system="Think."),
    ]
    told = run_checks(rows, "standard", held_out(home)).findings
    text = "asks nearly what line 1 of the evaluation set own asks"
    assert [(one.line, one.checker, one.text) for one in told] == [
        (2, "near_held_out", text),
        (4, "near_held_out", text),
    ]


def test_real_rows_raise_no_false_alarm() -> None:
    assert found(*(one for one in read_rows(GSM8K) if isinstance(one, Row))) == []


def test_generated_rows_raise_no_false_alarm(tmp_path: Path) -> None:
    for skill, level in (("syllo", 1), ("syllo", 6), ("binary", 3), ("binary", 12)):
        path = write_rows(tmp_path / "rows.jsonl", list(generate(skill, level, 200, 1, False)))
        assert found(*(one for one in read_rows(path) if isinstance(one, Row))) == []


def test_checking_keeps_a_few_bytes_of_a_row() -> None:
    def rows(count: int) -> Iterator[Row]:
        for n in range(count):
            # With an empty answer each: what is found is kept only so far.
            yield row(f"question {n} " + "word " * (20 + n % 9), "", line=n + 1)

    def peak(count: int) -> int:
        tracemalloc.start()
        run_checks(rows(count), "deep")
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(100)
    assert (peak(4000) - peak(1000)) / 3000 < 200  # arrays, and their copies while sorting
