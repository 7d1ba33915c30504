"""A hint: which rule speaks, what it says with its figures, and what a person can do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """`level`: bad (training stands or something was lost), warn, info. `reason`: when it speaks,
    for a person who asks why."""

    level: str
    reason: str


RULES: Mapping[str, Rule] = {
    "engine_failed": Rule("bad", "The engine thread ended by itself and trains no more."),
    "held": Rule("bad", "The disk reports errors: reads are served, nothing is written."),
    "not_saved": Rule("bad", "A checkpoint could not be written, and training waits for it."),
    "disk_full": Rule("bad", "A write met a full disk; the item waits, no try of it is counted."),
    "ranks_lost": Rule(
        "bad", "Processes that train together ended, or did not all come up; they are tried again."
    ),
    "room_again": Rule("info", "The disk was full and has room again; training still waits."),
    "item_fails": Rule("bad", "An item failed within the last day, or was refused."),
    "canary": Rule(
        "bad",
        "Not one held-out answer of the newest judged model is right, of ten at least, while its"
        " training loss is under 0.05: template, generation settings or sets do not fit.",
    ),
    "regression": Rule(
        "warn",
        "The newest judged model of this line is worse than the best version on the same held-out"
        " items, beyond chance (exact paired test, adjusted for the number of groups).",
    ),
    "disk_low": Rule(
        "warn",
        "Less is free than snapshots.warn_free; it is over once a tenth more than that is free.",
    ),
    "spike": Rule(
        "warn",
        "The loss of an item left its usual band: at one step to twice the highest of those"
        " before, or for five steps in a row by more than six times the usual spread.",
    ),
    "gap_grows": Rule(
        "warn",
        "Validation loss less the training loss of the same steps has grown, by more than its"
        " uncertainty and a tenth of the loss while validation loss rises, or a quarter of it while"
        " it stands.",
    ),
    "early_stop": Rule(
        "warn",
        "No validation was better by 0.01 than the best one before it, for 500 steps.",
    ),
    "gpu_throttles": Rule(
        "warn", "The driver held the clock of a GPU back most of the last minute."
    ),
    "warning": Rule("warn", "Training goes on, but not in all as it was set."),
    "backup": Rule("warn", "A target of [backups] cannot be used as it is."),
    "deploy": Rule("warn", "A host that asks for the best version could not get it."),
    "file_waits": Rule("warn", "A file is in the inbox for more than a minute and not taken."),
    "plateau": Rule(
        "info",
        "The slope of the training loss over the last steps, its uncertainty included, is below"
        " three per cent of the loss.",
    ),
    "queue_nearly_empty": Rule(
        "info", "The item in training ends within half an hour, and nothing waits after it."
    ),
    "host_idle": Rule(
        "info",
        "A host of [hosts] is idle for half an hour, and a version was never asked the evaluation"
        " sets, a job waits for another host, or nothing was asked for 1000 steps.",
    ),
    "paused": Rule("info", "Training was paused and stays so, over restarts too."),
}
"""All rules, the most important first."""

RANK = {name: place for place, name in enumerate(RULES)}
STANDSTILL = ("engine_failed", "held", "not_saved", "disk_full", "room_again")
"""While one of these speaks, "paused" says nothing new."""

Figure = int | float | str


@dataclass(frozen=True)
class Hint:
    """`figures` are numbers with their unit in the name (and names of things). `since_step` and
    `since_time` tell when what it speaks of began; None: when it was first seen."""

    rule: str
    text: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    advice: str = ""
    since_step: int | None = None
    since_time: float | None = None


def in_order(hints: Iterable[Hint]) -> list[Hint]:
    """One hint a rule (the first of it), the most important first."""
    first: dict[str, Hint] = {}
    for hint in hints:
        first.setdefault(hint.rule, hint)
    if any(rule in first for rule in STANDSTILL):
        first.pop("paused", None)
    return sorted(first.values(), key=lambda hint: RANK[hint.rule])


def shape(hint: Hint, step: int, time: float) -> dict[str, Any]:
    """A hint as the status has it; `step` and `time` stand in where it does not say since when."""
    rule = RULES[hint.rule]
    return {
        "rule": hint.rule,
        "level": rule.level,
        "text": hint.text,
        "figures": dict(hint.figures),
        "reason": rule.reason,
        "advice": hint.advice,
        "since": {
            "step": step if hint.since_step is None else hint.since_step,
            "time": time if hint.since_time is None else hint.since_time,
        },
    }


def fields(hints: Iterable[Hint], step: int, time: float) -> dict[str, Any]:
    """`hint` (the text of the first, "" without one) and `hints` of the status."""
    found = [shape(hint, step, time) for hint in in_order(hints)]
    return {"hint": found[0]["text"] if found else "", "hints": found}
