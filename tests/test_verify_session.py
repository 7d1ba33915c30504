"""Verifying by an engine's word: on threads of its own, told how far it is, broken off at the
end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.sessions.dispatch import Dispatcher
from engine.sessions.session import LocalSession
from queue_store.errors import NotFound, UsageError, VerificationFailed
from snapshots import versions
from tests.stepping_engine import SteppingEngine
from tests.store_world import World, flip
from tests.test_verify_child import gone, pid_in, slow
from tests.waiting import wait_until

__all__ = ["slow"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    made.home.config.write_text("")
    made.step = 3
    made.save()
    versions.create(made.state, verified=False)
    yield made
    made.close()


@pytest.fixture
def dispatcher(world: World) -> Iterator[Dispatcher]:
    engine = SteppingEngine(world.home)
    made = Dispatcher(engine)
    yield made
    made.close()
    engine.end()


def test_the_engine_verifies_and_says_what_it_found(world: World, dispatcher: Dispatcher) -> None:
    session = LocalSession(dispatcher)
    found = session.request("verify", version="1")
    assert found["ok"] and found["name"] == "v001" and found["checks"] == []
    assert session.request("version", version="v001")["files"]
    flip(world.home.versions / "v001" / "rng.json")
    found = session.request("verify", version="v001")
    assert not found["ok"] and "rng.json" in found["problem"]
    assert session.request("versions")[0]["state"] == "corrupt"
    with pytest.raises(NotFound):
        session.request("verify", version="v009")


def test_labels_go_through_the_engine(dispatcher: Dispatcher) -> None:
    session = LocalSession(dispatcher)
    assert session.request("tag", version="v001", name="good")["tags"] == ["good"]
    assert session.request("tag", version="good", name="good", on=False)["tags"] == []
    assert session.request("describe", version="v001", text="words")["description"] == "words"
    with pytest.raises(UsageError):
        session.request("tag", version="v001", name="v002")
    with pytest.raises(UsageError):
        session.request("describe", version="v001", text="x" * 4001)


def test_the_end_of_the_engine_breaks_a_verification_off(
    world: World, dispatcher: Dispatcher, slow: Path
) -> None:
    session = LocalSession(dispatcher)
    failed: list[Any] = []

    def ask() -> None:
        try:
            session.request("verify", version="v001")
        except VerificationFailed as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    pid = pid_in(slow)
    assert session.request("verifying")[0]["version"] == "v001"
    assert session.request("versions"), "views are answered meanwhile"
    dispatcher.close()
    wait_until(lambda: failed, what="the verification is broken off")
    thread.join()
    assert "broken off" in str(failed[0]) and gone(pid)
    assert versions.get(world.state, "v001").state == "unverified"
