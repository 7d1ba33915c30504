"""What can go wrong on an evaluation host, row by row, and what is said of it.

The worker, the link and the store are real; the model is a stub that echoes.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.host.errors import HostFailure
from evaluation.host.evaluate import Outcome, evaluate_on
from evaluation.host.session import Answer, Session
from evaluation.host.shipment import Shipment
from evaluation.host.shipped.frames import LIMIT
from queue_store import safe
from tests.host_kit import VERSION, Stub, make_stub, make_weights, questions
from tests.small_disk import fill, small_disk
from tests.sshd_kit import Host, key, make_host, needs_sshd
from tests.waiting import wait_until

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def titan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield host
    host.stop()


@pytest.fixture
def stub(titan: Host, tmp_path: Path) -> Iterator[Stub]:
    files = {name: (titan.folder / name).read_text() for name in ("known", "authorized")}
    yield make_stub(titan, tmp_path)
    for name, text in files.items():
        (titan.folder / name).write_text(text)
    if titan.process is None:
        titan.start()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.host.evaluate.FIRST_PAUSE", 0.01)


def ask(stub: Stub, tmp_path: Path, count: int = 20, **more) -> tuple[Outcome, list[Answer]]:
    heard: list[Answer] = []
    machine = more.pop("machine", stub.machine)
    shipped = more.pop("shipped", None) or make_weights(tmp_path / "v001")
    done = evaluate_on(machine, shipped, questions(count), {}, heard.append, **more)
    return done, heard


def fails(stub: Stub, tmp_path: Path, **more) -> HostFailure:
    with pytest.raises(HostFailure) as caught:
        ask(stub, tmp_path, tries=1, **more)
    return caught.value


def test_every_item_is_answered_once_under_the_versions_digest(stub: Stub, tmp_path: Path) -> None:
    done, heard = ask(stub, tmp_path)
    assert (done.answered, done.left, done.sessions) == (20, 0, 1)
    assert sorted(a.id for a in heard) == [q["id"] for q in questions(20)]
    assert {a.digest for a in heard} == {VERSION}
    assert {a.text for a in heard} == {f"said number {n:03}" for n in range(20)}
    (model,) = [p for p in stub.store.iterdir() if len(p.name) == 64]
    assert sorted(p.name for p in model.iterdir()) == ["config.json", "model.safetensors"]
    assert not [p for p in model.iterdir() if p.stat().st_mode & 0o222], "the store is read-only"
    assert not list(tmp_path.rglob("pwned")), "a path is never a script"


@pytest.mark.parametrize(("act", "code"), [("killed", "worker_died"), ("cut", "protocol")])
def test_a_worker_that_dies_is_named(stub: Stub, tmp_path: Path, act: str, code: str) -> None:
    stub.acts({"after": 5, "act": act})
    heard: list[Answer] = []
    with pytest.raises(HostFailure) as caught:
        shipped = make_weights(tmp_path / "v001")
        evaluate_on(stub.machine, shipped, questions(20), {}, heard.append, tries=1)
    assert caught.value.code == code, str(caught.value)
    assert len(heard) == 5, "what was heard before stays heard"


def test_answers_that_came_before_the_end_are_heard_however_late_somebody_listens(
    stub: Stub, tmp_path: Path
) -> None:
    stub.acts({"after": 5, "act": "killed"})
    heard: list[Answer] = []
    with Session(stub.machine) as session:
        session.load(make_weights(tmp_path / "v001"))
        write = session.channel._write

        def slow(data: bytes) -> None:
            write(data)
            session.channel.child.wait(60)
            wait_until(lambda: session.channel._failure is not None)

        session.channel._write = slow  # type: ignore[method-assign]
        with pytest.raises(HostFailure) as caught:
            session.generate(questions(20), {}, heard.append)
    assert (caught.value.code, len(heard)) == ("worker_died", 5)


class Cutter:
    """Hears answers, and after `at` of them kills the sshd that the worker runs under."""

    def __init__(self, stub: Stub, at: int) -> None:
        self.stub, self.at = stub, at
        self.heard: list[Answer] = []

    def __call__(self, answer: Answer) -> None:
        self.heard.append(answer)
        if len(self.heard) == self.at:
            worker = int((self.stub.store / ".lock").read_text().split()[1])
            session = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(session, signal.SIGKILL)


def test_a_session_that_is_killed_is_named(stub: Stub, tmp_path: Path) -> None:
    stub.acts({"after": 5, "act": "silent"})
    cut = Cutter(stub, 5)
    with pytest.raises(HostFailure) as caught:
        evaluate_on(
            *(stub.machine, make_weights(tmp_path / "v001"), questions(20), {}, cut), tries=1
        )
    assert caught.value.code == "session_ended", str(caught.value)


def test_a_link_cut_amid_200_items_sends_only_the_missing_ones_again(
    stub: Stub, tmp_path: Path
) -> None:
    stub.acts({"after": 120, "act": "silent"}, {"after": 0, "act": "killed"}, None)
    cut = Cutter(stub, 120)
    shipped = make_weights(tmp_path / "v001")
    done, heard = evaluate_on(stub.machine, shipped, questions(200), {}, cut), cut.heard
    assert (done.answered, done.sessions) == (200, 3)
    assert len({a.id for a in heard}) == len(heard) == 200, "no answer is heard twice"
    assert [len(job) for job in stub.asked] == [200, 80, 80]
    assert set(stub.asked[1]) == {q["id"] for q in questions(200)} - {a.id for a in heard[:120]}


@pytest.mark.slow
def test_a_host_that_never_comes_back_is_given_up(stub: Stub, tmp_path: Path) -> None:
    stub.acts(*[{"after": 0, "act": "killed"}] * 3)
    with pytest.raises(HostFailure) as caught:
        ask(stub, tmp_path)
    assert caught.value.transient and len(stub.asked) == 3


def test_a_frozen_worker_is_noticed_and_ends_by_itself(stub: Stub, tmp_path: Path) -> None:
    stub.acts({"after": 5, "act": "frozen"})
    failure = fails(stub, tmp_path, machine=stub.quick())
    assert failure.code == "frozen" and "1.5 s" in str(failure), str(failure)
    pid = int((stub.store / ".lock").read_text().split()[1])
    assert Path(f"/proc/{pid}").exists(), "stopped, and holding its memory"
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the worker's own end")


def test_a_worker_ends_when_nobody_pings(stub: Stub, tmp_path: Path) -> None:
    with Session(stub.quick()) as session:
        pid = session.facts["pid"]
        session.channel._deadline = 600  # this side is patient, and its ssh stands still
        session.channel.child.send_signal(signal.SIGSTOP)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the worker's end")
        session.channel.child.send_signal(signal.SIGCONT)


def test_another_host_key_gets_nothing(stub: Stub, tmp_path: Path) -> None:
    known = stub.host.folder / "known"
    good = known.read_text()
    known.write_text(f"[127.0.0.1]:{stub.host.port} {key(stub.host.folder / 'other')}\n")
    failure = fails(stub, tmp_path)
    assert failure.code == "host_key" and "hosts trust titan" in str(failure)
    known.write_text("")  # nobody has ever seen it: nobody is asked, and it is not accepted
    assert fails(stub, tmp_path).code == "host_key" and not stub.store.exists()
    assert stub.machine.known_hosts is not None
    stub.machine.known_hosts.write_text(good)  # trainctl's own file counts as well
    assert ask(stub, tmp_path)[0].answered == 20


def test_a_key_that_is_not_let_in_is_said(stub: Stub, tmp_path: Path) -> None:
    (stub.host.folder / "authorized").write_text("")
    failure = fails(stub, tmp_path)
    assert failure.code == "not_let_in" and "authorized_keys" in str(failure)


def test_a_host_that_is_off_is_down_for_now(stub: Stub, tmp_path: Path) -> None:
    stub.host.stop()
    failure = fails(stub, tmp_path)
    assert failure.code == "unreachable" and failure.transient


@pytest.mark.parametrize("python", ["no-such-python", "~/no such/python", "/bin/false"])
def test_an_interpreter_that_is_missing_is_said(stub: Stub, tmp_path: Path, python: str) -> None:
    failure = fails(stub, tmp_path, machine=replace(stub.machine, python=python))
    assert failure.code == "no_python" and "config.toml" in str(failure), str(failure)


@pytest.mark.slow
@pytest.mark.parametrize("full", ["at once", "on the way"])
def test_a_full_disk_on_the_host_is_said(stub: Stub, tmp_path: Path, full: str) -> None:
    with small_disk(tmp_path / "disk", 80) as disk:
        place = replace(stub.machine.place, path=str(disk / "store"))
        machine = replace(stub.machine, place=place)
        with Session(machine):
            pass
        if full == "at once":
            fill(disk)
            failure = fails(stub, tmp_path, machine=machine)
        else:
            shipped = make_weights(tmp_path / "v001", size=90 << 20)
            failure = fails(stub, tmp_path, machine=machine, shipped=Small(**vars(shipped)))
        assert failure.code == "disk_full" and "free some there" in str(failure), str(failure)


class Small(Shipment):
    """Says too little of its size, so that the host lets it come, as when a neighbour takes the
    room meanwhile."""

    bytes = 1


def test_weights_tampered_with_on_the_host_are_sent_again(stub: Stub, tmp_path: Path) -> None:
    shipped = make_weights(tmp_path / "v001")
    ask(stub, tmp_path, shipped=shipped)
    there = stub.store / shipped.digest / "model.safetensors"
    there.parent.chmod(0o700)
    there.chmod(0o600)
    info = there.stat()
    there.write_bytes(b"x" * info.st_size)  # the same size and time: rsync's look sees nothing
    os.utime(there, ns=(info.st_atime_ns, info.st_mtime_ns))
    done, _ = ask(stub, tmp_path, shipped=shipped)
    assert done.answered == 20 and done.loaded is not None and done.loaded.sent > 0
    assert there.read_bytes() == b"w" * 1000


def test_weights_that_are_not_what_was_recorded_are_never_loaded(
    stub: Stub, tmp_path: Path
) -> None:
    shipped = make_weights(tmp_path / "v001")
    (tmp_path / "v001" / "model.safetensors").write_bytes(b"v" * 1000)
    failure = fails(stub, tmp_path, shipped=shipped)
    assert failure.code == "digest" and failure.names == ("model.safetensors",)
    assert not stub.asked and not [p for p in stub.store.iterdir() if len(p.name) == 64]


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("garbage", "protocol"),
        ("no json", "protocol"),
        ("unknown item", "protocol"),
        ("early done", "protocol"),
        ("other digest", "digest"),
        ("other model", "digest"),
        ("crash", "failed"),
    ],
)
def test_what_makes_no_sense_is_no_answer(stub: Stub, tmp_path: Path, act: str, code: str) -> None:
    stub.acts({"after": 3, "act": act})
    heard: list[Answer] = []
    with pytest.raises(HostFailure) as caught:
        shipped = make_weights(tmp_path / "v001")
        evaluate_on(stub.machine, shipped, questions(9), {}, heard.append, tries=1)
    assert caught.value.code == code and len(heard) <= 3
    assert str(caught.value) == safe.safe_line(str(caught.value)), "no escape reaches a terminal"


def test_the_worker_takes_no_garbage_either(stub: Stub) -> None:
    for sent in (b"\xff" * 16, (5).to_bytes(4, "big") + b"hello", b"\0\0\0\x02[]"):
        with Session(stub.machine) as session, pytest.raises(HostFailure) as caught:
            session.channel._write(sent)
            session.channel.receive(20)
        assert caught.value.code == "protocol"


def test_too_much_for_a_frame_is_refused_here(stub: Stub) -> None:
    with Session(stub.machine) as session, pytest.raises(HostFailure) as caught:
        session.channel.send({"kind": "ping", "echo": "x" * (LIMIT + 1)})
    assert caught.value.code == "config"


def test_another_protocol_is_refused(stub: Stub) -> None:
    stub.acts(None, serve={"PROTO": 99})
    with pytest.raises(HostFailure) as caught:
        Session(stub.machine)
    assert caught.value.code == "protocol" and "99" in str(caught.value)


def test_what_a_login_says_first_is_skipped_and_a_flood_is_not(stub: Stub, tmp_path: Path) -> None:
    stub.acts(noise="Welcome to \x1b[31mtitan")
    assert ask(stub, tmp_path)[0].answered == 20
    stub.acts(noise="\x1b[2J" * 20_000)
    failure = fails(stub, tmp_path)
    assert failure.code == "protocol" and "\x1b" not in str(failure)


def test_escapes_in_an_answer_come_whole_and_are_harmless_when_shown(
    stub: Stub, tmp_path: Path
) -> None:
    said = "\x1b]52;c;aGk=\x07\x9b2J\u202e"
    heard: list[Answer] = []
    item = {"id": "a", "messages": [{"role": "user", "content": said}]}
    evaluate_on(stub.machine, make_weights(tmp_path / "v001"), [item], {}, heard.append)
    assert heard[0].text == f"said {said}", "stored in full"
    assert not set("\x1b\x07\x9b\u202e") & set(safe.safe(heard[0].text))


def test_an_item_that_cannot_be_asked_is_an_error_and_no_answer(stub: Stub, tmp_path: Path) -> None:
    heard: list[Answer] = []
    bad = {"id": "bad", "messages": [{"role": "user", "content": "too long"}]}
    items = [*questions(2), bad]
    done = evaluate_on(stub.machine, make_weights(tmp_path / "v001"), items, {}, heard.append)
    assert done.answered == 3
    (wrong,) = [a for a in heard if a.id == "bad"]
    assert (wrong.finish, wrong.text) == ("error", "") and "context 8" in wrong.error


def test_a_store_in_use_is_busy_and_can_still_be_looked_at(stub: Stub, tmp_path: Path) -> None:
    with Session(stub.machine, who="the first"):
        failure = fails(stub, tmp_path)
        assert failure.code == "busy" and failure.transient and "the first" in str(failure)
        with Session(stub.machine, lock=False) as look:
            assert "the first" in look.facts["busy"]
    assert ask(stub, tmp_path)[0].answered == 20


@pytest.mark.slow
def test_another_probe_than_the_recorded_one_is_refused(stub: Stub, tmp_path: Path) -> None:
    loaded = ask(stub, tmp_path)[0].loaded
    stub.acts(probe=[[1, -0.51], [2, -1.5]])
    assert ask(stub, tmp_path, recorded=loaded)[0].answered == 20
    stub.acts(probe=[[1, -1.5], [2, -0.5]])
    failure = fails(stub, tmp_path, recorded=loaded)
    assert failure.code == "probe" and "nats off" in str(failure)


def test_a_cancelled_job_ends_and_the_rest_is_left(stub: Stub, tmp_path: Path) -> None:
    stub.acts({"after": 3, "act": "until cancelled"})
    heard: list[Answer] = []
    shipped = make_weights(tmp_path / "v001")
    done = evaluate_on(
        *(stub.machine, shipped, questions(9), {}, heard.append),
        cancelled=lambda: len(heard) >= 3,
    )
    assert done.cancelled and (done.answered, done.left) == (3, 6)


def test_no_child_outlives_a_session(stub: Stub) -> None:
    with Session(stub.machine) as session:
        pid = session.facts["pid"]
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the worker's end")
    ours = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True)
    assert str(session.channel.child.pid) not in ours.stdout.decode().split()
