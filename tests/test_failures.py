"""Classes of failures: every end and every exception has a cause, and every cause an advice."""

from __future__ import annotations

import errno
import signal
import sqlite3

import pytest
import torch

from engine.training.controls import NonFinite
from engine.training.failures import classify, ends_process, of_the_machine
from queue_store.errors import DataError
from queue_store.failures import ADVICE, Cause, advice
from trainctl import ends

FULL = sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), Cause.CUDA_MEMORY),
        (MemoryError(), Cause.MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), Cause.MEMORY),
        (RuntimeError("CUDA error: device-side assert triggered"), Cause.CUDA),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Cause.CUDA_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Cause.CUDA),
        (OSError(errno.ENOSPC, "No space left on device"), Cause.DISK_FULL),
        (OSError(errno.EIO, "Input/output error"), Cause.IO),
        (FULL, Cause.DISK_FULL),
        (sqlite3.OperationalError("disk I/O error"), Cause.IO),
        (DataError("no rows"), Cause.DATA),
        (NonFinite(3, "loss", float("nan")), Cause.NOT_A_NUMBER),
        (ZeroDivisionError("division by zero"), Cause.UNKNOWN),
    ],
    ids=str,
)
def test_an_exception_has_the_class_that_its_reader_needs(error, cause) -> None:
    assert classify(error)[0] == cause


@pytest.mark.parametrize(
    "words", ["can't start new thread", "Resource temporarily unavailable"], ids=str
)
def test_too_few_threads_are_the_machines_fault_and_name_the_setting(words) -> None:
    error = RuntimeError(words)
    assert of_the_machine(error)
    assert "training.threads" in classify(error)[1] and ends_process(error, "log") is None


def test_only_what_breaks_the_process_ends_it_and_each_with_its_exit_code() -> None:
    found = ends_process(RuntimeError("CUDA error: an illegal memory access"), "log")
    assert found is not None and found.exit_code == 75
    found = ends_process(OSError(errno.EIO, "Input/output error"), "log")
    assert found is not None and found.exit_code == 74
    for error in (FULL, torch.OutOfMemoryError("x"), OSError(errno.ENOENT, "gone")):
        assert ends_process(error, "log") is None


def test_every_cause_says_what_to_do() -> None:
    for cause in Cause:
        assert advice(cause) or cause == Cause.REFUSED, cause
    assert advice("killed, retried") == ADVICE[Cause.KILLED]


@pytest.mark.parametrize(
    ("code", "oom", "line", "cause"),
    [
        (-signal.SIGKILL, True, "", Cause.OOM_KILLER),
        (-signal.SIGKILL, False, "", Cause.KILLED),
        (-signal.SIGSEGV, False, "x", Cause.UNKNOWN),
        (-signal.SIGABRT, False, "CUDA error: unspecified launch failure", Cause.CUDA),
        (74, False, "fsync: Input/output error", Cause.IO),
        (75, False, "CUDA", Cause.CUDA),
        (70, False, "the engine ended", Cause.UNKNOWN),
        (70, False, "OutOfMemoryError: CUDA out of memory. Tried 2 GiB", Cause.CUDA_MEMORY),
    ],
)
def test_an_end_is_classed_from_outside(code, oom, line, cause) -> None:
    assert ends.classify(code, hung="", oom=oom, last_line=line)[0] == cause


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_the_oom_killer_is_read_from_the_own_control_group(tmp_path, kind) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("pgfault 3\noom_kill 7\n")
    if kind == "v2":
        (proc / "self" / "cgroup").write_text("0::/user.slice/a\n")
        place = groups / "user.slice" / "a" / "memory.events"
    else:
        (proc / "self" / "cgroup").write_text("5:cpu:/\n4:memory:/job\n")
        place = groups / "memory" / "job" / "memory.oom_control"
    place.parent.mkdir(parents=True)
    place.write_text("low 0\noom 1\noom_kill 0\n")
    before = ends.oom_counts(proc, groups)
    assert before == ends.OomCounts(0, 7) and not ends.rose(before, before)
    (proc / "vmstat").write_text("oom_kill 8\n")  # somebody else's
    assert not ends.rose(before, ends.oom_counts(proc, groups))
    place.write_text("low 0\noom 1\noom_kill 1\n")
    assert ends.rose(before, ends.oom_counts(proc, groups))
