"""Bytes to JSON values: what is no JSON lines, or would be read otherwise than meant, is named."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_store import lines
from queue_store.rows import BadRow, Row, quick_check, read_rows

GOOD = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}'


def found(tmp_path: Path, data: bytes) -> list[Row | BadRow]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    return list(read_rows(path))


def reasons(tmp_path: Path, data: bytes) -> list[tuple[int, str]]:
    return [(bad.line, bad.reason) for bad in found(tmp_path, data) if isinstance(bad, BadRow)]


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.jsonl", data)
    return out.getvalue()


ROWS = (GOOD + b"\n") * 3000


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (gzip.compress(ROWS), "gzip-compressed; unpack the file first"),
        (bz2.compress(ROWS), "bzip2-compressed; unpack the file first"),
        (lzma.compress(ROWS), "xz-compressed; unpack the file first"),
        (b"\x28\xb5\x2f\xfd\x04\x00\n\n\n", "zstd-compressed; unpack the file first"),
        (zipped(ROWS), "a zip archive; unpack the file first"),
        (b"PAR1\x15\x04\n\n", "a Parquet file; export it as JSON lines"),
        (ROWS.decode().encode("utf-16"), "UTF-16 text; save the file as UTF-8"),
        (ROWS.decode().encode("utf-16-le"), "UTF-16 text; save the file as UTF-8"),
        (ROWS.decode().encode("utf-16-be"), "UTF-16 text; save the file as UTF-8"),
        (ROWS.decode().encode("utf-32"), "UTF-32 text; save the file as UTF-8"),
        (bytes(1000) + b"\n" + ROWS, "contains NUL bytes; not a text file, or one that was not"),
        (b"[\n" + GOOD + b",\n" + GOOD + b"\n]\n", "begins a JSON array; write one object a line"),
        (b"[" + GOOD + b",\n" + GOOD + b"]\n", "begins a JSON array; write one object a line"),
    ],
    ids=itertools.count(),  # the bytes hold times and are long: no names for tests
)
def test_a_file_of_another_kind_is_refused_once_and_digested_whole(
    tmp_path: Path, data: bytes, told: str
) -> None:
    bad = reasons(tmp_path, data)
    assert len(bad) == 1 and bad[0][0] == 1 and bad[0][1].startswith(told)
    check = quick_check(tmp_path / "rows.jsonl")
    assert check.accepted == 0 and check.digest == blake3(data).hexdigest()
    assert check.size == len(data)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"text":NaN}', "not JSON: NaN is no JSON value (column 9)"),
        (b'{"text":-Infinity}', "not JSON: -Infinity is no JSON value (column 10)"),
        (b'{"text":"a","x":[1,Infinity]}', "not JSON: Infinity is no JSON value (column 20)"),
        (b'{"text":"a","x":1e999}', "not JSON: a number too large for a double"),
        (b'{"text":"a\xed\xa0\x80"}', "not UTF-8: a lone surrogate at column 11"),
        (b'{"text":"a\\ud800"}', "not JSON: a lone surrogate, \\ud800, near column"),
        (b'{"text":"\\udc00a"}', "not JSON: a lone surrogate, \\udc00, near column"),
        (b'{"text":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deeply"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
        (b"\xef\xbb\xbf" + GOOD, "a byte order mark in the middle of the file; were two files"),
        (b'{"text":"a","text":"b"}', "key 'text' occurs twice in one object"),
        (b'{"text":"a:","x":{"k":1,"l" : 2,"k"\t:3}}', "key 'k' occurs twice in one object"),
        (b'{"text":"\\":","a\\\\":1,"a\\\\":2}', "key 'a\\\\' occurs twice in one object"),
        (GOOD.replace(b'"a"', b'"a","content":"b"'), "key 'content' occurs twice in one object"),
        (GOOD.replace(b'"a"', b'"a","role":"user"'), "key 'role' occurs twice in one object"),
        (b'{"messages":[],' + GOOD[1:], "key 'messages' occurs twice in one object"),
        (b'{"text":"a\\u003A","text":"b\\u003a"}', "key 'text' occurs twice in one object"),
    ],
)
def test_what_a_parser_would_take_otherwise_is_named(
    tmp_path: Path, line: bytes, told: str
) -> None:
    bad = reasons(tmp_path, GOOD + b"\n" + line + b"\r\n" + GOOD)
    assert len(bad) == 1 and bad[0][0] == 2
    assert bad[0][1].startswith(told) and len(bad[0][1]) < 200


def test_a_duplicate_below_a_depth_that_python_cannot_read_is_not_passed(tmp_path: Path) -> None:
    deep = b"[" * 1015 + b"]" * 1015
    bad = reasons(tmp_path, GOOD + b"\n" + b'{"text":"a","x":' + deep + b',"x":1}')
    assert bad == [(2, "nested too deeply")]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=6) | st.just('":\\":'),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, (",", ":"), (" , ", " : ")]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_value_without_a_duplicate_is_looked_at_twice(
    value: Any, separators: tuple[str, str] | None, ascii_only: bool
) -> None:
    """Else reading is slow; and none with one is passed, whatever stands around it."""
    text = json.dumps({"v": value}, separators=separators, ensure_ascii=ascii_only)
    try:
        line = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate, which no file of UTF-8 has
    assert not lines._may_hide_a_key(line, {"v": value})
    between = (separators or (", ", ": "))[1]
    twice = f'{{"v"{between}0,{text[1:]}'.encode()
    assert lines._may_hide_a_key(twice, json.loads(twice))
    assert lines._hidden_key(twice) == "key 'v' occurs twice in one object"


def test_a_line_of_millions_of_values_is_refused_before_they_are_made(tmp_path: Path) -> None:
    many = b'{"text":"a","x":[' + b"{}," * 3_000_000 + b"{}]}"
    commas = b'{"text":"' + b"1,2," * 1_000_000 + b'"}'
    assert reasons(tmp_path, GOOD + b"\n" + many + b"\n" + commas) == [
        (2, "more than 1,000,000 values in one line")
    ]


def test_crlf_after_a_byte_order_mark_is_fine_and_carriage_returns_alone_are_not(
    tmp_path: Path,
) -> None:
    assert not reasons(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r\n" + GOOD + b"\r\n")
    assert reasons(tmp_path, GOOD + b"\r" + GOOD)[0][1].startswith("not JSON: unexpected content")


PEAK = """
import re, sys
from pathlib import Path
from queue_store.rows import quick_check, read_rows
path = Path(sys.argv[1])
check = quick_check(path)
rows = sum(1 for _ in read_rows(path))
# Not ru_maxrss, which a process inherits from the one that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(check.lines, rows, int(peak[1]) // 1024)
"""


def peak(path: Path) -> tuple[int, int]:
    """(lines, MiB of memory at the most) of a process that reads the file twice."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
    )
    checked, read, mebibytes = map(int, done.stdout.split())
    assert checked == read
    return checked, mebibytes


