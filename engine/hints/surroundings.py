"""Rules over what is around training: disk, GPUs, queue, inbox, items that failed. Pure functions
of plain figures; see loss for how `held` keeps them from flapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.hints.hint import Hint
from queue_store.failures import Cause, advice

ROOM_AGAIN = 1.1
"""A low disk has room again with a tenth more than the limit: databases move it by less."""

ENDS_SOON, ENDS_LATE = 1800.0, 2700.0
"""Half an hour is time enough to find a file; an estimate that swings to 45 min takes it back."""

FILE_WAITS = 60.0
"""A copy over the network is complete, and quiet, well within a minute after its last byte."""

FAILED_SECONDS = 86400.0
"""A failure is news for a day: who looks once a day sees it."""

MEMORY_CAUSES = (Cause.CUDA_MEMORY, Cause.MEMORY, Cause.OOM_KILLER)
"""Failures of which the memory that was used says something."""

THROTTLE_LOOKS = 12
"""Looks at the clock that count: a minute at one every 5 s."""
THROTTLE_RAISES, THROTTLE_KEEPS = 0.75, 0.25
"""Shares of them held back that raise the hint and that keep it: a short dip is usual."""
SLOWDOWNS: Mapping[str, str] = {
    "sw_thermal_slowdown": "it is too hot",
    "hw_thermal_slowdown": "it is too hot",
    "hw_power_brake_slowdown": "the power supply asks for it",
    "hw_slowdown": "heat or power",
}
"""Reasons that somebody can mend. A card at its power limit under full load works as it should."""


@dataclass(frozen=True)
class Waits:
    """A file in the inbox: `seconds` since it was first seen, `reason` why it is not taken."""

    name: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """An item that failed or was refused at `time`, after so many `tries`. `peak_bytes`: the
    highest memory of its last steps, 0 where not known; `back_to`: the step that the model is back
    at, None where it was not touched or that is not known."""

    id: int
    name: str
    cause: str
    error: str
    time: float
    tries: int = 1
    peak_bytes: int = 0
    back_to: int | None = None


@dataclass(frozen=True)
class Clock:
    """A look at one GPU: why its clock is held back, of SLOWDOWNS; degrees C where known."""

    gpu: int
    reasons: tuple[str, ...]
    temperature: float | None


def disk_low(free: int, limit: int, size: int, folder: str, held: bool = False) -> Hint | None:
    """Less than `limit` bytes are free; `size` bytes is a checkpoint."""
    if free >= limit * (ROOM_AGAIN if held else 1):
        return None
    fits = free // size if size else 0
    return Hint(
        "disk_low",
        f"{free / 1e9:.1f} GB are free on the disk of {folder}, room for {fits} checkpoints",
        {"free_bytes": free, "limit_bytes": limit, "checkpoint_bytes": size, "checkpoints": fits},
        "trainctl prune --dry-run shows what may go; trainctl trash empty gives back what was"
        " removed; snapshots.warn_free says when this speaks",
    )


def queue_nearly_empty(
    waiting: int, eta_seconds: float | None, name: str, held: bool = False
) -> Hint | None:
    """The item in training ends soon, and `waiting` others come after it."""
    if waiting or eta_seconds is None or eta_seconds > (ENDS_LATE if held else ENDS_SOON):
        return None
    minutes = max(1, round(eta_seconds / 60))
    return Hint(
        "queue_nearly_empty",
        f"{name} ends in about {minutes} min, and nothing waits after it",
        {"eta_seconds": round(eta_seconds), "items_waiting": waiting},
        "a (trainctl add FILE) adds a file, or put one into the inbox folder",
    )


def file_waits(files: Sequence[Waits]) -> Hint | None:
    """Files in the inbox that are not taken: the one that waits longest, and why."""
    late = sorted((one for one in files if one.seconds > FILE_WAITS), key=lambda one: -one.seconds)
    if not late:
        return None
    first = late[0]
    more = f" (and {len(late) - 1} more)" if len(late) > 1 else ""
    waits = (
        f"{first.seconds / 60:.0f} min"
        if first.seconds < 7200
        else (f"{first.seconds / 3600:.0f} h")
    )
    return Hint(
        "file_waits",
        f"{first.name} waits in the inbox for {waits}: {first.reason}{more}",
        {"files": len(late), "longest_seconds": round(first.seconds), "name": first.name},
        "trainctl queue --state waiting lists them with their reasons; write a file elsewhere and"
        " move it in, so that it is complete at once",
    )


def item_fails(failed: Sequence[Failed], now: float) -> Hint | None:
    """The newest failure of the last day, with its class and what to do about it."""
    recent = sorted(
        (one for one in failed if now - one.time <= FAILED_SECONDS), key=lambda one: -one.time
    )
    return failing(recent[0], len(recent)) if recent else None


def failing(item: Failed, count: int = 1) -> Hint:
    """The hint of one failed try; `count` items are in this state."""
    more = f" (and {count - 1} more)" if count > 1 else ""
    what = f"{item.cause}: {item.error}" if item.error and item.error != item.cause else item.cause
    again = f"r in the queue (trainctl retry {item.id}) queues it again"
    if item.cause == "rejected":
        again = f"x in the queue (trainctl remove {item.id}) takes it off the list"
    told = advice(Cause.DATA if item.cause == "rejected" else item.cause)
    figures: dict[str, int | float | str] = {
        "item": item.id,
        "cause": item.cause,
        "tries": item.tries,
        "items": count,
    }
    if item.peak_bytes and item.cause in MEMORY_CAUSES:
        what += f"; peak of its steps {item.peak_bytes / 1e9:.1f} GB"
        figures["peak_bytes"] = item.peak_bytes
    if item.back_to is not None:
        what += f"; the model is back at step {item.back_to}"
        figures["back_to_step"] = item.back_to
    return Hint(
        "item_fails",
        f"{item.name}: {what}{more}",
        figures,
        "; ".join(part for part in (told, again) if part),
        since_time=item.time,
    )


def clocks(gpus: Any) -> list[Clock]:
    """What the status tells of the clocks of its GPUs; nothing where it does not."""
    found = []
    for place, gpu in enumerate(gpus if isinstance(gpus, list) else ()):
        reasons = gpu.get("throttle") if isinstance(gpu, Mapping) else None
        if isinstance(reasons, list):
            heat = gpu.get("temperature")
            degrees = float(heat) if isinstance(heat, int | float) else None
            mended = tuple(str(one) for one in reasons if one in SLOWDOWNS)
            found.append(Clock(place, mended, degrees))
    return found


def gpu_throttles(looks: Sequence[Sequence[Clock]], held: bool = False) -> Hint | None:
    """`looks` at all GPUs, oldest first: the GPU that was held back in most of the newest ones."""
    recent = list(looks)[-THROTTLE_LOOKS:]
    if len(recent) < THROTTLE_LOOKS:
        return None
    slow: dict[int, list[Clock]] = {}
    for look in recent:
        for clock in look:
            if clock.reasons:
                slow.setdefault(clock.gpu, []).append(clock)
    if not slow:
        return None
    gpu, times = max(slow.items(), key=lambda one: len(one[1]))
    share = len(times) / len(recent)
    if share < (THROTTLE_KEEPS if held else THROTTLE_RAISES):
        return None
    reason = times[-1].reasons[0]
    heat = times[-1].temperature
    at = f" at {heat:.0f} °C" if heat is not None else ""
    figures: dict[str, int | float | str] = {
        "gpu": gpu,
        "slow_percent": round(100 * share),
        "reason": reason,
    }
    if heat is not None:
        figures["temperature_celsius"] = heat
    return Hint(
        "gpu_throttles",
        f"GPU {gpu} is held back{at}: {SLOWDOWNS[reason]} ({reason}), {100 * share:.0f} % of the"
        " last minute",
        figures,
        "look at its fans, the air around it and its power cables; nvidia-smi -q -d PERFORMANCE"
        " tells more",
    )


def paused(step: int | None = None, since: float | None = None) -> Hint:
    """Training is paused, at `step` where that is known."""
    at = f" at step {step}" if step is not None else ""
    return Hint(
        "paused",
        f"paused{at}: nothing trains until it is resumed",
        {} if step is None else {"step": step},
        "p (trainctl resume) goes on",
        since_step=step,
        since_time=since,
    )
