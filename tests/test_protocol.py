"""The socket keeps its promises whatever a client sends, and the engine steps on meanwhile."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.messages import MAX_REQUEST
from engine.sessions.client import connect
from engine.sessions.server import Limits
from engine.sessions.wire import at_socket, new_socket
from queue_store.errors import NoEngine
from tests.protocol_kit import Raw, World
from tests.stepping_engine import make_home
from tests.waiting import wait_until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(make_home(tmp_path / "home"))
    yield world
    world.close()


def test_an_answer_has_the_id_of_its_request_and_the_promised_form(world: World) -> None:
    client = world.client()
    hello = client.ask(id=1, command="hello", protocol=1)
    assert (hello["id"], hello["ok"]) == (1, True)
    assert hello["result"]["protocol"] == 1
    assert hello["result"]["pid"] == os.getpid()
    answer = client.ask(id="seven", command="pause")
    assert answer["id"] == "seven"
    assert set(answer["result"]) == {"requested_step", "step"}
    refused = client.ask(id=8, command="item", item=99)
    assert refused["ok"] is False
    assert refused["error"]["code"] == "not_found"
    assert "99" in refused["error"]["message"]


def test_another_protocol_version_is_told_both_versions(world: World) -> None:
    answer = world.client().ask(id=1, command="hello", protocol=7)
    assert answer["error"]["code"] == "protocol"
    assert "protocol 1" in answer["error"]["message"]
    assert "protocol 7" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "malformed"),
        (b"hello", "malformed"),
        (b"\x00\xff\xfe\x80binary", "malformed"),
        (b'{"id": 1, "command": "pa\xe9use"}', "malformed"),
        (b"[1, 2]", "malformed"),
        (b"17", "malformed"),
        (b'{"command": "snapshot"}', "malformed"),
        (b'{"id": NaN, "command": "snapshot"}', "malformed"),
        (b'{"id": 1.5, "command": "snapshot"}', "malformed"),
        (b'{"id": true, "command": "snapshot"}', "malformed"),
        (b'{"id": {"a": 1}, "command": "snapshot"}', "malformed"),
        (b'{"id": 1' + b"0" * 400 + b', "command": "snapshot"}', "malformed"),
        (b'{"id": 1, "command": 5}', "malformed"),
        (b'{"id": 1}', "malformed"),
        (b"[" * 200_000, "malformed"),
        (b'{"a":' * 100_000, "malformed"),
        (b'{"id": 1, "command": "snapshot", "x": ' + b"[" * 900 + b"]" * 900 + b"}", "usage"),
        (b'{"id": 1, "command": "destroy"}', "unknown_command"),
        (b'{"id": 1, "command": "' + b"x" * 5000 + b'"}', "unknown_command"),
        (b'{"id": 1, "command": "__class__"}', "unknown_command"),
        (b'{"id": 1, "command": "pause", "park": "yes"}', "usage"),
        (b'{"id": 1, "command": "pause", "force": true}', "usage"),
        (b'{"id": 1, "command": "item", "item": "1 OR 1=1"}', "usage"),
        (b'{"id": 1, "command": "item", "item": 1e400}', "malformed"),
        (b'{"id": 1, "command": "item", "item": 99999999999999999999}', "usage"),
        (b'{"id": 1, "command": "series", "metric": "loss; DROP TABLE steps"}', "usage"),
        (b'{"id": 1, "command": "series", "metric": "loss", "width": 1000000000}', "usage"),
        (b'{"id": 1, "command": "events", "after": -1}', "usage"),
        (b'{"id": 1, "command": "move", "item": 1}', "usage"),
        (b'{"id": 1, "command": "add", "path": "relative.jsonl"}', "usage"),
        (b'{"id": 1, "command": "add", "path": "/no/such/file"}', "not_found"),
        (b'{"id": 1, "command": "add", "path": "/dev/zero"}', "refused"),
        (b'{"id": 1, "command": "add", "path": "/"}', "refused"),
    ],
)
def test_a_bad_line_gets_one_error_and_the_next_line_its_answer(
    world: World, line: bytes, code: str
) -> None:
    client = world.client()
    client.send(line + b"\n")
    answer = client.line()
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert "\n" not in answer["error"]["message"]
    assert client.ask(id=2, command="snapshot")["ok"] is True
    world.steps_on()


def test_a_line_of_10_mb_gets_an_error_and_ends_its_connection_only(world: World) -> None:
    bystander = world.client()
    client = world.client()
    sender = threading.Thread(target=_send_all, args=(client, b"x" * 10_000_000))
    sender.start()
    assert client.line()["error"]["code"] == "too_large"  # before the line has an end
    assert world.server.partial_bytes <= 2 * MAX_REQUEST
    sender.join(120)
    client.send(b"\n")
    assert client.line() is None
    assert bystander.ask(id=1, command="snapshot")["ok"] is True
    world.steps_on()


def _send_all(client: Raw, data: bytes) -> None:
    try:
        client.send(data)
    except OSError:
        client.rest += b""


def test_a_request_just_within_the_limit_is_answered_and_one_byte_more_is_not(world: World) -> None:
    client = world.client()
    start, end = b'{"id": 1, "command": "skip", "reason": "', b'"}\n'
    filler = MAX_REQUEST - len(start) - len(end)
    client.send(start + b"x" * filler + end)
    assert client.line()["error"]["code"] == "usage"  # understood: the reason is too long
    client.send(start + b"x" * (filler + 1) + end)
    assert client.line()["error"]["code"] == "too_large"
    assert client.line() is None


def test_a_thousand_connections_are_all_answered(world: World) -> None:
    clients = [world.client() for _ in range(1000)]
    for number, client in enumerate(clients):
        client.send(b'{"id": %d, "command": "snapshot"}\n' % number)
    assert [client.line()["id"] for client in clients] == list(range(1000))
    world.steps_on()


def test_at_the_limit_of_connections_the_longest_silent_one_makes_room(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"), Limits(connections=10))
    try:
        clients = [world.client() for _ in range(10)]
        for client in clients:
            assert client.ask(id=1, command="snapshot")["ok"]
        assert clients[0].ask(id=2, command="snapshot")["ok"]  # no longer the most silent
        late = world.client()
        assert late.ask(id=1, command="snapshot")["ok"]
        assert clients[1].line() is None
        assert clients[0].ask(id=3, command="snapshot")["ok"]
    finally:
        world.close()


def test_a_client_that_never_reads_is_dropped_and_costs_bounded_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="trainctl.session")
    limits = Limits(stall_seconds=1.0)
    world = World(make_home(tmp_path / "home"), limits)
    try:
        client = world.client()
        data = b'{"id": 1, "command": "snapshot"}\n' * 100_000
        sender = threading.Thread(target=_send_all, args=(client, data))
        sender.start()
        wait_until(lambda: world.server.connections, 5, every=0.001, what="it is connected")
        most = 0

        def dropped() -> bool:
            nonlocal most
            connections = list(world.server.connections)
            most = max([most, *(c._transport.get_write_buffer_size() for c in connections)])
            return not connections

        wait_until(dropped, 20, every=0.01, what="the client is dropped")
        sender.join(120)
        assert limits.write_buffer < most < limits.write_buffer + (1 << 18)
        assert "it does not read its answers" in caplog.text
        world.steps_on()
    finally:
        world.close()


def test_a_client_that_reads_slowly_gets_every_answer(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"), Limits(stall_seconds=2.0, write_buffer=1 << 14))
    try:
        client = world.client()
        data = b"".join(b'{"id": %d, "command": "snapshot"}\n' % n for n in range(2000))
        sender = threading.Thread(target=_send_all, args=(client, data + b'{"id": 9'))
        sender.start()
        ids = []
        for _ in range(2000):
            ids.append(client.line()["id"])
            if len(ids) % 500 == 0:
                before = world.engine.steps
                wait_until(lambda before=before: world.engine.steps > before + 5, 5)
        assert ids == list(range(2000))
        sender.join(120)
    finally:
        world.close()


def test_half_a_line_is_waited_for_and_then_its_client_dropped(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"), Limits(stall_seconds=0.3))
    try:
        client = world.client()
        client.send(b'{"id": 1, "comm')
        client.send(b'and": "snapshot"}\n')
        assert client.line()["ok"] is True
        client.send(b'{"id": 2, "comm')
        assert client.line() is None
        world.steps_on()
    finally:
        world.close()


def test_two_requests_in_one_packet_and_one_in_many_are_all_answered(world: World) -> None:
    client = world.client()
    client.send(b'{"id": 1, "command": "snapshot"}\n{"id": 2, "command": "snapshot"}\n')
    assert [client.line()["id"], client.line()["id"]] == [1, 2]
    for byte in b'{"id": 3, "command": "queue"}\n':
        client.send(bytes([byte]))
    assert client.line() == {"id": 3, "ok": True, "result": []}


def test_ten_thousand_requests_in_one_go_are_all_answered(world: World) -> None:
    client = world.client()
    data = b"".join(b'{"id": %d, "command": "snapshot"}\n' % n for n in range(10_000))
    sender = threading.Thread(target=client.send, args=(data,))
    sender.start()
    assert [client.line()["id"] for _ in range(10_000)] == list(range(10_000))
    sender.join(120)
    world.steps_on()


def test_a_client_that_sends_and_shuts_its_side_still_gets_its_answers(world: World) -> None:
    client = world.client()
    client.send(b'{"id": 1, "command": "queue"}\n{"id": 2, "command": "pause"}\n{"id": 3')
    client.link.shutdown(socket.SHUT_WR)
    answers = {}
    while (answer := client.line()) is not None:
        answers[answer["id"]] = answer
    assert answers[1]["ok"] is True
    assert answers[2]["ok"] is True
    assert answers[None]["error"]["code"] == "malformed"


def test_a_defect_in_a_command_is_an_error_of_that_request_only(world: World) -> None:
    client = world.client()
    answer = client.ask(id=1, command="save")
    assert answer["error"]["code"] == "internal"
    assert "Traceback" not in answer["error"]["message"]
    unwritable = client.ask(id=2, command="handover")
    assert unwritable["error"]["code"] == "internal"
    assert client.ask(id=3, command="snapshot")["ok"] is True
    world.steps_on()


def test_rubbish_from_many_clients_at_once_leaves_the_others_served(world: World) -> None:
    noise = [os.urandom(4000).replace(b"\n", b" ") + b"\n" for _ in range(20)]
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            client = Raw(world.home)
            try:
                for line in noise:
                    client.send(line)
            except OSError:
                continue
            finally:
                client.close()

    threads = [threading.Thread(target=disturb) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        session = connect(world.home, timeout=60)
        before = world.engine.steps
        for _ in range(50):
            session.request("snapshot", timeout=60)
        wait_until(lambda: world.engine.steps > before, 10, what="the engine steps on")
        session.close()
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
    wait_until(lambda: not world.server.connections, 10, what="all have left")
    assert world.server.partial_bytes == 0


def test_the_socket_is_the_users_alone(world: World) -> None:
    info = world.home.socket.stat()
    assert stat.S_ISSOCK(info.st_mode)
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert info.st_uid == os.geteuid()


def test_another_user_is_not_served(tmp_path: Path) -> None:
    world = World(make_home(tmp_path / "home"))
    try:
        world.server.user += 1
        assert world.client().line() is None
    finally:
        world.close()


def test_the_socket_of_a_dead_engine_is_replaced_and_that_of_an_ended_one_gone(
    tmp_path: Path,
) -> None:
    home = make_home(tmp_path / "home")
    dead = new_socket()
    at_socket(home, dead.bind)
    dead.close()
    with pytest.raises(NoEngine):
        connect(home)
    world = World(home)
    world.steps_on()
    world.close()
    assert not home.socket.exists()
    with pytest.raises(NoEngine, match="no engine is running"):
        connect(home)


def test_a_home_with_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    home = make_home(tmp_path / ("a" * 90) / ("ö" * 60) / "home")
    assert len(os.fsencode(home.socket)) > 200
    world = World(home)
    try:
        world.steps_on()
        assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
    finally:
        world.close()
