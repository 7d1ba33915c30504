"""Asking models a prompt in tests: a listener, a worker that echoes, a terminal to ask from."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.judging import asking
from engine.judging.asking import Question
from evaluation.host import machine
from evaluation.host.machine import local
from queue_store import config
from queue_store.database import open_state
from queue_store.home import Home
from tests.conftest import ROOT

PROMPT = "What is 2 + 3?"


class Heard:
    """A listener that keeps what it hears; `stop` says when it has heard enough."""

    def __init__(self, stop: int = 0) -> None:
        self.turns: list[str] = []
        self.texts: list[str] = []
        self.said: list[dict[str, Any]] = []
        self._stop = stop

    def turn(self, of: Any) -> None:
        self.turns.append(of.name)

    def sent(self, done: int, whole: int) -> None:
        raise AssertionError("nothing is sent on this machine")

    def grown(self, text: str, tokens: int) -> None:
        self.texts.append(text)

    def answered(self, said: dict[str, Any]) -> None:
        self.said.append(said)

    def enough(self) -> bool:
        return bool(self._stop) and len(self.texts) >= self._stop


def asked(home: Home, *names: str, heard: Heard | None = None, **how: Any) -> list[dict[str, Any]]:
    heard = heard or Heard()
    settings = config.load(home.config)
    with open_state(home) as state:
        models = asking.resolve(state, settings, names)
        return asking.ask(
            *(state, settings, machine.local(threads=1), models, Question(PROMPT, **how), heard),
            cancelled=heard.enough,
        )


@dataclass
class LocalStub:
    """The worker on this machine, its model an echo: `acts` say what befalls its runs."""

    plan: Path

    def acts(self, *acts: dict[str, Any] | None) -> None:
        self.plan.write_text(json.dumps({"acts": list(acts)}))


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStub:
    plan, python = tmp_path / "plan.json", tmp_path / "python"
    words = [sys.executable, str(ROOT / "tests" / "stub_worker.py"), str(plan)]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    python.chmod(0o755)
    made = replace(local(), python=str(python))
    monkeypatch.setattr("evaluation.host.machine.local", lambda *_, **__: made)
    # The probe of an echo is not the version's: nothing of it is kept in the home.
    monkeypatch.setattr(asking.memory, "keep_probe", lambda *_: None)
    monkeypatch.setattr(asking.memory, "probe", lambda *_: None)
    found = LocalStub(plan)
    found.acts()
    return found


@pytest.fixture
def terminal(home: Home) -> Iterator[Any]:
    """Runs trainctl on a terminal of its own; the processes that it started must all be gone."""
    started: list[subprocess.Popen[bytes]] = []
    leader, follower = pty.openpty()

    def run(*words: str) -> tuple[subprocess.Popen[bytes], int]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trainctl", *words, "--home", str(home.root)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"},
            **{"stdin": follower, "stdout": follower, "stderr": follower},
            start_new_session=True,
        )
        started.append(process)
        return process, leader

    yield run
    for process in started:
        process.kill()
        process.wait()
    os.close(leader)
    os.close(follower)


def read_until(leader: int, enough: Callable[[bytes], bool]) -> bytes:
    seen = b""
    while not enough(seen):
        assert select.select([leader], [], [], 60)[0], seen
        seen += os.read(leader, 4096)
    return seen
