"""Hosts over a session: looked at, and a key trusted only by the fingerprint that was agreed to."""

# ruff: noqa: F811

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sessions import dispatch
from engine.sessions.dispatch import Dispatcher
from engine.sessions.readonly import ReadOnlySession
from engine.sessions.session import LocalSession
from evaluation.host.errors import HostFailure
from evaluation.host.machine import known_hosts
from queue_store import journal
from queue_store.database import open_state
from queue_store.errors import NotFound, Refused, UsageError
from queue_store.home import Home
from tests.host_kit import Stub
from tests.sshd_kit import key, needs_sshd
from tests.stepping_engine import SteppingEngine
from tests.test_host_cli import fingerprint, stub, titan  # noqa: F401


@pytest.fixture
def engine(home: Home) -> Iterator[SteppingEngine]:
    made = SteppingEngine(home)
    yield made
    made.end()


@needs_sshd[0]
@needs_sshd[1]
def test_a_key_is_written_once_its_fingerprint_was_agreed_to(
    stub: Stub, home: Home, engine: SteppingEngine, tmp_path: Path
) -> None:
    (stub.host.folder / "known").write_text("")
    session = LocalSession(Dispatcher(engine))
    looker = ReadOnlySession(session)
    shown = looker.request("host_key", host="titan")
    right = fingerprint(stub.host)
    assert (shown["fingerprint"], shown["type"]) == (right, "ED25519")
    assert (shown["known"], shown["changed"]) == (False, False)
    with pytest.raises(Refused, match="read-only"):
        looker.request("host_trust", host="titan", fingerprint=right)
    with pytest.raises(Refused, match="not SHA256:other"):
        session.request("host_trust", host="titan", fingerprint="SHA256:other")
    with pytest.raises(UsageError):
        session.request("host_trust", host="titan", fingerprint="yes")
    assert not known_hosts(home).exists()
    before = engine.looks
    assert session.request("host_trust", host="titan", fingerprint=right)["written"]
    assert engine.looks == before + 1, "the engine asks the host anew"
    assert looker.request("host_key", host="titan")["known"]
    with open_state(home) as state:
        (event,) = journal.events(state, kinds=["host.trusted"])
    assert event.data["fingerprint"] == right and event.data["host"] == "titan"
    # Another key under the same name is told as such.
    known_hosts(home).write_text(f"[127.0.0.1]:{stub.host.port} {key(tmp_path / 'old')}\n")
    assert looker.request("host_key", host="titan")["changed"]


@needs_sshd[0]
@needs_sshd[1]
def test_a_look_tells_what_a_host_has_and_why_it_cannot(
    stub: Stub, home: Home, engine: SteppingEngine
) -> None:
    session = ReadOnlySession(LocalSession(Dispatcher(engine)))
    found = session.request("host_look", host="titan")
    assert found["state"] == "idle" and found["disk"]["free"] > 0 and found["packages"]["torch"]
    with pytest.raises(NotFound, match="no host atlas"):
        session.request("host_look", host="atlas")
    for command in ("host_look", "host_key"):
        with pytest.raises(Refused, match="local is this machine"):
            session.request(command, host="local")
    config = home.config.read_text()
    home.config.write_text(config.replace('ssh = "titan"', 'ssh = "127.0.0.1"'))
    (stub.host.folder / "known").write_text("")
    down = session.request("host_look", host="titan")
    assert down["state"] in ("down", "refused") and down["why"]
    gone = config.replace('ssh = "titan"', 'ssh = "nobody.invalid"')
    home.config.write_text(gone)
    with pytest.raises(HostFailure, match="not reached"):
        session.request("host_key", host="titan")


def test_hosts_that_do_not_answer_hold_up_nobody_who_reads(
    home: Home, engine: SteppingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    slow = {"host_look": lambda views, host: answers.wait(120) and {}}
    monkeypatch.setattr(dispatch, "_HANDLERS", {**dispatch._HANDLERS, **slow})
    dispatcher = Dispatcher(engine)
    asked = [dispatcher.begin("host_look", {"host": f"h{n}"}) for n in range(5)]
    try:
        assert LocalSession(dispatcher).request("versions", timeout=60) == []
        assert not any(one.done() for one in asked)
    finally:
        answers.set()
    assert [one.result(120) for one in asked] == [{}] * 5
    dispatcher.close()
