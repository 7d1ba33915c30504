"""The queue's verbs on a real store, with no engine: what they print, and that nothing is lost."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from pathlib import Path

import pytest

from queue_store import database, queue, transitions
from queue_store.inbox import Inbox
from queue_store.items import ItemState
from queue_store.lock import EngineLock
from tests.waiting import wait_until

GOOD = '{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}\n'
SHAPE = {
    *("id", "name", "state", "priority", "position", "lines", "rows", "epochs", "step", "steps"),
    *("cursor", "attempts", "error", "digest"),
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.jsonl").write_text(GOOD * 3)
    (folder / "b.jsonl").write_text(GOOD * 2)
    (folder / "c.jsonl").write_text(GOOD)
    return folder


def names(trainctl, home, *words: str) -> list[str]:
    done = trainctl("queue", "--json", *words, home=home)
    assert done.code == 0, done.err
    return [item["name"] for item in json.loads(done.out)]


def test_add_copies_the_file_and_prints_its_id(home, files, trainctl) -> None:
    done = trainctl("add", files / "a.jsonl", home=home)
    assert done.code == 0 and done.out == "1  a.jsonl  queued, 3 lines\n" and done.err == ""
    assert (files / "a.jsonl").read_text() == GOOD * 3
    stored = [path for path in home.items.iterdir()]
    assert [path.read_text() for path in stored] == [GOOD * 3]


def test_add_says_at_once_which_lines_are_bad(home, files, trainctl) -> None:
    (files / "d.jsonl").write_text(GOOD + "{}\n" + GOOD + "[]\n")
    done = trainctl("add", files / "d.jsonl", home=home)
    assert done.code == 0 and done.out.startswith(
        "1  d.jsonl  queued, 4 lines; line 2 is bad: has no"
    )
    assert "and 1 more bad line (data.bad_rows)" in done.out
    assert "2 bad (line 2: has no messages" in trainctl("log", home=home).out


def test_the_json_of_add_queue_and_show_is_one_shape(home, files, trainctl) -> None:
    added = json.loads(trainctl("add", files / "a.jsonl", "--json", home=home).out)
    listed = json.loads(trainctl("queue", "--json", home=home).out)
    shown = json.loads(trainctl("show", 1, "--json", home=home).out)
    for found in (added, listed, shown):
        assert len(found) == 1 and set(found[0]) >= SHAPE
        assert {key: found[0][key] for key in ("id", "name", "state", "lines")} == {
            "id": 1,
            "name": "a.jsonl",
            "state": "queued",
            "lines": 3,
        }
        assert "unknown" in found[0]["rows"]


def test_two_files_of_one_name_are_two_items(home, files, trainctl) -> None:
    other = files / "other"
    other.mkdir()
    (other / "a.jsonl").write_text(GOOD)
    assert trainctl("add", files / "a.jsonl", other / "a.jsonl", home=home).code == 0
    assert names(trainctl, home) == ["a.jsonl", "a.jsonl"]
    assert sorted(path.stat().st_size for path in home.items.iterdir()) == [
        len(GOOD),
        3 * len(GOOD),
    ]


def test_high_before_normal_before_low_and_first_in_first_out(home, files, trainctl) -> None:
    for name, priority in (("a", "low"), ("b", "normal"), ("c", "high"), ("a", "normal")):
        assert trainctl("add", files / f"{name}.jsonl", "--priority", priority, home=home).code == 0
    assert names(trainctl, home) == ["c.jsonl", "b.jsonl", "a.jsonl", "a.jsonl"]


def test_priority_and_move_reorder_by_hand(home, files, trainctl) -> None:
    trainctl("add", *sorted(files.glob("*.jsonl")), home=home)
    assert names(trainctl, home) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert trainctl("move", 3, "--first", home=home).code == 0
    assert names(trainctl, home) == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert trainctl("move", 2, "--before", 1, home=home).code == 0
    assert names(trainctl, home) == ["c.jsonl", "b.jsonl", "a.jsonl"]
    done = trainctl("priority", 1, "high", home=home)
    assert done.code == 0 and "number 1 of 3" in done.out
    assert names(trainctl, home) == ["a.jsonl", "c.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    "words",
    [
        *(("show", 7), ("priority", 7, "low"), ("move", 7, "--first"), ("retry", 7)),
        *(("history", "--item", 7), ("history", "--item", 7, "--json")),
    ],
)
def test_an_item_that_is_not_there_is_said(home, trainctl, words) -> None:
    done = trainctl(*words, home=home)
    assert done.code == 1 and "no item 7" in done.err and done.err.count("\n") == 1


def test_move_by_places_and_a_removal_taken_back(home, files, trainctl) -> None:
    trainctl("add", *sorted(files.glob("*.jsonl")), home=home)
    assert trainctl("move", 2, "--by", "-1", home=home).code == 0
    order = [item["id"] for item in json.loads(trainctl("queue", "--json", home=home).out)]
    assert order[:2] == [2, 1]
    refused = trainctl("move", 2, "--by", "-1", home=home)
    assert refused.code == 1 and "first already" in refused.err
    assert trainctl("move", 2, "--by", "0", home=home).code == 2
    done = trainctl("remove", 2, "--yes", home=home)
    assert "back with: trainctl unremove 2" in done.out
    assert "number 1 of" in trainctl("unremove", 2, home=home).out
    again = trainctl("unremove", 2, home=home)
    assert again.code == 1 and "not in the trash" in again.err


def test_remove_asks_and_without_a_terminal_is_refused(home, files, trainctl) -> None:
    trainctl("add", files / "a.jsonl", home=home)
    done = trainctl("remove", 1, home=home)
    assert done.code == 1 and "--yes" in done.err
    assert names(trainctl, home) == ["a.jsonl"]
    assert trainctl("remove", 1, "--yes", home=home).code == 0
    assert names(trainctl, home) == []
    assert [path.read_text() for path in home.trash.iterdir()] == [GOOD * 3]


def test_retry_takes_only_failed_and_skipped_items(home, files, trainctl) -> None:
    trainctl("add", files / "a.jsonl", home=home)
    done = trainctl("retry", 1, home=home)
    assert done.code == 1 and "queued" in done.err
    from queue_store import transitions

    with database.open_state(home) as state:
        transitions.skip(state, 1, "by a test")
    assert json.loads(trainctl("show", 1, "--json", home=home).out)[0]["state"] == "skipped"
    assert trainctl("retry", 1, home=home).code == 0
    assert json.loads(trainctl("show", 1, "--json", home=home).out)[0]["state"] == "queued"


def test_the_journal_tells_what_was_done(home, files, trainctl) -> None:
    trainctl("add", files / "a.jsonl", "--priority", "low", home=home)
    trainctl("priority", 1, "high", home=home)
    events = json.loads(trainctl("log", "--json", home=home).out)
    assert [event["kind"] for event in events] == ["item.queued", "item.priority"]
    assert "low -> high" in trainctl("log", home=home).out


def test_history_of_an_untrained_home_is_an_empty_list(home, trainctl) -> None:
    assert json.loads(trainctl("history", "--json", home=home).out) == []
    assert json.loads(trainctl("checkpoints", "--json", home=home).out) == []
    assert json.loads(trainctl("versions", "--json", home=home).out) == []


def test_an_unknown_series_names_the_known_ones(home, trainctl) -> None:
    done = trainctl("history", "--series", "lss", home=home)
    assert done.code == 2 and "loss" in done.err and done.err.count("\n") == 1


# -- files that are wrong ------------------------------------------------------------------------

BAD = {
    "empty": (b"", "empty"),
    "only blank lines": (b"\n\n  \n", "no rows"),
    "binary": (bytes(range(256)) * 4, "line 1"),
    "gzip": (gzip.compress(GOOD.encode()), "gzip"),
    "utf-16": (GOOD.encode("utf-16"), "UTF-16"),
    "not utf-8": (GOOD.encode().replace(b"2+2", b"\xff\xfe"), "not UTF-8"),
    "half-written": (GOOD.encode()[:40], "line 1: not JSON"),
    "a list": (b"[1, 2, 3]\n", "not a JSON object"),
    "csv": (b"question,answer\n2+2,4\n", "line 1: not JSON"),
    "no assistant": (b'{"messages":[{"role":"user","content":"hi"}]}\n', "no assistant turn"),
    "content is a number": (
        b'{"messages":[{"role":"user","content":4},{"role":"assistant","content":"x"}]}\n',
        "not a string",
    ),
    "unknown spec": (b'{"schema_id":"mystery_v9"}\n' + GOOD.encode(), "mystery_v9"),
    "a huge line": (b'{"text":"' + b"x" * (17 << 20) + b'"}\n', "longer than 16 MiB"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_train_is_rejected_with_line_and_reason_and_kept(
    home, tmp_path, trainctl, name
) -> None:
    content, reason = BAD[name]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    done = trainctl("add", path, home=home)
    assert done.code == 1 and reason in done.err and "item 1" in done.err, done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err
    assert path.read_bytes() == content
    assert [stored.read_bytes() for stored in home.items.iterdir()] == [content]
    assert json.loads(trainctl("show", 1, "--json", home=home).out)[0]["state"] == "rejected"
    validated = trainctl("validate", path, "--json")
    assert validated.code == 1
    assert reason in json.loads(validated.out)["rejected"][0]["reason"].join(["line 1: ", ""])


def test_one_bad_file_does_not_keep_the_others_out(home, files, trainctl) -> None:
    (files / "bad.jsonl").write_text("no json")
    done = trainctl(
        "add", files / "bad.jsonl", files / "none.jsonl", files / "a.jsonl", "--json", home=home
    )
    assert done.code == 1
    assert [item["state"] for item in json.loads(done.out)] == ["rejected", "queued"]
    assert "none.jsonl: no such file" in done.err and done.err.count("\n") == 2


def test_a_folder_a_device_and_a_missing_file_are_refused(home, tmp_path, trainctl) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, Path("/dev/null"), tmp_path / "pipe", tmp_path / "none"):
        done = trainctl("add", path, home=home)
        assert done.code == 1 and str(path) in done.err and done.err.count("\n") == 1
    assert names(trainctl, home) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_refused(home, files, trainctl) -> None:
    (files / "a.jsonl").chmod(0)
    done = trainctl("add", files / "a.jsonl", home=home)
    assert done.code == 1 and "readable" in done.err
    assert names(trainctl, home) == []


def test_a_hostile_name_is_shown_harmless(home, tmp_path, trainctl) -> None:
    path = tmp_path / "x\x1b]52;c;aGk=\x07\n\u202ey.jsonl"
    path.write_text(GOOD)
    (tmp_path / os.fsdecode(b"\xff\xfe.jsonl")).write_text(GOOD)
    done = trainctl("add", path, tmp_path / os.fsdecode(b"\xff\xfe.jsonl"), home=home)
    assert done.code == 0, done.err
    for shown in (done, trainctl("queue", home=home), trainctl("log", home=home)):
        assert shown.code == 0, shown.err
        assert "\x1b" not in shown.out and "\u202e" not in shown.out and "\x07" not in shown.out
    assert len(json.loads(trainctl("queue", "--json", home=home).out)) == 2


def test_the_inbox_keeps_every_byte_of_what_it_rejects(home) -> None:
    for name, (content, _) in BAD.items():
        (home.inbox / f"{name}.jsonl").write_bytes(content)
    (home.inbox / "high" / "good.jsonl").write_text(GOOD)
    with database.open_state(home) as state:
        # A clock that leaps a minute a look: a last line without a newline is taken after that.
        clock = itertools.count(step=61.0)
        inbox = Inbox(home, lambda: database.open_state(home), 0.0, lambda: next(clock))
        wait_until(
            lambda: inbox.scan() and len(queue.items(state)) > len(BAD), 20, what="all were taken"
        )
        found = {item.name: item for item in queue.items(state)}
    assert found["good.jsonl"].state is ItemState.QUEUED
    for name, (content, reason) in BAD.items():
        item = found[f"{name}.jsonl"]
        assert item.state is ItemState.REJECTED and reason in item.error, name
        assert (home.items / item.file).read_bytes() == content
    assert [path.name for path in home.inbox.iterdir() if path.is_file()] == []


def test_a_file_in_the_inbox_keeps_the_columns_of_the_list_narrow(home, files, trainctl) -> None:
    trainctl("add", files / "a.jsonl", home=home)
    (home.inbox / "notes.txt").write_text("no JSONL")
    Inbox(home, lambda: database.open_state(home), 0.0).scan()
    titles, queued, waiting = trainctl("queue", home=home).out.splitlines()
    assert titles.startswith("id  state") and queued.startswith(" 1  queued")
    assert waiting.startswith("    waiting") and "unknown" not in waiting


def test_what_is_added_a_second_time_is_said_and_queued(home, files, trainctl) -> None:
    (files / "same.jsonl").write_text((files / "a.jsonl").read_text())
    assert "same content" not in trainctl("add", files / "a.jsonl", home=home).out
    done = trainctl("add", files / "same.jsonl", files / "b.jsonl", home=home)
    told, other = done.out.splitlines()
    assert told == "2  same.jsonl  queued, 3 lines; item 1, a.jsonl (queued), has the same content"
    assert done.code == 0 and done.err == "" and "same content" not in other
    assert names(trainctl, home) == ["a.jsonl", "same.jsonl", "b.jsonl"]


def test_what_a_killed_engine_left_is_not_told_as_training(home, files, trainctl) -> None:
    trainctl("add", files / "a.jsonl", home=home)
    with database.open_state(home) as state:
        transitions.claim(state)
        transitions.training(state, 1, "a.jsonl trains")
    row = trainctl("queue", home=home).out.splitlines()[1]
    assert row.split()[1] == "stopped" and row.endswith(
        "no engine runs: it goes on when one starts"
    )
    shown = trainctl("show", 1, home=home).out
    assert "stopped" in shown and "it goes on when one starts" in shown
    assert json.loads(trainctl("queue", "--json", home=home).out)[0]["state"] == "training"
    with EngineLock.acquire(home, "daemon"):  # an engine that does not answer yet
        row = trainctl("queue", home=home).out.splitlines()[1]
    assert row.split()[1] == "training" and "no engine" not in row
