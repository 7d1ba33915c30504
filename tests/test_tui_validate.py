"""`v`: a deep validation beside training, watched, closed, broken off, and its report."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from engine.inspecting import deepcheck
from queue_store.errors import TrainctlError
from queue_store.home import Home
from tests.test_tui_screen import trained
from tests.tui_pilot import NARROW, console_on, running, screen, until
from tui.dialogs.report import ValidationView, report_lines
from tui.safe import line_text


async def test_it_shows_how_far_it_is_can_be_closed_and_come_back_to() -> None:
    world = trained()
    world.hold = threading.Event()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "down", "v")
        await until(pilot, lambda: "40% of the rows made tokens of" in screen(pilot))
        assert "Validate train_binary_level2_500.jsonl, deep" in screen(pilot)
        await pilot.press("escape", "down", "v")
        await until(pilot, lambda: "train_binary_level2_500.jsonl is being val" in screen(pilot))
        await pilot.press("p")
        await until(pilot, lambda: world.state == "paused", "the console is free meanwhile")
        world.hold.set()
        await until(pilot, lambda: "jsonl: no problem (v shows it)" in screen(pilot))
        await pilot.press("up", "v")
        await until(pilot, lambda: "nothing keeps it from training" in screen(pilot))
    files = [arguments["file"] for command, arguments in world.log if command == "validate"]
    assert files == ["/home/store/items/train_binary_level2_500.jsonl"], "it ran once"


async def test_it_is_broken_off_and_can_be_started_anew() -> None:
    world = trained()
    world.hold = threading.Event()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "v")
        await until(pilot, lambda: "40% of the rows" in screen(pilot))
        await pilot.press("c")
        await until(pilot, lambda: "the validation is broken off" in screen(pilot))
        assert not isinstance(app.screen, ValidationView)
        world.hold.set()
        await pilot.press("v")
        await until(pilot, lambda: "nothing keeps it from training" in screen(pilot))


async def test_the_report_scrolls_at_80x24_and_says_what_is_wrong_first() -> None:
    world = trained()
    findings = [{"line": n, "checker": "repeats", "text": f"as line {n - 1}"} for n in range(60)]
    world.report |= {
        "problems": ["2 rows are wrong, first line 3: no answer"],
        "suggestions": ["mend [b]line 3[/b]"],
        "rejected": [{"line": 3, "reason": "no answer"}],
        "rejected_count": 2,
        "checks": {"counts": {"repeats": 60}, "findings": findings},
    }
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("1", "v")
        await until(pilot, lambda: "FAILED" in screen(pilot))
        assert "2 rows are wrong, first line 3: no answer" in screen(pilot)
        assert "mend [b]line 3[/b]" in screen(pilot)
        assert "repeats: as line 58" not in screen(pilot)
        await pilot.press("G")
        await until(pilot, lambda: "repeats: as line 58" in screen(pilot))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    home.config.write_text('[model]\nbase = "builtin:tiny"\n')
    return home


def write(home: Home, rows: list[object]) -> Path:
    path = home.inbox / "new.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_real_child_reports_what_the_command_does(home: Home) -> None:
    turns = [
        {"role": "user", "content": "say a"},
        {"role": "assistant", "content": "a"},
    ]
    file = write(home, [{"messages": turns}] * 3 + [{"nothing": 1}])
    told: list[tuple[int, int]] = []
    report = deepcheck.check(home, file, threading.Event(), lambda *at: told.append(at))
    assert (report["level"], report["lines"], report["accepted"]) == ("deep", 4, 3)
    assert report["problems"] and report["rejected"][0]["line"] == 4
    text = "\n".join(line_text(line) for line in report_lines(report, 76))
    assert "rows by their length in tokens" in text and "line 4" in text and "None" not in text
    assert "validates" not in text, "it would train whole"
    parted = report | {"validation": {"rows": 105}}
    text = "\n".join(line_text(line) for line in report_lines(parted, 76))
    assert "validates" in text and "105 rows" in text
    assert file.exists() and not (home.items.is_dir() and any(home.items.iterdir()))


def test_the_real_child_says_why_it_cannot_and_ends_when_it_is_told_to(home: Home) -> None:
    missing = home.inbox / "none.jsonl"
    with pytest.raises(TrainctlError, match=r"did not finish.*none.jsonl"):
        deepcheck.check(home, missing, threading.Event(), lambda *at: None)
    stop = threading.Event()
    stop.set()
    with pytest.raises(TrainctlError, match="broken off"):
        deepcheck.check(home, write(home, [{}]), stop, lambda *at: None)
