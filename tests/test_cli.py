"""The command line: words, exit codes, one-line errors, and text that cannot hurt a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from queue_store.safe import cell_width, safe, safe_line
from tests.conftest import ROOT
from trainctl import output
from trainctl.__main__ import main

VERBS = (
    *("demo", "init", "config", "doctor", "data", "sets", "status", "pause", "resume", "skip"),
    *("stop", "drain", "add", "queue", "show", "priority", "move", "retry", "remove", "validate"),
    *("checkpoints", "versions", "snapshot", "verify", "restore", "rollback", "pin", "history"),
    *("samples", "log", "lineage", "import", "compare", "generate"),
)


def test_help_lists_every_verb(trainctl) -> None:
    done = trainctl("--help")
    assert done.code == 0
    listed = {line.split()[0] for line in done.out.splitlines() if line.startswith("    ")}
    assert set(VERBS) <= listed


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_function(verb: str, capsys) -> None:
    import importlib

    from trainctl.parser import parse

    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: trainctl {verb}" in out and "--json" in out
    words = {
        "config": ["config", "show"],
        "data": ["data", "make", "s", "--level", "1", "--count", "1", "-o", "f"],
    }
    needed = {
        **{key: [key, "1"] for key in ("show", "retry", "remove")},
        "priority": ["priority", "1", "high"],
        "generate": ["generate", "--prompt", "x"],
        "move": ["move", "1", "--first"],
        **{key: [key, "x"] for key in ("add", "validate", "restore", "pin", "import")},
        "compare": ["compare", "a", "b"],
    }
    module, _, function = parse(words.get(verb) or needed.get(verb) or [verb]).run.partition(":")
    assert callable(getattr(importlib.import_module(f"trainctl.{module}"), function))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sttus"], "did you mean status?"),
        (["queue", "--state", "dune"], "did you mean done?"),
        (["show"], "ID"),
        (["show", "x"], "'x' is not a whole number"),
        (["show", "0"], "0 is too small: at least 1"),
        (["show", "-5"], "-5 is too small: at least 1"),
        (["log", "-n", "-5"], "-5 is too small: at least 1"),
        (["samples", "--step", "-1"], "-1 is too small: at least 0"),
        (["data", "make", "syllo", "--level", "1", "--count", "-3"], "-3 is too small: at least 1"),
        (["show", "99999999999999999999"], "too large: at most 15 digits"),
        (["move", "3"], "--first --before"),
        (["move", "3", "--first", "--before", "4"], "not allowed with"),
        (["priority", "3", "urgent"], "one of high, normal, low"),
        (["add"], "FILE"),
        (["status", "extra"], "extra"),
        (["--detach"], "--daemon"),
        (["--daemon", "status"], "takes no verb"),
        (["config"], "trainctl config --help"),
        (["validate", "x", "--level", "deepest"], "level"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(words: list[str], says: str, capsys) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("trainctl: ") and err.count("\n") == 1 and says in err, err


def test_a_command_that_needs_an_engine_exits_3_without_one(home, trainctl) -> None:
    for verb in ("pause", "resume", "skip", "stop", "drain"):
        done = trainctl(verb, home=home)
        assert done.code == 3 and "no engine is running" in done.err
        assert done.err.count("\n") == 1 and "trainctl --daemon" in done.err


def test_status_without_an_engine_is_stopped_and_exits_0(home, trainctl) -> None:
    done = trainctl("status", "--json", home=home)
    status = json.loads(done.out)
    assert done.code == 0 and status["state"] == "stopped" and status["engine"] is None
    for key in (
        *("branch", "global_step", "loss", "val_loss", "learning_rate", "tokens_per_second"),
        *("eta_seconds", "item", "queue", "head", "model", "gpus", "ram", "disk", "hint"),
    ):
        assert key in status
        assert status[key] is not None or key in ("item", "engine"), key
    assert "stopped" in trainctl("status", home=home).out


def test_status_loads_neither_torch_nor_textual_nor_numpy(home) -> None:
    code = (
        "import sys; from trainctl.__main__ import main\n"
        f"main(['status', '--home', {str(home.root)!r}])\n"
        "print(sorted({'torch', 'transformers', 'textual', 'numpy', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_defect_is_one_line_that_names_the_log(home, monkeypatch, capsys) -> None:
    import trainctl.commands.status as module

    def broken(*_: object) -> int:
        raise ZeroDivisionError("planted \x1b]52;c;aGk=\x07")

    monkeypatch.setattr(module, "status", broken)
    assert main(["status", "--home", str(home.root)]) == 1
    err = capsys.readouterr().err
    log = home.logs / "trainctl.log"
    assert err.count("\n") == 1 and "\x1b" not in err and str(log) in err
    assert "Traceback" in log.read_text() and log.stat().st_mode & 0o077 == 0


def test_a_defect_without_a_home_goes_to_the_state_folder(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    import trainctl.commands.home as module

    monkeypatch.setattr(module, "init", lambda *_: 1 / 0)
    assert main(["init", "x"]) == 1
    log = Path(os.environ["XDG_STATE_HOME"]) / "trainctl" / "trainctl.log"
    assert str(log) in capsys.readouterr().err
    assert "ZeroDivisionError" in log.read_text()


def test_an_interrupt_is_quiet_and_exits_130(home, monkeypatch, capsys) -> None:
    import trainctl.commands.status as module

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "status", interrupted)
    assert main(["status", "--home", str(home.root)]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_error(home) -> None:
    pipe = subprocess.Popen(
        [sys.executable, "-P", "-m", "trainctl", "config", "show", "--home", str(home.root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert pipe.stdout is not None and pipe.stderr is not None
    pipe.stdout.close()
    err = pipe.stderr.read()
    assert pipe.wait(120) == 141 and err == b""


@pytest.mark.parametrize(
    ("words", "closed", "code", "says"),
    [
        ("status", ">&-", 0, ""),
        ("status --json", "<&- >&-", 0, ""),
        ("show 7", ">&-", 1, "trainctl: no item 7 (trainctl queue lists them)\n"),
        ("show 7", "2>&-", 1, ""),
        ("stop", "<&- >&- 2>&-", 3, ""),
    ],
)
def test_a_stream_that_came_closed_is_no_defect(home, words, closed, code, says) -> None:
    line = f'exec "$0" -P -m trainctl {words} --home "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, str(home.root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", says)
    assert not (home.logs / "trainctl.log").exists()


def test_no_verb_without_a_terminal_prints_the_status_and_how_to_run_headless(
    home, trainctl
) -> None:
    done = trainctl(home=home)
    assert done.code == 2 and "stopped" in done.out
    assert done.err.count("\n") == 1 and "--daemon --detach" in done.err
    assert not home.lock.exists()


def test_a_dumb_terminal_is_no_terminal(home) -> None:
    main_end, child_end = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "trainctl", "--home", str(home.root)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
            stdin=child_end,
            stdout=child_end,
            stderr=child_end,
            check=False,
            timeout=240,
        )
        text = os.read(main_end, 65536).decode()
    finally:
        os.close(main_end)
        os.close(child_end)
    assert done.returncode == 2 and "TERM=" in text and "dumb" in text and "\x1b" not in text


HOSTILE = {
    "clipboard write": "\x1b]52;c;aGk=\x07",
    "C1 CSI": "a\x9b31mb",
    "hidden SGR": "\x1b[8mhidden\x1b[0m",
    "bidi override": "invoice\u202egnp.exe",
    "backspace": "safe\x08\x08\x08evil",
    "lone carriage return": "good\rbad",
    "DEL": "a\x7fb",
    "lone surrogate": "a\ud800b",
    "line separator": "a\u2028b",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_control_character_survives_safe(name: str) -> None:
    for clean in (safe(HOSTILE[name]), safe_line(HOSTILE[name])):
        allowed = "\t\n" if clean == safe(HOSTILE[name]) else ""
        assert all((ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0) or c in allowed for c in clean)
        assert "\u202e" not in clean
        clean.encode("utf-8")


def test_safe_keeps_what_is_readable() -> None:
    text = "Grüße [INST] ⓪① 日本語\n\tif x:\n"
    assert safe(text) is text or safe(text) == text
    assert safe("a\r\nb") == "a\nb"
    assert safe_line("a\r\nb\tc") == "a⏎b c"


def test_columns_line_up_with_wide_and_combining_characters() -> None:
    table = output.table(("name", ">n"), [("日本", 1), ("abcd", 22), ("e\u0301x", 3)])
    assert len({cell_width(line) for line in table.splitlines()}) == 1
    assert table.splitlines()[1] == "日本   1"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (output.size(0), "0 B"),
        (output.size(999), "999 B"),
        (output.size(1_234_567_890), "1.2 GB"),
        (output.size(61_000_000_000), "61.0 GB"),
        (output.size({"unknown": "no disk"}), "unknown: no disk"),
        (output.duration(5.04), "5.0 s"),
        (output.duration(59.6), "1 m"),
        (output.duration(7500), "2 h 05 m"),
        (output.duration(273600), "3 d 4 h"),
        (output.ago(100.0, now=280.0), "3 m ago"),
        (output.ago(100.0, now=99.0), "now"),
        (output.count(18402), "18 402"),
        (output.percent(1, 0), ""),
        (output.progress(12, 80), "12 of 80 (15 %)"),
        (output.progress(12, {"unknown": "not prepared yet"}), "12"),
        (output.counted(1, "line"), "1 line"),
    ],
)
def test_numbers_read_as_people_say_them(found: str, expected: str) -> None:
    assert found == expected