def long_file(path: Path, megabytes: int) -> int:
    """Real-looking rows, every kind of bad line, and lines of up to 16 MB; the number of lines."""
    row = GOOD.replace(b'"q"', b'"' + b"words and more words " * 40 + b'"')
    bad = (b"{]", b'{"text":"a","text":"b"}', b'{"text":"\\ud800"}', b"x" * (17 << 20))
    block = (row + b"\n") * 1200  # about 1 MB
    with path.open("wb") as out:
        for number in range(megabytes):
            out.write(block)
            if number % 40 == 5:
                out.write(b"\n".join(bad) + b"\n")
                out.write(b'{"text":"' + b"long " * (3 << 20) + b'"}\n')
        blocks = len(range(5, megabytes, 40))
    return megabytes * 1200 + blocks * (len(bad) + 1)


def test_a_long_file_is_read_in_little_memory(tmp_path: Path) -> None:
    count = long_file(tmp_path / "rows.jsonl", 8)
    read, mebibytes = peak(tmp_path / "rows.jsonl")
    assert read == count and mebibytes < 200, mebibytes


@pytest.mark.slow
def test_300_megabytes_and_a_hole_of_2_gigabytes_are_read_in_under_200(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    count = long_file(path, 300)
    with path.open("r+b") as out:
        out.seek(2 << 30, 1)
        out.seek((2 << 30) + path.stat().st_size)
        out.write(b"\n" + GOOD)
    read, mebibytes = peak(path)
    assert read == count + 2 and mebibytes < 200, mebibytes
