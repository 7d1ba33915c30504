"""What a row of each spec must have: the field at fault is named, and nothing is lost unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from queue_store.rows import BadRow, Message, Row, quick_check, read_rows

Json = dict[str, Any]
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TURNS = {"messages": [USER, ANSWER]}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def reason(tmp_path: Path, row: Any, *, header: str = "") -> str:
    """Why the row is refused, "" where it is not."""
    head = [{"schema_id": header}] if header else []
    found = list(read_rows(write(tmp_path, *head, row)))
    assert len(found) == 1 and found[0].line == 1 + len(head)
    return found[0].reason if isinstance(found[0], BadRow) else ""


def one(tmp_path: Path, row: Any) -> Row:
    found = next(iter(read_rows(write(tmp_path, row))))
    assert isinstance(found, Row), found
    return found


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        ("completion_v1", TURNS, "has messages, but its spec is completion_v1, which trains on"),
        ("completion_v1", {"prompt": "q", "response": "a"}, "has no text, which completion_v1"),
        ("chat_sft_v1", {"text": "t"}, "has text, but its spec is chat_sft_v1, which needs mess"),
        ("syllo_v1", {"text": "t"}, "has text, but its spec is syllo_v1, which needs messages"),
        ("syllo_v1", {"prompt": "q", "response": "a"}, "has prompt and response, but its spec is"),
        ("chat_sft_v1", {"x": 1}, "has no messages, but its spec is chat_sft_v1"),
        ("chat_sft_v1", {**TURNS, "schema_id": "syllo_v1"}, "schema_id is syllo_v1, but the file"),
        ("chat_sft_v1", {**TURNS, "tags": ["a", 1]}, "tags is not a list of strings"),
        ("chat_sft_v1", {**TURNS, "difficulty": []}, "difficulty is a list, not a string or a nu"),
        ("syllo_v1", {**TURNS, "difficulty": 3}, "difficulty is a number, not a string"),
        ("syllo_v1", {**TURNS, "category": ["x"]}, "category is a list, not a string"),
        ("syllo_v1", {**TURNS, "variant": {}}, "variant is an object, not a string"),
    ],
)
def test_a_headers_spec_binds_each_row(tmp_path: Path, header: str, row: Json, told: str) -> None:
    assert reason(tmp_path, row, header=header).startswith(told)
    # The same holds where the row itself declares it.
    if "schema_id" not in row and "x" not in row:
        assert reason(tmp_path, {**row, "schema_id": header}).startswith(told)


def test_rows_that_fit_their_spec_pass_and_name_it(tmp_path: Path) -> None:
    full = {**TURNS, "difficulty": "easy", "category": "animals", "variant": "solutions_only"}
    for header, row in (
        ("syllo_v1", full),
        ("syllo_v1", {**TURNS, "difficulty": None}),
        ("chat_sft_v1", {**TURNS, "tags": ["a"], "difficulty": 3, "system_prompt": "s"}),
        ("completion_v1", {"text": "t", "metadata": {"skill": "x"}}),
    ):
        assert reason(tmp_path, row, header=header) == ""
        assert quick_check(write(tmp_path, {"schema_id": header}, row)).spec == header
        assert quick_check(write(tmp_path, {**row, "schema_id": header})).spec == header


def test_a_first_row_with_schema_id_and_content_is_a_row(tmp_path: Path) -> None:
    path = write(tmp_path, {"schema_id": "completion_v1", "text": "t"}, TURNS)
    assert quick_check(path).accepted == 2 and quick_check(path).spec == "mixed"


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([USER, {"role": "assistant"}], "messages[1] has no content"),
        ([USER, {**ANSWER, "tool_calls": CALL}], "messages[1].tool_calls is an object, not a list"),
        ([USER, {**ANSWER, "tool_calls": ["x"]}], "messages[1].tool_calls[0] is a string"),
        ([USER, {**ANSWER, "tool_calls": [{}]}], "messages[1].tool_calls[0] has no name"),
        (
            [USER, {**ANSWER, "tool_calls": [{"name": "f", "arguments": 3}]}],
            "messages[1].tool_calls[0].arguments is a number",
        ),
        ([{**USER, "tool_calls": [CALL]}, ANSWER], "messages[0].tool_calls stands in a turn of us"),
        ([USER, {"role": "tool", "content": None}, ANSWER], "messages[1].content is null"),
        ([USER, {"role": "tool", "content": "3", "name": 3}, ANSWER], "messages[1].name is a num"),
        ([USER, {**ANSWER, "weight": 0}], "messages[1].weight is not read: turns have no weights"),
        ([USER, {**ANSWER, "reasoning_content": "r"}], "messages[1].reasoning_content is not read"),
        ([USER, {**ANSWER, "function_call": {"name": "f"}}], "messages[1].function_call is not"),
        ([USER, {"role": "function", "content": "x"}, ANSWER], "messages[1].role is 'function'"),
    ],
)
def test_what_is_wrong_with_a_turn_is_named(tmp_path: Path, turns: list[Json], told: str) -> None:
    assert reason(tmp_path, {"messages": turns}).startswith(told)


def test_tool_turns_are_read_with_their_calls_tools_and_names(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "assistant", "tool_calls": [{"name": "sub", "arguments": {"a": 1}}]},
        {"role": "tool", "name": "sub", "content": "4"},
        {**ANSWER, "tool_calls": [], "weight": 1},
    ]
    row = one(tmp_path, {"messages": turns, "tools": tools})
    assert row.tools == tuple(tools) and row.messages == (
        Message("user", "q"),
        Message("assistant", "", (CALL,)),
        Message("tool", "3", (), "add"),
        Message("assistant", "", ({"name": "sub", "arguments": {"a": 1}},)),
        Message("tool", "4", (), "sub"),
        Message("assistant", "a"),
    )


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ({"tools": "[]"}, "tools is a string, not a list"),
        ({"tools": ["f"]}, "tools[0] is a string, not an object"),
        ({"tools": [{"name": "f\x00"}]}, "tools contains a NUL character"),
        (
            {"tools": [{"name": "f", "n": 10**30}]},
            "tools has a number of which only 1e+30 is kept; write it as a string",
        ),
        ({"metadata": [1]}, "metadata is a list, not an object"),
        ({"system_prompt": 3}, "system_prompt is a number, not a string"),
        ({"system_prompt": "\x00"}, "system_prompt contains a NUL character"),
    ],
)
def test_what_stands_beside_the_turns_is_checked(tmp_path: Path, beside: Json, told: str) -> None:
    assert reason(tmp_path, {**TURNS, **beside}) == told


def test_an_escaped_backslash_before_u0000_is_no_nul(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "what is \\u0000?"}, ANSWER]}
    assert one(tmp_path, row).messages is not None


def test_empty_contents_and_turns_of_one_role_in_a_row_are_for_the_checks(tmp_path: Path) -> None:
    """What a template makes of them is certain, and whether they are meant is not ours to say."""
    turns = [USER, {"role": "assistant", "content": ""}, ANSWER, USER]
    assert one(tmp_path, {"messages": turns}).messages is not None


def test_a_legacy_binary_row_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    row = {
        "id": "bin-0001",
        "skill": "binary",
        "scenario": "add-verify",
        "user_prompt": "u",
        "assistant_response": "a",
        "rubric": "r",
        "tags": ["add", "easy"],
    }
    read = one(tmp_path, row)
    assert read.messages == (Message("user", "u"), Message("assistant", "a"))
    assert read.metadata == {
        **{key: row[key] for key in ("id", "skill", "scenario", "rubric", "tags")}
    }


def test_the_input_of_an_instruction_is_asked_with_it(tmp_path: Path) -> None:
    row = one(tmp_path, {"instruction": "Sum up.", "input": "A text.", "output": "T."})
    assert row.messages is not None and row.messages[0].content == "Sum up.\n\nA text."
    row = one(tmp_path, {"instruction": "Sing.", "input": "", "output": "La."})
    assert row.messages is not None and row.messages[0].content == "Sing."
    told = reason(tmp_path, {"instruction": "Sum up.", "input": ["x"], "output": "T."})
    assert told == "input is a list, not a string"


def sparring(**changes: Any) -> Json:
    row = {
        **TURNS,
        "type": "sparring_correction",
        "skill": "binary",
        "level": 3,
        "metadata": {"checkpoint_digest": "ab12"},
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not ...}


def test_sparring_rows_keep_the_checkpoint_that_erred(tmp_path: Path) -> None:
    read = one(tmp_path, sparring())
    assert read.metadata == {
        "checkpoint_digest": "ab12",
        "type": "sparring_correction",
        "skill": "binary",
        "level": 3,
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"skill": ...}, "a sparring row (sparring_correction) has no skill"),
        ({"level": ...}, "a sparring row (sparring_correction) has no level"),
        ({"level": "3"}, "level is a string, not a whole number"),
        ({"skill": 3}, "skill is a number, not a string"),
        ({"metadata": {"checkpoint_digest": 7}}, "metadata.checkpoint_digest is a number, not a"),
    ],
)
def test_a_sparring_row_names_skill_and_level(tmp_path: Path, changes: Json, told: str) -> None:
    assert reason(tmp_path, sparring(**changes)).startswith(told)
    # Other rows may use these columns as they like.
    assert reason(tmp_path, {**TURNS, "type": "algebra", "level": "Level 5"}) == ""
