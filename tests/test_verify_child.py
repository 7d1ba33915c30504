"""The process that reads a version back can be broken off, tells how far it is, and dies with who
waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from queue_store.database import open_state
from snapshots import child, inuse, versions
from tests.store_world import ROOT, World
from tests.waiting import wait_until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.step = 3
    made.save()
    versions.create(made.state, verified=False)
    yield made
    made.close()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Children stop themselves at their first act, as on a disk that hangs; the file that is
    returned then holds their process id."""
    place = tmp_path / "slow"
    place.mkdir()
    told = place / "pid"
    (place / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'snapshots.verify' in sys.orig_argv:\n"
        f"    open({str(told)!r}, 'w').write(str(os.getpid()))\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(place))
    yield told
    if told.exists() and not gone(int(told.read_text())):
        os.kill(int(told.read_text()), signal.SIGKILL)  # a test that failed leaves none behind


def pid_in(told: Path) -> int:
    return int(wait_until(lambda: told.exists() and told.read_text(), what="the child begins"))


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_stop_ends_the_child_and_changes_nothing(world: World, slow: Path) -> None:
    stop, ended = threading.Event(), []

    def ask() -> None:
        with open_state(world.home) as state, pytest.raises(child.Unfinished, match="broken off"):
            versions.verify(state, "v001", stop=stop)
        ended.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    pid = pid_in(slow)
    assert [one["version"] for one in inuse.under_way()] == ["v001"]
    stop.set()
    wait_until(lambda: ended, what="the reading is broken off")
    thread.join()
    assert gone(pid) and inuse.under_way() == []
    assert versions.get(world.state, "v001").state == "unverified"


def test_the_child_dies_with_who_waits_for_it(world: World, slow: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from queue_store.database import open_state\nfrom queue_store.home import Home\n"
        "from snapshots import versions\n"
        "versions.verify(open_state(Home(Path(sys.argv[1]))), 'v001')\n"
    )
    asker = subprocess.Popen(
        [sys.executable, "-c", code, str(world.home.root)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{slow.parent}{os.pathsep}{ROOT}"},
    )
    pid = pid_in(slow)
    os.kill(asker.pid, signal.SIGKILL)
    asker.wait()
    wait_until(lambda: gone(pid), what="the child dies too")


def test_it_tells_how_far_it_is_and_reads_at_idle_priority(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    place = world.home.root / "quick"
    place.mkdir()
    seen = place / "priority"
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'snapshots.verify' in sys.orig_argv:\n"
        "    import os, psutil\n"
        "    from snapshots import child\n"
        "    child.TELL_SECONDS = 0\n"
        "    me = psutil.Process()\n"
        f"    open({str(seen)!r}, 'w').write(f'{{me.nice()}} {{me.ionice().ioclass}}')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(place))
    versions.verify(world.state, "v001", progress=lambda read, of: told.append((read, of)))
    total = versions.get(world.state, "v001").size_bytes
    assert told[-1] == (total, total) and [read for read, _ in told] == sorted(r for r, _ in told)
    nice, io_class = seen.read_text().split()
    assert int(nice) >= 10 and int(io_class) == psutil.IOPRIO_CLASS_IDLE


def test_two_threads_do_not_read_the_same_version_at_once(world: World, slow: Path) -> None:
    stop, second, ended = threading.Event(), threading.Event(), []

    def ask(event: threading.Event) -> None:
        with open_state(world.home) as state, pytest.raises(child.Unfinished):
            versions.verify(state, "v001", stop=event)
        ended.append(event)

    threads = [threading.Thread(target=ask, args=(event,)) for event in (stop, second)]
    threads[0].start()
    first = pid_in(slow)
    threads[1].start()
    second.set()
    wait_until(lambda: second in ended, what="the one who waits for its turn is broken off")
    assert int(slow.read_text()) == first, "it never began to read"
    stop.set()
    for thread in threads:
        thread.join()


def test_files_written_while_they_are_read_are_not_called_verified(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.home.root / "busy"
    place.mkdir()
    file = world.home.versions / "v001" / "rng.json"
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'snapshots.verify' in sys.orig_argv:\n"
        "    import os\n"
        "    from snapshots import manifest\n"
        "    check = manifest.check\n"
        "    def touched(*a, **k):\n"
        "        found = check(*a, **k)\n"
        f"        os.utime({str(file)!r})\n"
        "        return found\n"
        "    manifest.check = touched\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(place))
    with pytest.raises(child.Unfinished, match="written while they were read"):
        versions.verify(world.state, "v001")
    assert versions.get(world.state, "v001").state == "unverified"
