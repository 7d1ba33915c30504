"""The supervisor: a training process that dies, hangs or breaks is started again, why it ended
stands on the attempt, and nothing is lost. Real processes, a real engine on builtin:tiny."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.sessions.client import connect
from queue_store import journal, queue
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.lock import EngineLock, holder, wait_free
from tests import engine_kit as kit
from tests.conftest import ROOT
from tests.daemon_kit import SECONDS, daemon, stacks, status
from tests.waiting import wait_until
from trainctl.__main__ import main
from trainctl.supervisor import Beat, Supervisor

STALL_MINUTES = 0.15
"""An injected limit that a loaded machine keeps: four times as long for a start, whose imports take
seconds."""


@pytest.fixture
def small(tmp_path: Path) -> Home:
    return kit.make_home(tmp_path / "home")


def attempts(home: Home, item: int = 1) -> list[tuple[str, str]]:
    with kit.opened(home) as state:
        return [(a.cause, a.error) for a in queue.attempts(state, item)]


def test_a_killed_training_process_is_started_again_and_its_item_trains_on_exactly(
    small, tmp_path
) -> None:
    kit.add(small, "a.jsonl", 120)
    calm = kit.make_home(tmp_path / "calm")
    kit.add(calm, "a.jsonl", 120)
    with daemon(small) as running:
        first = running.started()
        assert first["supervisor_pid"] == running.process.pid
        running.wait_step(6)
        os.kill(first["pid"], signal.SIGKILL)
        second = running.engine_pid(not_this=first["pid"])
        assert holder(small)["pid"] == second  # type: ignore[index]
        running.wait_idle()
        code, err = running.end()
        assert code == 0, err
    assert holder(small) is None
    assert attempts(small)[0][0] == "killed" and "SIGKILL" in attempts(small)[0][1]
    assert attempts(small)[-1][0] == "trained"
    kit.assert_each_row_once(small, 1)
    assert kit.head(small).weights_digest == kit.train_all(calm)
    with kit.opened(small) as state:
        told = [e for e in journal.events(state) if e.kind == "engine.crashed"]
    assert len(told) == 1 and told[0].data["cause"] == "killed"


def test_a_hang_is_found_its_stacks_are_written_and_the_item_goes_on(tmp_path) -> None:
    small = kit.make_home(tmp_path / "home", watchdog={"stall_minutes": STALL_MINUTES})
    kit.add(small, "a.jsonl", 400)
    with daemon(small) as running:
        first = running.started()["pid"]
        running.wait_step(2)
        os.kill(first, signal.SIGSTOP)  # what does not run cannot beat, nor write its stacks
        running.engine_pid(not_this=first)
    cause, error = attempts(small)[0]
    assert cause == "hang" and "no sign of life" in error, error


HANGS = """
import sys, threading
from engine.training.trainer import StepTrainer
original, calls = StepTrainer.training_step, []
def a_step_that_never_ends(self, *arguments, **named):
    calls.append(1)
    if len(calls) == 6:
        threading.Event().wait()
    return original(self, *arguments, **named)
