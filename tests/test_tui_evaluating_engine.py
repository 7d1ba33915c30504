"""From a console with a real engine and a real sshd: a host's key trusted, a version evaluated
there, its job followed to the end, and what it scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.reading.views import Views
from engine.sessions.dispatch import Dispatcher
from engine.sessions.session import LocalSession
from evaluation.host.machine import known_hosts
from queue_store.config import default
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.jobs import JobState
from snapshots import versions
from tests import engine_kit as kit
from tests.host_kit import make_stub, table
from tests.jobs_kit import ITEMS, make, wait_for
from tests.sshd_kit import Host, make_host, needs_sshd
from tests.test_host_cli import fingerprint
from tests.test_tui_compare import at
from tests.tui_pilot import push, running, screen, until
from tui.console import Console
from tui.dialogs.evaluate import EvaluateDialog
from tui.dialogs.hosts import HostsView
from tui.dialogs.jobs import JobsView
from tui.dialogs.trust import NewKeyDialog


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with v001, which asks for no job by itself."""
    made = make(tmp_path / "home")
    kit.add(made, "1.jsonl", rows=4, seed=1)
    kit.train_all(made)
    with open_state(made) as state:
        versions.create(state)
    return made


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Host]:
    host = make_host(tmp_path, "titan")
    host.start()
    yield host
    host.stop()


async def soon(pilot: Any, text: str) -> None:
    """Until a text is on the screen; what processes do takes longer than a key."""
    for _ in range(2):
        try:
            await until(pilot, lambda: text in screen(pilot), text)
            return
        except AssertionError:
            continue
    raise AssertionError(f"{text!r} is not there\n{screen(pilot)}")


@needs_sshd[0]
@needs_sshd[1]
async def test_a_host_is_trusted_and_asked_from_the_console(
    home: Home, sshd: Host, tmp_path: Path
) -> None:
    (tmp_path / "console").mkdir()
    stub = make_stub(sshd, tmp_path / "console")
    home.config.write_text(f"{home.config.read_text()}\n{table('titan', stub)}")
    known = stub.host.folder / "known"
    before = known.read_text()
    known.write_text("")
    try:
        with kit.Running(home) as engine:
            dispatcher = Dispatcher(engine.engine)
            session = LocalSession(dispatcher)
            app = Console(default(), session, Views(home), leave=lambda way: None)
            async with running(app) as pilot:
                # -- its key is not known: it says so, and how; no answer of it is a wrong one
                await at(pilot, HostsView, "5", "H")
                await soon(pilot, "the host's key is not one that is known here")
                await at(pilot, NewKeyDialog, "t")
                right = fingerprint(stub.host)
                assert right in "".join(screen(pilot).split()).replace("│", "")
                await pilot.press("escape")
                assert not known_hosts(home).exists()
                await at(pilot, NewKeyDialog, "t")
                await push(pilot, "#accept")
                await soon(pilot, "is trusted from now on")
                assert known_hosts(home).stat().st_mode & 0o777 == 0o600
                await soon(pilot, "idle")  # it was asked again at once, not after its rest
                await pilot.press("r")
                await soon(pilot, "Asked just now")
                assert "safetensors" in screen(pilot)
                await pilot.press("escape")
                # -- a version asked there
                await at(pilot, EvaluateDialog, "e")
                assert "titan" in screen(pilot) and "never evaluated" not in screen(pilot)
                await push(pilot, "#accept")
                await soon(pilot, "evaluation 1 of v001 is waiting: E shows it")
                await at(pilot, JobsView, "E")
                job = wait_for(home, 1, JobState.DONE)
                assert (job.host, job.answered, str(job.reason)) == ("titan", ITEMS, "demand")
                await soon(pilot, f"{ITEMS}/{ITEMS}")
                await pilot.press("escape", "6", "z", "o", "o", "o", "o", "o")
                await soon(pilot, "evaluation 1 of v001 is done")
                assert f"the key {right} of host titan is trusted" in screen(pilot)
                await pilot.press("z", "5", "i")
                await soon(pilot, f"(0-39) of {ITEMS}")
            dispatcher.close()
    finally:
        known.write_text(before)
