"""Several processes where a person looks for them: the header, the status, doctor, the cards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w

from engine.machine import gpus
from engine.messages import unknown
from queue_store.home import Home
from tests.conftest import Done
from tests.stepping_engine import make_home
from tests.waiting import wait_until
from trainctl.commands.status import plain
from trainctl.doctor import settings
from tui.bars import header_parts
from tui.safe import line_text

TWO: dict[str, Any] = {
    "size": 2,
    "kind": "ddp",
    "nodes": 1,
    "ranks": [
        {"rank": n, "host": "titan", "pid": 70 + n, "device": f"cuda:{n}", "memory": 2_500_000_000}
        for n in range(2)
    ],
}


def header(processes: Any) -> str:
    parts = header_parts({"state": "training", "processes": processes})
    return "  ".join(line_text(line) for _, line in parts)


def test_the_header_names_several_processes_and_no_single_one() -> None:
    assert "2 processes · ddp" in header(TWO)
    assert "16 processes · fsdp · 2 hosts" in header(
        {**TWO, "size": 16, "kind": "fsdp", "nodes": 2}
    )
    for one in ({**TWO, "size": 1}, unknown("the model is not loaded"), None):
        assert "processes" not in header(one)


def test_the_status_lists_the_ranks() -> None:
    page = plain({"state": "training", "processes": TWO})
    assert "2 · ddp" in page
    assert "titan · cuda:1 · pid 71 · 2.5 GB" in page
    assert "processes" not in plain({"state": "stopped", "processes": unknown("no engine")})


def test_a_home_without_an_engine_says_so(trainctl: Callable[..., Done], home: Home) -> None:
    import orjson

    status = orjson.loads(trainctl("status", "--json", home=home).out)
    assert status["processes"] == {"unknown": "no engine is running"}


def test_join_is_refused_where_no_host_is_waited_for(
    trainctl: Callable[..., Done], home: Home
) -> None:
    done = trainctl("join", home=home)
    assert done.code == 1 and len(done.err.splitlines()) == 1
    assert "launch.nodes = 1" in done.err and "launch.rendezvous" in done.err


def hosts(home: Home, place: str) -> None:
    launch = {"nodes": 2, "rendezvous": place}
    home.config.write_text(tomli_w.dumps({"launch": launch}))


def test_doctor_counts_processes_and_cards(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path)

    def check(cards: int, **training: Any) -> Any:
        monkeypatch.setattr(settings, "_cards", lambda: cards)
        home.config.write_text(tomli_w.dumps({"training": training}))
        return settings.processes(home)

    assert check(8, processes="auto").found == "8 on this host (auto)"
    assert check(0, processes="auto").found == "1 on this host (auto)"
    few = check(2, processes=4)
    assert (
        not few.ok
        and "which has 2 GPUs" in few.found
        and "set training.processes to 2" in few.advice
    )
    uneven = check(3, processes="auto")
    assert not uneven.ok and "effective_batch 8 is not a multiple" in uneven.found


def test_doctor_looks_at_the_place_where_hosts_come_together(tmp_path: Any) -> None:
    home = make_home(tmp_path)
    assert settings.processes(home).found == "1 on this host"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        hosts(home, f"127.0.0.1:{port}")
        check = settings.processes(home)
        assert not check.ok and f"another program has port {port}" in check.found
        assert "launch.rendezvous" in check.advice
    assert settings.processes(home).ok
    hosts(home, "no-such-host.invalid:29500")
    check = settings.processes(home)
    assert not check.ok and "no-such-host.invalid is not known here" in check.found


def test_a_rank_on_a_card_is_nobody_elses_process() -> None:
    """A child's child, as an agent's rank is."""
    code = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    with subprocess.Popen([sys.executable, "-c", code], process_group=0) as agent:
        try:
            import psutil

            def children() -> list[psutil.Process]:
                return psutil.Process(agent.pid).children()

            rank = wait_until(children)[0]
            used = [SimpleNamespace(pid=pid, usedGpuMemory=7) for pid in (os.getpid(), rank.pid, 1)]
            assert [other["pid"] for other in gpus._others(used)] == [1]
        finally:
            os.killpg(agent.pid, 9)