StepTrainer.training_step = a_step_that_never_ends
from trainctl.__main__ import main
from trainctl.supervisor import Beat, Supervisor
sys.exit(main())
"""


def test_the_stack_of_a_hang_names_the_place(tmp_path) -> None:
    small = kit.make_home(tmp_path / "home", watchdog={"stall_minutes": STALL_MINUTES})
    kit.add(small, "a.jsonl", 60)
    # The process that trains is this program; its supervisor is the real one.
    shim = tmp_path / "shim" / "trainctl_hangs.py"
    shim.parent.mkdir()
    shim.write_text(HANGS)
    hanging = tmp_path / "python"
    hanging.write_text(
        "#!/bin/sh\n"
        f'for word in "$@"; do [ "$word" = --engine ] && [ ! -e {tmp_path}/once ] && '
        f'touch {tmp_path}/once && shift 3 && exec {os.sys.executable} {shim} "$@"; done\n'
        f'exec {os.sys.executable} "$@"\n'
    )
    hanging.chmod(0o700)
    start = tmp_path / "start.py"
    start.write_text(
        "import sys\n"
        f"sys.executable = {str(hanging)!r}\n"
        "from trainctl.__main__ import main\n"
        "sys.exit(main())\n"
    )
    from tests import daemon_kit

    original = daemon_kit.sys.executable
    with pytest.MonkeyPatch.context() as patch:
        wrapper = tmp_path / "supervisor"
        wrapper.write_text(f'#!/bin/sh\nshift 3\nexec {original} {start} "$@"\n')
        wrapper.chmod(0o700)
        patch.setattr(daemon_kit.sys, "executable", str(wrapper))
        with daemon(small) as running:
            patch.undo()
            running.started()
            running.wait_idle()
            assert running.end()[0] == 0
    assert "a_step_that_never_ends" in stacks(small)
    cause, error = attempts(small)[0]
    assert cause == "hang" and "stacks.log" in error
    kit.assert_each_row_once(small, 1)


def test_three_crashes_without_a_step_fail_the_item_and_the_queue_goes_on(small) -> None:
    kit.add(small, "poison.jsonl", 24)
    kit.add(small, "good.jsonl", 24, 2)
    # Every process dies at its third step. The first item never gets beyond it, for no
    # checkpoint comes before the fifth; then the variable is of no use any more.
    with daemon(small, TRAINCTL_CRASH_AT="step:3") as running:
        wait_until(lambda: kit.states(small)["poison.jsonl"] == "failed", SECONDS, every=0.2)
        tries = attempts(small)
        assert [cause for cause, _ in tries] == ["killed"] * 3, tries
        with kit.opened(small) as state:
            item = queue.get(state, 1)
        assert item.reason == "crashes" and "3 crashes without a step" in item.error
        running.process.kill()
    kit.train_all(small)
    assert kit.states(small) == {"poison.jsonl": "failed", "good.jsonl": "done"}


def test_after_so_many_ends_without_a_step_it_gives_up_and_says_so(tmp_path) -> None:
    small = kit.make_home(tmp_path / "home", watchdog={"restarts": 1})
    kit.add(small, "a.jsonl", 24)
    with daemon(small, TRAINCTL_CRASH_AT="step:1") as running:
        code, err = running.wait()
    assert code == 1 and "given up" in err and "Traceback" not in err
    assert holder(small) is None


def test_a_training_process_whose_supervisor_is_killed_saves_ends_and_frees_the_home(
    small,
) -> None:
    kit.add(small, "a.jsonl", 400)
    with daemon(small) as running:
        pid = running.started()["pid"]
        running.wait_step(3)
        running.process.send_signal(signal.SIGKILL)
        assert wait_free(small, SECONDS), "the home is still held"
        wait_until(lambda: not psutil.pid_exists(pid), 10)
    assert kit.states(small)["a.jsonl"] == "paused" and kit.head(small).step >= 3


@pytest.mark.parametrize("which", ["pid", "supervisor_pid"])
def test_sigterm_to_either_saves_and_ends_both(small, which) -> None:
    kit.add(small, "a.jsonl", 400)
    with daemon(small) as running:
        pids = running.started()
        running.wait_step(2)
        os.kill(pids[which], signal.SIGTERM)
        code, err = running.wait()
        assert code == 0, err
        assert not psutil.pid_exists(pids["pid"])
    assert kit.head(small).step >= 2 and holder(small) is None
    assert not [a for a in attempts(small) if a[0] == "killed"]


def test_a_process_that_cannot_start_is_not_started_again_and_its_line_is_told(small) -> None:
    small.config.write_text("[training]\nno_such_key = 1\n")
    with daemon(small) as running:
        code, err = running.wait()
    assert code == 2 and "no_such_key" in err and err.count("\n") == 1


def test_systemd_is_told_that_it_is_ready_lives_and_stops(small, tmp_path) -> None:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.bind(str(tmp_path / "notify"))
    link.settimeout(SECONDS)
    heard = ""
    with daemon(small, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000") as running:
        while "READY=1" not in heard or "WATCHDOG=1" not in heard.split("READY=1")[1]:
            heard += link.recv(4096).decode() + "\n"
        assert f"MAINPID={running.process.pid}" in heard
        running.process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += link.recv(4096).decode() + "\n"
        assert running.wait()[0] == 0


def test_a_held_engine_answers_reads_and_refuses_changes(small) -> None:
    from engine.sessions.client import connect
    from queue_store import config
    from queue_store.errors import Refused
    from queue_store.lock import EngineLock
    from trainctl.host import Host

    kit.add(small, "a.jsonl", 8)
    lock = EngineLock.acquire(small, "daemon")
    host = Host(small, config.load(small.config), lock, "daemon", hold="the disk is broken")
    host.start()
    session = connect(small, timeout=60)
    try:
        wait_until(lambda: status(small).get("state") == "failed", 20)
        assert "the disk is broken" in status(small)["hint"]
        assert session.request("queue") is not None
        for words in ({"command": "resume"}, {"command": "retry", "item": 1}):
            with pytest.raises(Refused, match="the disk is broken"):
                session.request(**words)
    finally:
        session.close()
        host.stop()
        assert host.wait(120)


def test_a_training_process_that_finds_its_supervisor_gone_does_not_train(small) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with EngineLock.acquire(small, "daemon") as lock:
        read, write = os.pipe()
        words = ["--lock-fd", lock.fd, "--beat-fd", write, "--supervisor-pid", gone.pid]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "trainctl", "--engine", "--home", small.root]
            + [str(word) for word in words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=(lock.fd, write),
            timeout=SECONDS,
            check=False,
        )
        os.close(read)
        os.close(write)
    assert done.returncode == 1 and not small.socket.exists()


def test_sigterm_before_the_engine_listens_ends_both_with_0(small) -> None:
    with daemon(small) as running:
        wait_until(lambda: psutil.Process(running.process.pid).children(), 30, every=0.005)
        code, err = running.end()
    assert code == 0, err
    assert holder(small) is None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", ".stop", "trainctl stop"])
def test_it_can_be_stopped_while_it_waits_before_the_next_start(small, how) -> None:
    kit.add(small, "a.jsonl", 24)
    with daemon(small, TRAINCTL_CRASH_AT="step:1") as running:
        log = small.logs / "supervisor.log"
        # The third wait is 0.8 s long; the third crash fails the item, and then none follows.
        wait_until(lambda: log.exists() and "another one in 0.8 s" in log.read_text(), SECONDS)
        if how == ".stop":
            small.stop_file.touch()
        elif how == "trainctl stop":
            assert (holder(small) or {})["pid"] == running.process.pid  # not the dead child's
            assert main(["stop", "--home", str(small.root)]) == 0
        else:
            running.process.send_signal(signal.SIGTERM)
        code, err = running.wait()
    assert code == 0, err
    assert holder(small) is None and not small.stop_file.exists()
    # The next process would have obeyed too, after it loaded all; none was started.
    assert log.read_text().count("the training process is") == 3


def test_the_supervisor_loads_nothing_large() -> None:
    code = (
        "import sys, trainctl.__main__, trainctl.daemon, trainctl.supervisor; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    large = {
        "torch",
        "transformers",
        "numpy",
        "textual",
        "engine",
        "snapshots",
        "asyncio",
        "psutil",
    }
    assert not large & {name.split(".")[0] for name in done.stdout.split()}


PLANTED = """
import sys
if "--engine" in sys.argv and "--hold" not in sys.argv:
    import builtins
    original = builtins.__import__

    def planted(name, *rest, **more):
        module = original(name, *rest, **more)
        found = sys.modules.get("{module}")
        if hasattr(found, "{name}"):
            setattr(found, "{name}", broken)
        return module

    def broken(*_, **__):
        {act}

    builtins.__import__ = planted
