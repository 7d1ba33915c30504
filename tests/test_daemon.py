"""The daemon and the engine's host: how they start, answer, hand over and end. Real processes,
a real engine on builtin:tiny."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from queue_store import config as configuration
from queue_store.errors import Refused, TrainctlError
from queue_store.home import Home
from queue_store.lock import EngineLock, holder, wait_free
from tests.conftest import ROOT
from tests.waiting import wait_until
from trainctl.host import Host

SETTINGS = """
[training]
max_length = 64
effective_batch = 1
warmup_steps = 0
threads = 1
eval_steps = 0
sample_steps = 0
[samples]
count = 0
[queue]
quiet_seconds = 0.1
"""
ROW = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
START_SECONDS = 90.0


@pytest.fixture
def small(home: Home) -> Iterator[Home]:
    """A home whose steps are quick; whatever engine a test left on it is ended."""
    home.config.write_text(SETTINGS)
    yield home
    who = holder(home)
    if who is not None and isinstance(who["pid"], int) and who["pid"] != os.getpid():
        # The supervisor first: it would start another engine.
        for pid in filter(None, (who.get("supervisor_pid"), who["pid"])):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert wait_free(home, 20), "an engine was left on the home"


def rows(path: Path, number: int) -> Path:
    path.write_text("".join(json.dumps(ROW) + "\n" for _ in range(number)))
    return path


def foreground(home: Home) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "trainctl", "--daemon", "--home", str(home.root), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def line(process: subprocess.Popen[bytes]) -> dict[str, object]:
    """The one line that a daemon in the foreground prints once it listens."""
    assert process.stdout is not None and process.stderr is not None
    text = process.stdout.readline()
    assert text, process.stderr.read().decode()
    found: dict[str, object] = json.loads(text)
    return found


def test_detached_it_answers_trains_refuses_a_second_one_and_stops(
    small, tmp_path, trainctl
) -> None:
    started = json.loads(
        trainctl("--daemon", "--detach", "--json", home=small, timeout=START_SECONDS).out
    )
    status = json.loads(trainctl("status", "--json", home=small).out)
    assert status["engine"]["pid"] == started["pid"] and status["engine"]["mode"] == "daemon"
    assert small.socket.stat().st_mode & 0o777 == 0o600

    for words in (["--daemon"], ["--daemon", "--detach"]):
        second = trainctl(*words, home=small)
        assert second.code == 1 and str(started["pid"]) in second.err, second.err
        assert second.err.count("\n") == 1 and "daemon" in second.err

    added = json.loads(trainctl("add", rows(tmp_path / "a.jsonl", 3), "--json", home=small).out)

    def state() -> str:
        found = json.loads(trainctl("show", added[0]["id"], "--json", home=small).out)
        return str(found[0]["state"])

    wait_until(lambda: state() == "done", START_SECONDS, every=0.3, what="the item is done")
    history = json.loads(trainctl("history", "--json", home=small).out)
    assert history and {"branch", "step", "item", "cursor_from", "cursor_to"} <= set(history[0])
    assert history[-1]["cursor_to"] == 3 and not history[-1]["taken_back"]

    paused = json.loads(trainctl("pause", "--json", home=small).out)
    assert paused["step"] - paused["requested_step"] <= 1
    assert json.loads(trainctl("status", "--json", home=small).out)["state"] == "paused"
    refused = trainctl("drain", home=small)
    assert refused.code == 1 and "paused" in refused.err
    assert trainctl("resume", home=small).code == 0

    stopped = trainctl("stop", home=small)
    assert stopped.code == 0, stopped.err
    assert holder(small) is None and not small.socket.exists()
    assert trainctl("stop", home=small).code == 3
    checkpoints = json.loads(trainctl("checkpoints", "--json", home=small).out)
    assert checkpoints[-1]["complete"] and checkpoints[-1]["step"] == history[-1]["step"]


def test_in_the_foreground_sighup_is_ignored_and_sigterm_saves_and_exits_0(
    tmp_path, trainctl
) -> None:
    small = Home(tmp_path / ("deeper than the name of" * 4) / ("a socket may be" * 4))
    small.create()
    small.config.write_text(SETTINGS)
    process = foreground(small)
    try:
        started = line(process)
        assert started["supervisor_pid"] == process.pid != started["pid"]
        status = json.loads(trainctl("status", "--json", home=small).out)
        assert status["engine"]["pid"] == started["pid"]
        assert status["engine"]["supervisor_pid"] == process.pid
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=START_SECONDS)
        assert process.returncode == 0, err.decode()
        assert out == b"" and b"Traceback" not in err
        assert holder(small) is None and not small.socket.exists()
    finally:
        process.kill()


def test_a_second_sigterm_ends_it_at_once(small) -> None:
    process = foreground(small)
    try:
        line(process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 1
    finally:
        process.kill()


def test_a_stop_file_stops_it_and_keeps_the_next_start_from_running(small, trainctl) -> None:
    small.stop_file.touch()
    done = trainctl("--daemon", home=small)
    assert done.code == 1 and str(small.stop_file) in done.err and "remove it" in done.err
    small.stop_file.unlink()
    process = foreground(small)
    try:
        line(process)
        small.stop_file.touch()
        assert process.wait(timeout=START_SECONDS) == 0
        assert not small.stop_file.exists()
    finally:
        process.kill()


def test_a_daemon_that_does_not_come_up_says_why(small) -> None:
    from trainctl.daemon import spawn

    with (
        EngineLock.acquire(small, "test"),
        pytest.raises(TrainctlError, match=r"did not start: .*runs an engine on this home"),
    ):
        spawn(small)


def test_a_host_hands_its_engine_over_without_ever_letting_go_of_the_lock(small) -> None:
    host = Host(
        small, configuration.load(small.config), EngineLock.acquire(small, "console"), "console"
    )
    assert host.started().request("snapshot")["engine"]["mode"] == "console"
    pid = host.hand_over()
    assert host.ended.is_set() and host.lock.fd < 0
    who = holder(small)
    assert who is not None and who["pid"] == pid and who["mode"] == "daemon"
    with pytest.raises(Refused, match=str(pid)):
        EngineLock.acquire(small, "test")


def test_a_hand_over_that_fails_trains_on_here_and_says_why(small) -> None:
    host = Host(
        small, configuration.load(small.config), EngineLock.acquire(small, "console"), "console"
    )
    first = host.started()
    small.config.write_text("[training]\nno_such_key = 1\n")
    with pytest.raises(TrainctlError, match="no_such_key"):
        host.hand_over()
    assert host.started() is not first
    assert host.started().request("snapshot")["engine"]["pid"] == os.getpid()
    who = holder(small)
    assert who is not None and who["pid"] == os.getpid() and who["mode"] == "console"
    host.stop()
    assert host.wait(START_SECONDS) and host.exit_code == 0
    assert holder(small) is None
