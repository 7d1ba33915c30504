"""The link of engine and rank 0, what crosses it, and what is refused before anything starts."""

from __future__ import annotations

import errno
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.ranks import words
from engine.ranks.link import LONGEST, Link, LinkBroken
from engine.ranks.plan import each_host, processes, several
from engine.training.controls import NonFinite, Place
from engine.training.failures import StepMemory, classify, ends_process
from engine.training.ticks import Monitor
from queue_store import config as configuration
from queue_store.errors import ConfigError, DataError, Refused
from queue_store.failures import Cause
from queue_store.home import Home
from tests import ranks_engine as many
from tests.conftest import ROOT


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    """A link, and the bare other end."""
    ours, theirs = socket.socketpair()
    yield Link(ours), theirs
    ours.close()
    theirs.close()


def test_messages_come_whole_and_in_order(ends: tuple[Link, socket.socket]) -> None:
    link, theirs = ends
    other = Link(theirs)
    for number in range(3):
        other.send({"n": number, "text": "ä" * 500})
    assert [link.receive(5)["n"] for _ in range(3)] == [0, 1, 2]  # type: ignore[index]
    assert link.receive(0.0) is None
    theirs.sendall((21).to_bytes(4, "big") + b'{"half": ')
    assert link.receive(0.0) is None, "half a message is none"
    theirs.sendall(b'"a message"}')
    assert link.receive(5) == {"half": "a message"}


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"\xff\xff\xff\xff",
        (LONGEST + 1).to_bytes(4, "big"),
        (3).to_bytes(4, "big") + b"{]}",
        (2).to_bytes(4, "big") + b"[]",
        (2).to_bytes(4, "big") + b"\xff\xfe",
    ],
)
def test_what_is_no_message_breaks_the_link(
    ends: tuple[Link, socket.socket], bytes_sent: bytes
) -> None:
    link, theirs = ends
    theirs.sendall(bytes_sent)
    with pytest.raises(LinkBroken):
        link.receive(5)


def test_the_end_of_the_other_side_breaks_the_link(ends: tuple[Link, socket.socket]) -> None:
    link, theirs = ends
    theirs.close()
    with pytest.raises(LinkBroken):
        link.receive(5)


def crossed(error: BaseException) -> Exception:
    return words.error_of(words.error_words(error), "rank 1 on h")


def test_an_error_means_the_same_on_the_other_side() -> None:
    bad = crossed(NonFinite(7, "loss", math.nan))
    assert isinstance(bad, NonFinite) and bad.step == 7 and classify(bad)[0] == Cause.NOT_A_NUMBER
    full = crossed(OSError(errno.ENOSPC, "no space", "/x"))
    assert classify(full)[0] == Cause.DISK_FULL
    wrong = crossed(ConfigError("no", where="training.x", mend="do"))
    assert isinstance(wrong, ConfigError) and wrong.where == "training.x" and wrong.mend == "do"
    assert isinstance(crossed(Refused("no")), Refused)
    assert isinstance(crossed(DataError("bad", where="f:1")), DataError)


def test_a_rank_without_memory_keeps_its_row_and_its_cause() -> None:
    error = crossed(StepMemory(Cause.CUDA_MEMORY, "out", where="a.jsonl:7, 90 tokens", mend="less"))
    cause, message = classify(error)
    assert cause == Cause.CUDA_MEMORY
    assert "rank 1 on h" in message and "a.jsonl:7, 90 tokens" in message


def test_a_defect_of_a_rank_is_an_unknown_failure_with_its_words() -> None:
    cause, message = classify(crossed(ZeroDivisionError("by zero")))
    assert (cause, "ZeroDivisionError: by zero" in message) == (Cause.UNKNOWN, True)


def test_a_ranks_broken_card_ends_the_ranks_and_not_the_engine() -> None:
    error = crossed(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert classify(error)[0] == Cause.CUDA and ends_process(error, "the log") is None


def test_the_monitors_knowledge_crosses() -> None:
    monitor = Monitor(0.1)
    monitor.stepped(2.0)
    monitor.fall_due("samples", Place(1, 5))
    monitor.ran("validation", 0.5, True)
    there = Monitor.of(words.plain(monitor.dump()))
    assert there.dump() == monitor.dump() and there.put_off("samples") == monitor.put_off("samples")


# -- what is refused ------------------------------------------------------------------------------


def config(**changes: dict[str, Any]) -> configuration.Config:
    return configuration.check(changes, Path("config.toml"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"training": {"processes": 3}}, "not a multiple of batch_size 1 x 3 processes"),
        ({"training": {"processes": "all"}}, "training.processes"),
        ({"training": {"processes": 0}}, "training.processes"),
        ({"training": {"parallel": "tp"}}, "training.parallel"),
        ({"launch": {"nodes": 2}}, "need rendezvous"),
        ({"launch": {"nodes": 2, "rendezvous": "host"}}, "launch: rendezvous"),
        ({"launch": {"nodes": 2, "rendezvous": "host:0"}}, "no host:port"),
        ({"launch": {"join_minutes": 0}}, "launch.join_minutes"),
        ({"launch": {"node": 2}}, "launch.node"),
    ],
)
def test_a_wrong_key_is_said_in_a_line(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word.replace(".", r"\.")) as error:
        config(**changes)
    assert len(str(error.value).splitlines()) == 1


def test_auto_is_a_process_for_each_gpu_and_one_without() -> None:
    auto = config(training={"processes": "auto"})
    assert (each_host(auto, 0), each_host(auto, 8)) == (1, 8)
    with pytest.raises(ConfigError, match="this host has 2 GPUs"):
        each_host(config(training={"processes": 4}), 2)
    assert not several(config()) and several(config(training={"processes": 2}))
    two_hosts = config(training={"processes": 1}, launch={"nodes": 2, "rendezvous": "h:29500"})
    assert several(two_hosts)


def test_what_a_step_cannot_share_is_refused_before_anything_starts(home: Home) -> None:
    wanted = config(training={"processes": "auto", "effective_batch": 3})
    lonely = processes(home, home.root, wanted)
    assert (lonely.size, lonely.kind) == (1, "ddp")
    hosts = config(
        training={"processes": "auto", "effective_batch": 3},
        launch={"nodes": 2, "rendezvous": "h:29500"},
    )
    with pytest.raises(ConfigError, match="effective_batch 3 is not a multiple"):
        processes(home, home.root, hosts)


# -- nothing outlives the engine ------------------------------------------------------------------


PARENT = """
import os, subprocess, sys
words = [sys.executable, "-c", sys.argv[1], str(os.getpid())]
child = subprocess.Popen(words, stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
"""
CHILD = {
    "parent": "import sys, time\n"
    "from engine.ranks.lifeline import die_with\n"
    "die_with(int(sys.argv[1])); print('up', flush=True); time.sleep(60)",
    "pipe": "import time\n"
    "from engine.ranks.lifeline import die_at_end_of\n"
    "die_at_end_of(0); print('up', flush=True); time.sleep(60)",
}


@pytest.mark.parametrize("way", CHILD)
def test_a_process_of_a_launch_dies_with_the_one_that_started_it(way: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD[way]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == b"up\n" and many.lives(pid)
        parent.kill()
        many.wait_gone(pid)
