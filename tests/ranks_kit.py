"""Real processes that train as ranks, under torch elastic's environment on gloo.

They are forked by a server that has imported everything once, so that a group begins at once. A
job is a function of tests/ranks_jobs.py; every rank runs it, and gives back JSON.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.ranks_jobs"])


@dataclass(frozen=True)
class Ended:
    """How a group ended: exit codes (negative: the signal), results and output, by rank."""

    codes: list[int]
    results: list[Any]
    output: list[str]


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _rank(
    job: str,
    rank: int,
    size: int,
    port: int,
    folder: Path,
    sharded: bool,
    arguments: dict[str, Any],
) -> None:
    """The life of one rank's process."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    os.environ.pop("OMP_NUM_THREADS", None)  # torchrun sets it, a person's own launcher may not
    out = os.open(folder / f"out{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
    from tests import ranks_jobs

    try:
        result = ranks_jobs.begin(job, size, sharded, folder, arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # as a process that fails: it waits for nobody
    (folder / f"result{rank}.json").write_text(json.dumps(result))


def start(
    job: str,
    size: int,
    folder: Path,
    *,
    sharded: bool = False,
    timeout: float = 240.0,
    **arguments: Any,
) -> Ended:
    """Run `job` in `size` processes and wait for all. Raises AssertionError where one is still
    there after `timeout` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    processes = [
        _context.Process(target=_rank, args=(job, rank, size, port, folder, sharded, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    late = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for rank in late:
        processes[rank].kill()
        processes[rank].join()
    output = [(folder / f"out{rank}.txt").read_text() for rank in range(size)]
    assert not late, f"ranks {late} did not end: {output}"
    results = []
    for rank in range(size):
        place = folder / f"result{rank}.json"
        results.append(json.loads(place.read_text()) if place.exists() else None)
        place.unlink(missing_ok=True)
    return Ended([p.exitcode or 0 for p in processes], results, output)


def run(job: str, size: int, folder: Path, **arguments: Any) -> list[Any]:
    """The results of a job that every rank ends well."""
    ended = start(job, size, folder, **arguments)
    assert not any(ended.codes), "\n".join(
        f"rank {rank}: exit code {code}\n{text}"
        for rank, (code, text) in enumerate(zip(ended.codes, ended.output, strict=True))
    )
    return ended.results
