"""The shape of the status: one function builds it, for a running engine and without one.

`trainctl status --json`, the snapshot that faces poll and status.json are all this object.
What is not known is {"unknown": why}; only `item` and `engine` may be null.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.messages import EngineState, known, unknown
from queue_store.errors import ConfigError

Number = float | int | dict[str, str] | None


def item_status(
    *,
    id: int,
    name: str,
    priority: str,
    step: int,
    steps: int | None,
    rows: int | None,
    cursor: int,
) -> dict[str, Any]:
    """`item` of the status. `step` and `steps` are the item's own; `cursor` counts trained rows."""
    return {
        "id": id,
        "name": name,
        "priority": priority,
        "step": step,
        "steps": known(steps, "not prepared yet"),
        "rows": known(rows, "not prepared yet"),
        "cursor": cursor,
    }


def engine_status(
    *, pid: Number, supervisor_pid: Number, mode: Any, started: Number
) -> dict[str, Any]:
    """`engine` of the status. `pid` is that of the training process."""
    return {
        "pid": pid,
        "supervisor_pid": known(supervisor_pid, "not supervised"),
        "mode": mode,
        "started": started,
    }


def model_status(
    *,
    name: str,
    method: str,
    dtype: str | None = None,
    device: str | None = None,
    parameters: int | None = None,
    optimizer: Mapping[str, float] | None = None,
    kernels: str | None = None,
    why: str = "the model is not loaded",
) -> dict[str, Any]:
    """`model` of the status; what only a loaded model tells is unknown for the reason `why`.
    `optimizer`: each rule's share of the trained parameters, {"muon": 0.74, "adamw": 0.26}."""
    return {
        "name": name,
        "method": method,
        "dtype": known(dtype, why),
        "device": known(device, why),
        "parameters": known(parameters, why),
        "optimizer": known(optimizer, why),
        "kernels": known(kernels, why),
    }


def optimizer_words(shares: Mapping[str, float]) -> str:
    """For a person: "adamw", or "muon (73.9 %) and adamw (26.1 %)"."""
    if len(shares) == 1:
        return next(iter(shares))
    return " and ".join(
        f"{name} ({share:.1%})".replace("%", " %") for name, share in shares.items()
    )


def not_loaded() -> dict[str, Any]:
    """`processes` of the status while no process holds the model."""
    return unknown("the model is not loaded")


def free_limit(text: str, checkpoint_bytes: int) -> int:
    """Bytes of snapshots.stop_free or warn_free: "1.2" counts in sizes of a checkpoint, "50 GB" in
    bytes (kB, MB, GB, TB of powers of ten). Raises ConfigError."""
    number, _, unit = text.strip().partition(" ")
    sizes = {"": checkpoint_bytes, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    try:
        value = float(number) * sizes[unit.strip()]
    except (ValueError, KeyError):
        value = -1.0
    if not 0 <= value < math.inf:
        raise ConfigError(f"{text!r} is no amount of disk", mend='write "1.2" or "50 GB"')
    return int(value)


def disk_status(folder: Path, checkpoint_bytes: int | None, stop_free: int) -> dict[str, Any]:
    """`disk` of the status, bytes that this user can use on the filesystem of `folder`."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        why = unknown(f"{folder}: {error.strerror}")
        return {"free": why, "total": why, "snapshots_left": why}
    left = snapshots_left(usage.free, checkpoint_bytes, stop_free)
    return {"free": usage.free, "total": usage.total, "snapshots_left": left}


def snapshots_left(free: Any, checkpoint_bytes: int | None, stop_free: int) -> Any:
    """How many more snapshots fit before less than `stop_free` bytes would be left."""
    if not isinstance(free, int):
        return unknown("the free disk is not known")
    if not checkpoint_bytes:
        return unknown("no checkpoint yet to take the size from")
    return max(0, (free - stop_free) // checkpoint_bytes)


def status(
    *,
    state: EngineState,
    branch: int | None,
    global_step: int,
    queue: dict[str, int],
    head_checkpoint: str | None,
    head_version: str | None,
    model: dict[str, Any],
    gpus: Any,
    ram: Any,
    disk: Any,
    engine: dict[str, Any] | None,
    cpu: Any = None,
    process: Any = None,
    item: dict[str, Any] | None = None,
    loss: Number = None,
    val_loss: Number = None,
    learning_rate: Number = None,
    tokens_per_second: Number = None,
    eta_seconds: Number = None,
    why: str = "no step yet",
    hints: Mapping[str, Any] | None = None,
    phase: str = "",
    progress: float | None = None,
    paused: bool = False,
    requests: Sequence[str] = (),
    events_seq: int = 0,
    samples_step: int | None = None,
    samples_due: Mapping[str, Any] | None = None,
    monitoring_share: Number = None,
    processes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The status object. A number that is None is unknown for the reason `why`.

    `queue` counts the items that wait, by priority; `progress` is 0..1 of `phase` (loading,
    preparing); `ahead`, which a running engine fills in, is {id, name, progress} of the queued item
    that is being prepared meanwhile, and so are `hosts` and `evaluation` (engine.loop.hostboard);
    `requests` are commands asked for and not yet done;
    `hints` are the fields `hint` and `hints` (engine.hints.hint.fields);
    `samples_due` is {step, training_seconds} of a sample tick that is put off: since when it is
    due, and how much training the budget still needs before it has room for it;
    `monitoring_share` is the share of wall time that validation and samples take; `processes` is
    {size, kind, nodes, ranks[{rank, host, pid, device, memory}]} of those that hold the model.
    """
    return {
        "state": str(state),
        "branch": known(branch, "no head yet"),
        "global_step": global_step,
        "loss": known(loss, why),
        "val_loss": known(val_loss, "no validation yet"),
        "learning_rate": known(learning_rate, why),
        "tokens_per_second": known(tokens_per_second, why),
        "eta_seconds": known(eta_seconds, why),
        "item": item,
        "queue": {word: queue.get(word, 0) for word in ("high", "normal", "low")},
        "head": {
            "checkpoint": known(head_checkpoint, "no checkpoint yet"),
            "version": known(head_version, "the head is no version"),
        },
        "model": model,
        "gpus": gpus,
        "ram": ram,
        "cpu": known(cpu, "not measured yet"),
        "process": known(process, "not measured yet"),
        "disk": disk,
        "engine": engine,
        **(hints or {"hint": "", "hints": []}),
        "phase": phase,
        "progress": known(progress, "nothing is being prepared"),
        "ahead": unknown("no engine is running"),
        "hosts": unknown("no engine is running"),
        "evaluation": unknown("no engine is running"),
        "paused": paused,
        "requests": list(requests),
        "events_seq": events_seq,
        "samples_step": known(samples_step, "no samples yet"),
        "samples_due": known(samples_due, "no sample tick is put off"),
        "monitoring_share": known(monitoring_share, why),
        "processes": known(processes, "no engine is running"),
    }