"""


def planted(folder: Path, function: str, act: str) -> str:
    """PYTHONPATH of training processes in which a function ends so."""
    folder.mkdir()
    module, _, name = function.rpartition(".")
    text = PLANTED.replace("{module}", module).replace("{name}", name)
    (folder / "sitecustomize.py").write_text(text.replace("{act}", act))
    return os.pathsep.join([str(folder), str(ROOT)])


@pytest.mark.slow
def test_a_disk_that_stays_broken_is_served_read_only(small, tmp_path) -> None:
    kit.add(small, "a.jsonl", 4)
    act = "import errno; raise OSError(errno.EIO, 'Input/output error', 'model.safetensors')"
    path = planted(tmp_path / "planted", "queue_store.durable.publish", act)
    with daemon(small, PYTHONPATH=path) as running:
        held = wait_until(
            lambda: "held" in str(status(small).get("hint")) and status(small),
            SECONDS,
            every=0.2,
            what="the third process trains nothing",
        )
        assert "I/O error" in held["hint"] and held["queue"] is not None
        with pytest.raises(Refused, match="mend the disk"):
            session = connect(small)
            try:
                session.request("pause")
            finally:
                session.close()
        running.end()
    log = (small.logs / "supervisor.log").read_text()
    assert log.count("the training process is") == 3


@pytest.mark.slow
def test_a_broken_cuda_context_ends_the_process_and_the_item_goes_on_in_another(
    small, tmp_path
) -> None:
    kit.add(small, "a.jsonl", 4)
    mark = tmp_path / "once"
    act = f"open({str(mark)!r}, 'w').close(); raise RuntimeError('CUDA error: device-side assert')"
    path = planted(tmp_path / "planted", "engine.training.trainer.collate", act)
    with daemon(small, PYTHONPATH=path) as running:
        wait_until(mark.exists, SECONDS, what="the planted error")
        (tmp_path / "planted" / "sitecustomize.py").unlink()
        running.wait_idle()
        running.end()
    assert [cause for cause, _ in attempts(small)][:1] == ["CUDA error"]
    assert kit.states(small) == {"a.jsonl": "done"}


def test_steps_after_a_rollback_are_progress_and_those_of_a_new_process_are_not(small) -> None:
    with EngineLock.acquire(small) as lock:
        supervisor = Supervisor(small, lock)
        supervisor.beat.ready = True

        def beats(*steps: int) -> int:
            for step in steps:
                said = {"state": "training", "step": step, "token": float(step)}
                supervisor._take(said)
            return supervisor.in_a_row

        beats(1, 50)
        supervisor.in_a_row = 2  # it died twice, and the next one starts at its checkpoint
        supervisor.beat = Beat(ready=True)
        assert beats(30, 40, 50) == 2
        assert beats(10) == 2 and beats(11) == 0  # rolled back, and on from there
