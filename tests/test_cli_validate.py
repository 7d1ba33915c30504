"""trainctl validate: its levels, its report, rows as tokens, and what reaches a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from queue_store.home import Home
from tests.conftest import ROOT
from tests.prepare_model import GSM8K, MARKED, chat, model_folder, write_rows

REPORT = {
    *("lines", "accepted", "rejected", "tokens", "over_limit", "masks", "suggestions"),
    *("level", "spec", "file_digest", "size_bytes", "problems"),
}
HOSTILE = "\x1b]52;c;SEFDS0VE\x07\x9b31m\x1b[2J\u202e\x85\r<|im_end|>⟦x⟧"


def configured(home: Home, **sections: dict[str, Any]) -> None:
    home.config.write_text(tomli_w.dumps(sections))


def report(trainctl: Any, *words: object, home: Home | None = None) -> tuple[int, dict[str, Any]]:
    done = trainctl("validate", *words, "--json", home=home)
    assert done.err == "", done.err
    return done.code, json.loads(done.out)


def everything(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


def test_in_a_home_the_level_is_standard_and_nothing_is_changed(home, trainctl) -> None:
    before = everything(home.root)
    code, found = report(trainctl, GSM8K, home=home)
    assert code == 0 and set(found) >= REPORT and found["level"] == "standard"
    assert {"max", "mean", "p50", "p95", "p99", "histogram"} <= set(found["tokens"])
    assert sum(found["tokens"]["histogram"]["counts"]) == found["lines"] == 100
    assert found["over_limit"]["max_length"] == 2048 and found["over_limit"]["count"] == 0
    assert 0.2 < found["masks"]["trained_share"] < 0.9 and found["packing"]["fill"] > 0.5
    assert found["held_out"] == {"count": 0, "share": 0.0, "lines": []}
    assert everything(home.root) == before, "validate leaves a home as it was"


def test_without_a_home_or_a_model_the_level_is_quick_and_says_so(home, trainctl) -> None:
    code, found = report(trainctl, GSM8K)
    assert code == 0 and found["level"] == "quick" and "no home here" in found["level_reason"]
    assert "unknown" in found["tokens"]
    configured(home, model={"base": "owner/not-fetched"})
    code, found = report(trainctl, GSM8K, home=home)
    assert code == 0 and found["level"] == "quick" and "owner/not-fetched" in found["level_reason"]
    done = trainctl("validate", GSM8K)
    assert "quick level only: no home here" in done.out and "--model FOLDER" in done.out
    for words in (["--level", "standard"], ["--tokens"]):
        done = trainctl("validate", GSM8K, *words)
        assert done.code == 1 and "--model FOLDER" in done.err and done.err.count("\n") == 1
    assert report(trainctl, GSM8K, "--level", "quick", home=home)[1]["level_reason"] == ""


def test_quick_loads_no_tokenizer() -> None:
    code = (
        "import sys; from trainctl.__main__ import main\n"
        f"assert main(['validate', {str(GSM8K)!r}, '--level', 'quick']) == 0\n"
        "assert not {'tokenizers', 'numpy', 'torch'} & set(sys.modules)\n"
        f"assert main(['validate', {str(GSM8K)!r}, '--model', 'builtin:tiny']) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def test_a_model_of_ones_own_needs_no_home(tmp_path, trainctl) -> None:
    folder = model_folder(tmp_path / "model", MARKED)
    code, found = report(trainctl, GSM8K, "--model", folder)
    assert code == 0 and found["level"] == "standard"
    assert found["masks"]["ways"] == {"generation markers": 100}
    assert found["model"]["folder"] == str(folder)
    done = trainctl("validate", GSM8K, "--model", tmp_path / "none")
    assert done.code == 1 and "none is not on this machine" in done.err


def test_the_homes_settings_and_held_out_rows_count(home, tmp_path, trainctl) -> None:
    rows = [chat(f"{i}?", "yes") for i in range(9)] + [chat("long?", "d " * 300)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    write_rows(home.evaluation / "set.jsonl", [chat("3?", "yes")])
    configured(home, training={"max_length": 200}, data={"system_prompt": "Be kind."})
    code, found = report(trainctl, path, home=home)
    assert code == 0, "rows too long are dropped"
    assert found["held_out"] == {"count": 1, "share": 0.1, "lines": [4]}
    assert found["over_limit"]["lines"] == [10] and found["rows"] == 8
    assert any("trains 1 more row" in text for text in found["suggestions"])
    configured(home, training={"max_length": 200}, data={"over_length": "refuse"})
    code, found = report(trainctl, path, home=home)
    assert code == 1 and "1 row is longer than max_length 200" in found["problems"][0]
    done = trainctl("validate", path, home=home)
    assert done.code == 1 and "problem: 1 row is longer than max_length 200" in done.out
    assert "◂ max_length 200" in done.out and "refused" in done.out


def test_a_template_that_trains_the_instructions_fails_the_mask_checks(tmp_path, trainctl) -> None:
    code, found = report(trainctl, GSM8K, "--model", model_folder(tmp_path / "good", MARKED))
    assert code == 0 and [check["passed"] for check in found["masks"]["checks"]] == [True] * 5
    asked = "{%- generation %}{{- messages[0]['content'] + "
    wrong = MARKED.replace("{%- generation %}{{- ", asked)
    folder = model_folder(tmp_path / "wrong", wrong)
    code, found = report(trainctl, GSM8K, "--model", folder)
    failed = [check for check in found["masks"]["checks"] if not check["passed"]]
    assert code == 1 and failed and all(check["line"] for check in failed)
    assert len(found["problems"]) == len(failed)
    done = trainctl("validate", GSM8K, "--model", folder)
    assert done.code == 1 and f"FAIL {failed[0]['name']} (line" in done.out
    assert "it passed" not in done.out, "a check that passed names no line"
    shown = trainctl("validate", GSM8K, "--model", folder, "--tokens").out
    assert "<|im_start|>assistant⏎\n⟦Solve the problem" in shown, "and the rows show why"


def test_a_wrong_row_is_exit_1_at_every_level(home, tmp_path, trainctl) -> None:
    path = write_rows(tmp_path / "a.jsonl", [chat("a?", "b"), {"no": 1}])
    for words in ((), ("--level", "quick"), ("--level", "standard")):
        code, found = report(trainctl, path, *words, home=home)
        assert code == 1 and [bad["line"] for bad in found["rejected"]] == [2]
        assert (found["accepted"] == 1 and "mend line 2" in " ".join(found["suggestions"])) or (
            "first: line 2" in " ".join(found["suggestions"])
        )
    done = trainctl("validate", path, "--tokens", home=home)
    assert done.code == 1 and "line 2: wrong: has no messages" in done.out


def test_a_home_that_is_broken_is_not_passed_by_a_look_at_the_rows(
    home, trainctl, tmp_path
) -> None:
    done = trainctl("validate", GSM8K, home=Home(tmp_path / "nowhere"))
    assert done.code == 1 and "nowhere" in done.err
    configured(home, model={"base": "/no/such/model"})
    done = trainctl("validate", GSM8K, home=home)
    assert done.code == 1 and "/no/such/model" in done.err and done.err.count("\n") == 1
    configured(home, data={"bad_row": "drop"})
    done = trainctl("validate", GSM8K, home=home)
    assert done.code == 2 and "bad_row" in done.err
    folder = model_folder(tmp_path)
    (folder / "config.json").write_text("[1")
    done = trainctl("validate", GSM8K, "--model", folder)
    assert done.code == 1 and "config.json" in done.err and done.err.count("\n") == 1


def test_bad_rows_that_the_settings_drop_are_no_problem_up_to_the_limit(
    home, trainctl, tmp_path
) -> None:
    rows = [chat(f"{n}?", str(n)) for n in range(30)]
    path = write_rows(tmp_path / "a.jsonl", [*rows, {"odd": 1}])
    configured(home, data={"bad_rows": "drop"})
    code, found = report(trainctl, path, home=home)
    assert (code, found["problems"], found["rejected_count"], found["rows"]) == (0, [], 1, 30)
    configured(home, data={"bad_rows": "drop", "bad_rows_limit": 0.01})
    code, found = report(trainctl, path, home=home)
    assert code == 1 and "bad_rows_limit is 1.0%" in found["problems"][0]
    assert not any("drop" in text for text in found["suggestions"])


def test_tokens_as_json_are_a_list_with_an_object_a_line(home, tmp_path, trainctl) -> None:
    path = write_rows(tmp_path / "a.jsonl", [chat("a?", HOSTILE), {"no": 1}, {"text": "x y z"}])
    done = trainctl("validate", path, "--tokens", "--json", home=home)
    assert done.code == 1 and done.out.count("\n") == 3, "one object a line"
    rows = json.loads(done.out)
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert set(rows[1]) == {"line", "error"}
    for row in (rows[0], rows[2]):
        assert set(row) >= {"line", "ids", "trained", "segments"}
        assert len(row["ids"]) == len(row["trained"]) and any(row["trained"])
        assert [set(part) for part in row["segments"]] == [{"text", "trained"}] * len(
            row["segments"]
        )
    (answer,) = [part["text"] for part in rows[0]["segments"] if part["trained"]]
    assert answer == HOSTILE + "<|im_end|>", "JSON is exact"


def test_hostile_rows_reach_neither_a_pipe_nor_a_terminal_raw(home, tmp_path, trainctl) -> None:
    path = write_rows(tmp_path / "a.jsonl", [chat(HOSTILE, HOSTILE), {"no" + HOSTILE: 1}])
    done = trainctl("validate", path, "--tokens", home=home)
    assert not set("\x1b\x07\x9b\x85\r\u202e") & set(done.out)
    assert "⟦␛]52;c;SEFDS0VE␇" in done.out and "[x]<|im_end|>⟧" in done.out
    for words in ((), ("--tokens",), ("--tokens", "--json"), ("--json",)):
        shown = on_a_terminal(path, home, *words)
        ours = shown.replace(b"\x1b[1;32m", b"").replace(b"\x1b[2m", b"").replace(b"\x1b[0m", b"")
        assert b"\x1b" not in ours and b"\x07" not in ours, words
        assert "\x9b".encode() not in ours and "\x85".encode() not in ours, words


def on_a_terminal(path: Path, home: Home, *words: str, **environment: str) -> bytes:
    """What the command writes to a terminal of its own."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "trainctl", "validate", path, *words, "--home", home.root],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other end was closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(master)
    assert process.communicate(timeout=120)[1] == b""
    return shown


