"""Rows of the evaluation sets never train: seen at intake, with a digest that costs little."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from queue_store import intake, journal
from queue_store.database import open_state
from queue_store.heldout import bare, held_out, near_digest
from queue_store.home import Home
from queue_store.items import Item, ItemState
from queue_store.rows import (
    Message,
    Row,
    asks_one_of,
    prompt_digest,
    prompt_digests,
    quick_check,
    read_rows,
)
from tests.prepare_model import GSM8K, chat, write_rows


def added(home: Home, rows: list[Any]) -> tuple[Item, dict[str, Any]]:
    """The item that a file with these rows becomes, and the event that says so."""
    path = write_rows(home.root / "new.jsonl", rows)
    with open_state(home) as state:
        item = intake.add_file(state, path)
        event = journal.latest(state, 1)[0]
        return item, {"text": event.text, "data": event.data}


def test_a_file_of_nothing_but_held_out_rows_is_rejected_at_intake(home: Home) -> None:
    write_rows(home.evaluation / "own.jsonl", [chat("2+2?", "4"), chat("3+3?", "6", system="s")])
    rows = [
        chat(" 2+2? ", "four"),
        {"prompt": "2+2?", "response": "4"},
        chat("3+3?", "", system="s"),
    ]
    item, event = added(home, rows)
    assert item.state is ItemState.REJECTED and item.reason == "no training data"
    assert item.error == "all 3 rows are in evaluation sets, which never train"
    assert item.error in event["text"]


def test_some_held_out_rows_are_counted_in_the_event(home: Home) -> None:
    write_rows(home.evaluation / "own.jsonl", [chat("2+2?", "4"), {"text": "once"}])
    item, event = added(home, [chat("2+2?", "4"), chat("2+3?", "5"), {"text": " once\n"}])
    assert item.state is ItemState.QUEUED
    assert "3 rows, 2 of them in an evaluation set" in event["text"]
    assert event["data"]["held_out"] == 2


def test_a_held_out_question_inside_a_longer_conversation_does_not_train(home: Home) -> None:
    write_rows(home.evaluation / "own.jsonl", [chat("2+2?", "4")])
    later = chat("2+2?", "4", "thanks", "you are welcome")
    other = chat("2+3?", "5", "2+2?", "4")  # asked after something else: another prompt
    item, event = added(home, [later, other, chat("5+5?", "10")])
    assert (item.state, event["data"]["held_out"]) == (ItemState.QUEUED, 1)
    rows = [row for row in read_rows(home.items / item.file) if isinstance(row, Row)]
    assert [asks_one_of(row, held_out(home).digests) for row in rows] == [True, False, False]
    assert list(prompt_digests(rows[0].messages or ()))[-1] == prompt_digest(rows[0])


def test_an_unreadable_set_rejects_no_file(home: Home) -> None:
    (home.evaluation / "own.jsonl").symlink_to(home.root / "nowhere")
    assert added(home, [chat("2+2?", "4")])[0].state is ItemState.QUEUED


def test_a_set_is_read_again_when_its_file_changes(home: Home) -> None:
    path = write_rows(home.evaluation / "own.jsonl", [chat("2+2?", "4")])
    first = held_out(home)
    assert held_out(home) is first
    write_rows(path, [chat("2+3?", "5")])
    os.utime(path, ns=(1, 1))
    assert held_out(home).digests != first.digests


def spread(value: Any) -> Any:
    """The same row with more white space in every text."""
    if isinstance(value, list):
        return [spread(one) for one in value]
    if isinstance(value, dict):
        return {key: spread(one) if key != "role" else one for key, one in value.items()}
    return "\n   " * 30 + value.replace(" ", " \t\n ") + " "


def test_the_cheap_look_misses_no_row_that_is_held_out(home: Home, tmp_path: Path) -> None:
    """Whatever the form of white space and accents, and whatever turns stand around."""
    real = [json.loads(line) for line in GSM8K.read_text("utf-8").splitlines()]
    odd = [
        chat("caf\u00e9 au lait, s'il vous pla\u00eet", "a"),
        chat("", "a"),
        chat("short", "a"),
        chat("a question\nwith a break", "first", "and then this?", "last"),
        chat("asked and not answered at all", "a", "more?"),
        {
            "messages": [
                *chat("call it now, please", "c")["messages"],
                {"role": "tool", "content": "3"},
                {"role": "assistant", "content": "4"},
            ]
        },
        {"prompt": "an older row's question", "response": "r", "system_prompt": "s"},
        {"text": "a text that is to be completed"},
    ]
    wide = [spread(row) for row in [*real, *odd]]
    wide[len(real)]["messages"][0]["content"] = "cafe\u0301  au lait, s'il vous plai\u0302t"
    odd.append(chat("how do you do it all?", "a"))
    wide.append(chat("how" + " " * 80 + "do you do it all?", "a"))
    write_rows(home.evaluation / "own.jsonl", [*real, *odd])
    other = [chat(f"another question, number {n}", "a") for n in range(50)]
    path = write_rows(tmp_path / "train.jsonl", [*wide, *other])
    check = quick_check(path, held_out=held_out(home).holds)
    digests = held_out(home).digests
    rows = [row for row in read_rows(path) if isinstance(row, Row)]
    assert check.held_out == sum(asks_one_of(row, digests) for row in rows)
    assert check.held_out == len(real) + len(odd)


def row(*turns: tuple[str, str]) -> Row:
    return Row(1, tuple(Message(*turn) for turn in turns), None)


ANSWER = ("assistant", "4")
BASE = (("user", "Janet\u2019s ducks lay 16 eggs; how many are well-known?"), ANSWER)


@pytest.mark.parametrize(
    "turns",
    [
        (("user", "janet's ducks LAY 16 eggs -- how many are well known"), ("assistant", "5")),
        (("system", "Think."), *BASE),
        (
            ("user", "  Janet\u2018s ducks lay 16 eggs, how many are \u201cwell-known\u201d?\n"),
            ANSWER,
        ),
    ],
)
def test_texts_that_differ_in_form_alone_are_near(turns: tuple[tuple[str, str], ...]) -> None:
    assert near_digest(row(*turns)) == near_digest(row(*BASE))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 + 3, please?", "What is 12 - 3, please?"),
        ("What is 12 * 3, please?", "What is 12 / 3, please?"),
        ("What is 4 minus -3, please?", "What is 4 minus 3, please?"),
        ("Is 16 < 3 in this case?", "Is 16 > 3 in this case?"),
        (
            "Compute: add(\u24ea\u2460, \u2460\u2460) at once",
            "Compute: add(\u2460\u24ea, \u2460\u2460) at once",
        ),
        ("It costs $3, how much is it?", "It costs \u20ac3, how much is it?"),
    ],
)
def test_texts_that_ask_something_else_are_not_near(one: str, other: str) -> None:
    assert near_digest(row(("user", one), ANSWER)) != near_digest(row(("user", other), ANSWER))


def test_a_short_question_is_compared_with_what_the_system_turn_asks() -> None:
    one = row(("system", "Spell cat."), ("user", "Go!"), ("assistant", "c a t"))
    other = row(("system", "Spell dog."), ("user", "Go!"), ("assistant", "d o g"))
    assert near_digest(one) != near_digest(other)
    assert near_digest(row(("user", "\u2026"), ("assistant", "a"))) is None


def test_bare_keeps_digits_letters_and_signs() -> None:
    assert (
        bare("  \u00c9t\u00e9:  3.5%, A-B -7 (x*y) \u2460!")
        == "\u00e9t\u00e9 3 5% a b -7 x*y \u2460"
    )
