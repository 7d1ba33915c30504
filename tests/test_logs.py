"""Logs are bounded: by age, by size, within a day and all together."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator

import pytest

from queue_store.home import Home
from trainctl import logs


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers, root.level = before, level
    logging.captureWarnings(False)


def test_old_logs_go_and_those_being_written_stay(home: Home) -> None:
    old = time.time() - 31 * 86400
    for name in ("engine.log", "engine.log.2026-01-01", "trainctl.log", "other.txt"):
        (home.logs / name).write_text("x")
        os.utime(home.logs / name, (old, old))
    (home.logs / "engine.log.2026-11-25").write_text("x")
    assert sorted(logs.trim(home)) == ["engine.log.2026-01-01", "other.txt"]
    assert sorted(p.name for p in home.logs.iterdir()) == [
        *("engine.log", "engine.log.2026-11-25", "trainctl.log")
    ]


def test_the_oldest_go_until_all_fit(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(logs, "TOTAL_BYTES", 250)
    for n in range(5):
        path = home.logs / f"engine.log.2026-11-0{n}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (0, time.time() - 1000 + n))
    assert logs.trim(home) == [f"engine.log.2026-11-0{n}" for n in range(3)]


def test_a_day_that_says_too_much_is_split_and_nothing_is_overwritten(
    home: Home, monkeypatch
) -> None:
    monkeypatch.setattr(logs, "DAY_BYTES", 2000)
    logs.log_to_file(home)
    for n in range(100):
        logging.getLogger("test").info("line %03d %s", n, "x" * 60)
    parts = list(home.logs.glob("engine.log*"))
    assert len(parts) > 3
    text = "".join(p.read_text() for p in parts)
    assert all(f"line {n:03} " in text for n in range(100))
    assert max(p.stat().st_size for p in parts) < 2400
    assert stat.S_IMODE(home.log.stat().st_mode) == 0o600


def test_the_log_of_defects_makes_way_when_it_is_large(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(logs, "DEFECTS_BYTES", 10)
    path = home.logs / "trainctl.log"
    for n in range(6):
        logs.rotate_defects(path)
        path.write_text(f"defect {n} of many")
    found = {p.name: p.read_text() for p in home.logs.iterdir()}
    assert found == {
        "trainctl.log": "defect 5 of many",
        "trainctl.log.1": "defect 4 of many",
        "trainctl.log.2": "defect 3 of many",
        "trainctl.log.3": "defect 2 of many",
    }


def test_no_control_character_of_a_message_reaches_the_log(home: Home) -> None:
    logs.log_to_file(home)
    try:
        raise ValueError("a name with \x1b]52;c;AAAA\x07 and \x9b31m")
    except ValueError:
        logging.getLogger("trainctl.test").exception("read \x1b[2J of\ttwo\nlines")
    written = home.log.read_text(encoding="utf-8")
    assert "[2J of\ttwo\nlines" in written and "Traceback" in written
    assert not {"\x1b", "\x07", "\x9b"} & set(written)