def test_a_terminal_gets_colour_and_with_no_color_brackets(home, tmp_path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [chat("a?", "b")])
    assert b"\x1b[1;32mb<|im_end|>\x1b[0m" in on_a_terminal(path, home, "--tokens")
    for setting in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown = on_a_terminal(path, home, "--tokens", **setting)
        assert "⟦b<|im_end|>⟧".encode() in shown and b"\x1b" not in shown


def test_without_unicode_everything_is_drawn_in_ascii(home, tmp_path, trainctl) -> None:
    path = write_rows(tmp_path / "a.jsonl", [chat("a?\tb", "b")])
    for words in ((), ("--tokens",)):
        done = trainctl("validate", path, *words, home=home, PYTHONIOENCODING="ascii")
        assert done.code == 0 and done.out.isascii()
        assert ("###" if not words else "a?^Ib<|im_end|>^J") in done.out
    assert "[+b<|im_end|>+]^J" in done.out


def test_tokens_of_a_long_file_are_a_stream(home, tmp_path) -> None:
    line = json.dumps(chat("why?", "because " * 100)) + "\n"
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        file.writelines(line for _ in range(30_000))
    words = ["validate", path, "--tokens", "--json", "--home", home.root]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "trainctl", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert json.loads(first.strip(b"[,\n"))["line"] == 1
    # It has by far not come to the end: a reader who leaves ends it.
    assert process.poll() is None
    process.stdout.close()
    assert process.wait(60) == 141


