"""Faces get the same answers and errors in the engine's process and over its socket."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from engine.faults import Internal, NoAnswer, ProtocolMismatch, TooLarge
from engine.sessions.client import connect
from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Server
from engine.sessions.session import LocalSession, Session
from engine.sessions.statusfile import StatusFile
from engine.sessions.wire import at_socket, new_socket
from queue_store.errors import NoEngine, NotFound, Refused, UsageError
from queue_store.home import Home
from tests.stepping_engine import SteppingEngine, make_home
from tests.waiting import wait_until

ROW = b'{"messages":[{"role":"user","content":"1+1"},{"role":"assistant","content":"2"}]}\n'


class World:
    def __init__(self, home: Home, step_seconds: float = 0.01) -> None:
        self.home = home
        self.engine = SteppingEngine(home, step_seconds)
        self.dispatcher = Dispatcher(self.engine)
        self.server = Server(home, self.dispatcher)
        self.server.start()

    def session(self, kind: str) -> Session:
        return LocalSession(self.dispatcher) if kind == "local" else connect(self.home, 60)

    def close(self) -> None:
        self.server.stop()
        self.dispatcher.close()
        self.engine.end()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(make_home(tmp_path / "home"))
    yield world
    world.close()


@pytest.fixture(params=["local", "socket"])
def session(world: World, request: pytest.FixtureRequest) -> Iterator[Session]:
    session = world.session(request.param)
    yield session
    session.close()


def test_both_sessions_answer_alike(world: World, session: Session) -> None:
    status = session.request("snapshot")
    assert status["state"] == "training"
    assert status["loss"] == {"unknown": "not a number (nan)"}
    assert session.request("hello", protocol=1)["home"] == str(world.home.root)
    assert session.request("queue") == []
    paused = session.request("pause", park=False)
    assert paused["step"] == world.engine.steps
    assert world.engine.done[-1] == ("pause", {"park": False})


def test_both_sessions_raise_the_same_errors(session: Session) -> None:
    with pytest.raises(Refused, match="not paused") as refused:
        session.request("resume")
    assert str(refused.value) == "training is not paused (nothing to do)"
    with pytest.raises(NotFound, match="no item 5"):
        session.request("item", id=5)
    with pytest.raises(UsageError, match="priority"):
        session.request("priority", id=5, priority="urgent")
    with pytest.raises(UsageError, match="unknown command"):
        session.request("destroy")
    with pytest.raises(ProtocolMismatch):
        session.request("hello", protocol=2)
    with pytest.raises(Internal):
        session.request("save")


def test_the_queue_is_changed_and_the_engine_woken(
    world: World, session: Session, tmp_path: Path
) -> None:
    ids = []
    for name in ("a.jsonl", "b.jsonl"):
        file = tmp_path / name
        file.write_bytes(ROW)
        item = session.request("add", path=str(file), priority="low")
        assert (item["name"], item["state"], item["priority"]) == (name, "queued", "low")
        ids.append(item["id"])
    assert session.request("priority", id=ids[1], priority="high")["priority"] == "high"
    assert [row["id"] for row in session.request("queue")] == [ids[1], ids[0]]
    session.request("move", id=ids[0], before=ids[1])
    assert [row["id"] for row in session.request("queue", state="queued")] == ids
    session.request("move", id=ids[1], first=True)
    assert [row["id"] for row in session.request("queue")] == [ids[1], ids[0]]
    with pytest.raises(Refused, match="retry takes failed"):
        session.request("retry", id=ids[0])
    assert session.request("remove", id=ids[0])["id"] == ids[0]
    assert [row["id"] for row in session.request("queue")] == [ids[1]]
    assert world.engine.woken == 6
    kinds = [event["kind"] for event in session.request("events")["events"]]
    assert kinds.count("item.queued") == 2
    assert kinds[-1] == "item.removed"


def test_a_slow_command_holds_up_neither_its_own_session_nor_another(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"), step_seconds=4)
    try:
        first, second = connect(world.home, 60), connect(world.home, 60)
        started = time.monotonic()
        paused: list[float] = []

        def pause() -> None:
            first.request("pause")
            paused.append(time.monotonic() - started)

        thread = threading.Thread(target=pause)
        thread.start()
        for session in (first, second):
            for _ in range(20):
                session.request("snapshot", timeout=60)
                session.request("queue", timeout=60)
        quick = time.monotonic() - started
        assert not paused
        thread.join(120)
        assert paused[0] > quick
        first.close()
        second.close()
    finally:
        world.close()


def test_answers_go_to_the_thread_that_asked(world: World) -> None:
    session = connect(world.home, 60)
    wrong: list[object] = []

    def ask(number: int) -> None:
        for _ in range(30):
            try:
                session.request("item", id=number)
            except NotFound as error:
                if f"no item {number}" not in str(error):
                    wrong.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    session.close()


def test_patience_ends_and_the_late_answer_disturbs_nobody(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"), step_seconds=0.5)
    try:
        for kind in ("local", "socket"):
            session = world.session(kind)
            with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
                session.request("pause", timeout=0.05)
            assert session.request("snapshot", timeout=60)["global_step"] >= 0
            session.close()
    finally:
        world.close()


def test_when_the_engine_ends_every_waiting_request_says_so(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"), step_seconds=60)
    session = connect(world.home, 60)
    errors: list[BaseException] = []

    def pause() -> None:
        try:
            session.request("pause")
        except NoEngine as error:
            errors.append(error)

    thread = threading.Thread(target=pause)
    thread.start()
    wait_until(lambda: any(c.busy for c in world.server.connections), 5, what="pause is under way")
    world.server.stop(seconds=0.1)
    thread.join(120)
    assert "the engine has ended" in str(errors[0])
    with pytest.raises(NoEngine, match="the engine has ended"):
        session.request("snapshot")
    session.close()
    world.close()


def test_an_answer_under_way_is_given_before_the_server_stops(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"), step_seconds=0.7)
    session = connect(world.home, 60)
    results: list[dict[str, object]] = []
    thread = threading.Thread(target=lambda: results.append(session.request("stop")))
    thread.start()
    wait_until(lambda: any(c.busy for c in world.server.connections), 5, what="stop is under way")
    world.server.stop()
    thread.join(120)
    assert results[0]["scheduled"] is True
    session.close()
    world.close()


def test_without_an_engine_connect_says_how_to_start_one(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with pytest.raises(NoEngine, match=r"no engine is running for this home \(start it"):
        connect(home)
    with pytest.raises(NoEngine):
        connect(Home(tmp_path / "nowhere"))


def test_an_engine_that_is_there_and_does_not_answer_is_not_called_absent(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    mute = new_socket()
    at_socket(home, mute.bind)
    mute.listen(1)
    with pytest.raises(NoAnswer):
        connect(home, timeout=0.2)
    mute.close()


def test_something_else_behind_the_socket_is_named_as_such(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    other = new_socket()
    at_socket(home, other.bind)
    other.listen(1)

    def answer() -> None:
        link, _ = other.accept()
        link.recv(1000)
        link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        link.close()

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(NoEngine, match="no engine of trainctl"):
        connect(home, timeout=60)
    thread.join(120)
    other.close()


def test_a_request_too_long_for_the_engine_is_not_sent(world: World) -> None:
    session = connect(world.home, 60)
    with pytest.raises(TooLarge):
        session.request("skip", reason="x" * 2_000_000)
    assert session.request("snapshot")["state"] == "training"
    session.close()


def test_a_closed_session_refuses_and_closing_twice_is_harmless(world: World) -> None:
    for kind in ("local", "socket"):
        session = world.session(kind)
        session.close()
        session.close()
        with pytest.raises(NoEngine, match="closed"):
            session.request("snapshot")


def test_a_file_name_that_is_no_utf8_still_travels(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"))
    try:
        path = tmp_path / "caf\udce9.jsonl"
        path.write_bytes(ROW)
        local, remote = world.session("local"), world.session("socket")
        added = local.request("add", path=str(path))
        assert remote.request("item", id=added["id"])["name"] == "caf�.jsonl"
        with pytest.raises(UsageError, match="surrogates"):
            remote.request("add", path=str(path))
        remote.close()
    finally:
        world.close()


def test_status_json_is_whole_at_every_moment_and_follows_the_engine(world: World) -> None:
    file = StatusFile(world.home, world.engine.snapshot, interval=0.01)
    file.start()
    wait_until(world.home.status_file.exists, 5, what="status.json")
    seen = set()
    deadline = time.monotonic() + 10
    while len(seen) < 5 and time.monotonic() < deadline:
        status = orjson.loads(world.home.status_file.read_bytes())
        assert status["state"] == "training"
        seen.add(status["global_step"])
    file.stop()
    assert len(seen) >= 5
    assert [p.name for p in world.home.store.glob(".status*")] == []


def test_the_client_imports_neither_torch_nor_numpy_nor_asyncio() -> None:
    code = (
        "import sys; import engine.sessions.client, engine.reading.views, engine.sessions.session\n"
        "bad = {'torch', 'transformers', 'numpy', 'textual', 'asyncio', 'psutil', 'snapshots'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
