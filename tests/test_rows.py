"""Row specs: what trains is read as it stands, and every other line says why it does not."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from blake3 import blake3

from queue_store.errors import DataError
from queue_store.rows import (
    MAX_LINE,
    BadRow,
    Message,
    Row,
    badge,
    prompt_digest,
    quick_check,
    read_rows,
)
from tests.prepare_model import GSM8K

GOOD = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}'


def file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    return path


def only(tmp_path: Path, data: bytes) -> Row | BadRow:
    rows = list(read_rows(file(tmp_path, data)))
    assert len(rows) == 1
    return rows[0]


def test_a_messages_row_is_read_with_its_metadata(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a\u2460 \U0001f600"},
        ],
        "metadata": {"skill": "demo"},
        "level": 3,
        "other": [1],
    }
    read = only(tmp_path, json.dumps(row).encode())
    assert isinstance(read, Row)
    assert read.messages == (
        Message("system", "s"),
        Message("user", "u"),
        Message("assistant", "a\u2460 \U0001f600"),
    )
    assert read.metadata == {"skill": "demo", "level": 3} and read.text is None and read.line == 1


@pytest.mark.parametrize(
    ("user", "assistant"),
    [
        ("prompt", "response"),
        ("prompt", "completion"),
        ("instruction", "output"),
        ("user_prompt", "assistant_response"),
    ],
)
def test_pairs_of_older_files_become_messages(tmp_path: Path, user: str, assistant: str) -> None:
    row = only(tmp_path, json.dumps({"id": "bin-1", user: "q", assistant: "a"}).encode())
    assert isinstance(row, Row)
    assert row.messages == (Message("user", "q"), Message("assistant", "a"))


def test_text_rows_and_mixed_files_are_read_row_by_row(tmp_path: Path) -> None:
    path = file(tmp_path, GOOD + b'\n{"text":"once"}\n')
    rows = list(read_rows(path))
    assert [type(row) for row in rows] == [Row, Row]
    assert isinstance(rows[1], Row) and rows[1].text == "once" and rows[1].messages is None
    assert quick_check(path).spec == "mixed"
    assert quick_check(file(tmp_path, b'{"text":"once"}')).spec == "completion_v1"
    assert quick_check(file(tmp_path, GOOD)).spec == "chat_sft_v1"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{]", "not JSON: "),
        (b'{"messages": [', "not JSON: unexpected end of data"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "has no messages, no prompt and response, and no text"),
        (b'{"messages":{}}', "messages is not a list"),
        (b'{"messages":[]}', "messages is empty"),
        (b'{"messages":[3]}', "messages[0] is not an object"),
        (b'{"messages":[{"content":"a"}]}', "messages[0] has no role"),
        (b'{"messages":[{"role":"User","content":"a"}]}', "messages[0].role is 'User'; known:"),
        (b'{"messages":[{"role":[],"content":"a"}]}', "messages[0].role is 'list'"),
        (b'{"messages":[{"role":"user"}]}', "messages[0] has no content"),
        (
            b'{"messages":[{"role":"user","content":null}]}',
            "messages[0].content is null, not a string",
        ),
        (
            b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":["a"]}]}',
            "messages[1].content is a list, not a string",
        ),
        (
            b'{"messages":[{"role":"user","content":7}]}',
            "messages[0].content is a number, not a string",
        ),
        (b'{"messages":[{"role":"user","content":"q"}]}', "messages has no assistant turn"),
        (b'{"messages":[{"role":"assistant","content":"q"}]}', "messages has no user turn"),
        (
            b'{"messages":[{"role":"user","content":"q\\u0000"}]}',
            "messages[0].content contains a NUL character",
        ),
        (b'{"prompt":"q","response":{}}', "response is an object, not a string"),
        (b'{"prompt":"q"}', "prompt without response"),
        (b'{"text":5}', "text is a number, not a string"),
        (b'{"text":""}', "text is empty"),
        (b'{"text":"a\xff"}', "not UTF-8: byte 0xff at column 11"),
        (b'{"text":"a\x00b"}', "contains NUL bytes"),
        (b'{"text":"\\ud800"}', "not JSON: "),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text":"a","schema_id":"mystery_v1"}', "schema_id 'mystery_v1' is unknown"),
        ('{"text":"a"}'.encode("utf-16"), "UTF-16 text"),
        (b"\x1f\x8b\x08\x00\x00", "gzip-compressed"),
        (b"\x7fELF\x02\x01\x00\x00", "contains NUL bytes"),
    ],
)
def test_a_bad_line_says_why_and_where(tmp_path: Path, line: bytes, reason: str) -> None:
    rows = list(read_rows(file(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD)))
    assert [row.line for row in rows] == [1, 2, 3]
    assert isinstance(rows[0], Row) and isinstance(rows[2], Row)
    bad = rows[1]
    assert isinstance(bad, BadRow) and bad.reason.startswith(reason)
    assert "\n" not in bad.reason and len(bad.reason) < 200


def test_byte_order_mark_crlf_blank_lines_and_a_missing_last_line_feed_are_fine(
    tmp_path: Path,
) -> None:
    path = file(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n \n" + GOOD)
    rows = list(read_rows(path))
    assert [type(row) for row in rows] == [Row, Row] and [row.line for row in rows] == [1, 4]
    check = quick_check(path)
    assert (check.lines, check.accepted, check.rejected) == (2, 2, ())


def test_a_header_row_is_no_row_and_an_unknown_spec_is_refused(tmp_path: Path) -> None:
    check = quick_check(file(tmp_path, b'{"schema_id":"syllo_v1","note":1}\n' + GOOD))
    assert (check.spec, check.lines, check.accepted) == ("syllo_v1", 1, 1)
    data = b'{"schema_id":"other_v9"}\n' + (GOOD + b"\n") * 50_000
    check = quick_check(file(tmp_path, data))
    assert check.accepted == 0 and check.rejected[0].line == 1
    assert "other_v9" in check.rejected[0].reason and "chat_sft_v1" in check.rejected[0].reason
    assert check.digest == blake3(data).hexdigest() and check.size == len(data)


def test_a_header_alone_and_an_empty_file_have_nothing_to_accept(tmp_path: Path) -> None:
    for data, reason in ((b"", "the file is empty"), (b"\n\n", "the file has no rows")):
        check = quick_check(file(tmp_path, data))
        assert check.accepted == 0 and check.rejected == (BadRow(1, reason),)
    check = quick_check(file(tmp_path, b'{"schema_id":"chat_sft_v1"}\n'))
    assert check.accepted == 0 and check.rejected[0].reason == "the file has no rows"


def test_a_huge_line_is_refused_without_being_held_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as out:
        out.write(GOOD + b"\n")
        for _ in range(6):
            out.write(b"x" * (MAX_LINE // 4))
        out.write(b"\n" + GOOD)
    tracemalloc.start()
    rows = list(read_rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(rows[1], BadRow) and rows[1].reason == "longer than 16 MiB"
    assert isinstance(rows[2], Row) and rows[2].line == 3
    assert peak < 1.5 * MAX_LINE


def test_a_line_of_just_the_limit_is_read(tmp_path: Path) -> None:
    frame = len(b'{"text":""}')
    path = file(tmp_path, b'{"text":"' + b"x" * (MAX_LINE - frame) + b'"}\n')
    assert isinstance(next(iter(read_rows(path))), Row)


def test_quick_check_counts_all_and_lists_the_first(tmp_path: Path) -> None:
    data = GOOD + b"\n" + b"{}\n" * 250
    check = quick_check(file(tmp_path, data), limit=100)
    assert (check.lines, check.accepted, check.rejected_count) == (251, 1, 250)
    assert [bad.line for bad in check.rejected] == list(range(2, 102))
    assert check.digest == blake3(data).hexdigest()


def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.jsonl"):
        with pytest.raises(DataError, match=str(path)):
            quick_check(path)


def test_equal_prompts_have_equal_digests_whatever_the_answer(tmp_path: Path) -> None:
    def digest(*turns: tuple[str, str]) -> str:
        return prompt_digest(Row(1, tuple(Message(*turn) for turn in turns), None, {}))

    base = digest(("system", "s"), ("user", "What is\n 2+2?"), ("assistant", "4"))
    assert base == digest(("system", "s"), ("user", " What  is 2+2? "), ("assistant", "five"))
    assert base != digest(("system", "t"), ("user", "What is 2+2?"), ("assistant", "4"))
    assert base != digest(("user", "s"), ("user", "What is 2+2?"), ("assistant", "4"))
    assert digest(("user", "caf\u00e9"), ("assistant", "")) == digest(
        ("user", "cafe\u0301"), ("assistant", "")
    )
    more = digest(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert more == digest(("user", "a"), ("assistant", "x"), ("user", "c"), ("assistant", "y"))
    assert more != digest(("user", "a"), ("assistant", "b"))


def test_badge_reads_the_name_convention() -> None:
    assert badge("train_syllo_hard_level3_500_20250102_030405.jsonl") == {
        "skill": "syllo_hard",
        "level": 3,
        "count": 500,
        "timestamp": "20250102_030405",
    }
    assert badge("rows.jsonl") is None and badge("train_a_level_5_x.jsonl") is None


def test_real_rows_pass() -> None:
    check = quick_check(GSM8K)
    assert (check.accepted, check.rejected_count, check.spec) == (100, 0, "chat_sft_v1")


def test_intake_stays_light() -> None:
    code = (
        "import sys, queue_store.rows; "
        "print([name for name in ('numpy', 'torch', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