@pytest.mark.parametrize("content", [b"", b"\n\n", b"no json\n"])
def test_a_file_of_which_nothing_can_train_is_told_by_its_rows(
    home, tmp_path, trainctl, content
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    code, found = report(trainctl, path, home=home)
    assert code == 1 and found["accepted"] == 0 and found["problems"]
    assert "no row can be made tokens of" in found["level_reason"]


def test_a_file_that_is_not_there_is_one_line(home, trainctl, tmp_path) -> None:
    done = trainctl("validate", tmp_path / "none.jsonl", home=home)
    assert done.code == 1 and done.err.count("\n") == 1 and "none.jsonl" in done.err


def test_deep_tells_what_the_checkers_of_contents_find_and_standard_less(
    home, tmp_path, trainctl
) -> None:
    again = chat("why?", "because it is so")
    rows = [again, chat("b?", "a" * 4 + " b"), again, chat("e?", "{{answer}}"), chat("c?", "d")]
    path = write_rows(tmp_path / "a.jsonl", rows)
    code, standard = report(trainctl, path, home=home)
    assert standard["level"] == "standard" and standard["checks"]["level"] == "standard"
    assert code == 0 and standard["rejected"] == []
    code, deep = report(trainctl, path, "--level", "deep", home=home)
    assert code == 1 and [bad["line"] for bad in deep["rejected"]] == [4]
    assert deep["checks"]["counts"]["duplicate_row"] == 1
    (found,) = [one for one in deep["checks"]["findings"] if one["checker"] == "duplicate_row"]
    assert found["line"] == 3 and found["severity"] == "warning" and found["version"]
    assert set(standard["checks"]["counts"]) < set(deep["checks"]["counts"])
    done = trainctl("validate", path, "--level", "deep", home=home)
    assert "checks (deep," in done.out and "duplicate_row 1.0.0" in done.out
    configured(home, data={"level": "deep"})
    assert report(trainctl, path, home=home)[1]["level"] == "deep", "as before training"


def test_help_tells_the_levels_and_the_exit_code(trainctl) -> None:
    done = trainctl("validate", "--help")
    assert done.code == 0
    for part in ("quick ", "standard ", "deep ", "Exit 1 where", "--tokens", "--model FOLDER"):
        assert part in done.out
    assert "--row N" in trainctl("show", "--help").out
