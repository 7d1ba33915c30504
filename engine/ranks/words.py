"""What the engine thread and rank 0 say to each other, as JSON and back.

The engine: `{"do": name, ...}`, answered by `{"done": result}` or `{"failed": error}`, after which
all ranks are as they were; `{"go": ...}` lets a run go on; `{"waiting": bool}` and `{"end": why}`
reach what is being done. Rank 0 tells of a run by `step`, `looking`, `validation`, `samples` and
`at`, of an answer by `grown`; `alive` that its process lives; `{"lost": error}` that a rank has
failed and the launch is of no more use.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from engine.faults import error_from, error_object
from engine.prepare.prepared import Prepared, Sequence
from engine.training.controls import NonFinite, Place, Prompt
from engine.training.failures import Caused, classify
from engine.training.looking import Monitoring
from engine.training.ticks import Monitor
from queue_store.config import Config, Training
from queue_store.errors import ConfigError, DataError, Refused, TrainctlError, VerificationFailed

Json = dict[str, Any]
T = TypeVar("T")
_FAMILY = (ConfigError, DataError, Refused, VerificationFailed)
"""Errors that mean the same at the engine as where they were raised."""


class LaunchFailed(Caused):
    """A rank or its agent failed, died or hangs: all of them are ended. `where` names the rank and
    its host."""

    code = "launch_failed"


def of(kind: type[T], raw: Any) -> T:
    """A dataclass or struct of what `plain` made."""
    return msgspec.convert(raw, kind, strict=False)


def plain(value: Any) -> Any:
    """A dataclass or struct as JSON has it; NaN stays NaN."""
    return msgspec.to_builtins(value, str_keys=True)


# -- errors --------------------------------------------------------------------------------------


def error_words(error: BaseException) -> Json:
    """An exception, for the other side."""
    if isinstance(error, NonFinite):
        return {"kind": "non_finite", "step": error.step, "what": error.what, "value": error.value}
    if isinstance(error, _FAMILY):
        return {"kind": "trainctl", **error_object(error)}
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": "os", "errno": error.errno, "path": str(error.filename or "")}
    cause, message = classify(error)
    return {"kind": "failed", "cause": str(cause), "message": message}


def error_of(said: Json, where: str = "") -> Exception:
    """The reverse of `error_words`; what has no class of its own is a LaunchFailed of `where`."""
    kind = said.get("kind")
    if kind == "non_finite":
        return NonFinite(int(said["step"]), str(said["what"]), float(said["value"]))
    if kind == "trainctl":
        return error_from(said)
    if kind == "os":
        number = int(said.get("errno") or errno.EIO)
        return OSError(number, os.strerror(number), said.get("path") or None)
    return LaunchFailed(str(said.get("cause")), str(said.get("message")), where=where)


def broke(error: BaseException) -> bool:
    """Whether an exception of a collective only tells that another rank is gone."""
    words = str(error)
    marks = ("onnection closed by peer", "onnection reset", "Broken pipe", "imed out", "rank 0: ")
    return isinstance(error, RuntimeError | TrainctlError) and (
        any(mark in words for mark in marks) or "gloo" in words.lower() or "NCCL" in words
    )


def lost(error: BaseException, rank: int) -> Json:
    """What the engine is told of an exception that ends a rank."""
    told = error_words(error)
    return {"rank": rank, "host": host(), "felt": broke(error), "error": told}


def host() -> str:
    return socket.gethostname()


# -- what a run needs ----------------------------------------------------------------------------


def packs(prepared: Prepared) -> Json:
    return {"folder": str(prepared.folder), "part": prepared.part}


def packs_of(said: Json) -> Prepared:
    """The engine has read every byte of it."""
    whole = Prepared.open(Path(said["folder"]))
    return whole if said["part"] == "train" else whole.validation


def monitoring(watch: Monitoring) -> Json:
    """Everything that the ticks of an item look at."""
    return {
        "monitor": watch.monitor.dump(),
        "validation": {name: packs(of_set) for name, of_set in watch.validation.items()},  # type: ignore[arg-type]
        "prompts": [asdict(prompt) for prompt in watch.prompts],
        "max_tokens": watch.max_tokens,
        "expected": {name: _sequence(row) for name, row in watch.expected.items()},
        "schedule": sorted(watch.schedule),
        "answered": [
            [place.branch, place.global_step, sorted(names)]
            for place, names in watch.answered.items()
        ],
    }


def monitoring_of(said: Json) -> Monitoring:
    return Monitoring(
        Monitor.of(said["monitor"]),
        {name: packs_of(raw) for name, raw in said["validation"].items()},
        [of(Prompt, raw) for raw in said["prompts"]],
        int(said["max_tokens"]),
        {name: _sequence_of(raw) for name, raw in said["expected"].items()},
        frozenset(said["schedule"]),
        {Place(branch, step): set(names) for branch, step, names in said["answered"]},
    )


def _sequence(row: Sequence) -> list[Any]:
    arrays = (row.input_ids, row.trained, row.position_ids)
    return [*(np.asarray(array).tolist() for array in arrays), list(row.lines)]


def _sequence_of(raw: list[Any]) -> Sequence:
    ids, trained, positions, lines = raw
    return Sequence(
        np.array(ids, dtype=np.int32),
        np.array(trained, dtype=np.bool_),
        np.array(positions, dtype=np.int32),
        tuple(lines),
    )


def config_of(raw: Json) -> Config:
    return msgspec.convert(raw, Config)


def training_of(raw: Json) -> Training:
    return msgspec.convert(raw, Training)
