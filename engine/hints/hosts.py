"""The rule over evaluation hosts: one stands idle while there is something to ask. `host_idle` is
the rule, a pure function; `figures` reads what it needs of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from engine.hints.hint import Hint
from queue_store import jobs, records
from queue_store.config import Config
from queue_store.database import State, open_metrics
from queue_store.heldout import set_files
from queue_store.jobs import JobState
from queue_store.safe import safe_line

IDLE_SECONDS = 1800.0
"""Half an hour: between two versions of a busy day a host is idle for less, and nobody minds."""
STEPS_RAISE, STEPS_KEEP = 1000, 500
"""Steps without an evaluation that raise the hint, and that keep it."""
LOCAL = "local"
"""This machine is no host that stands idle: training has it."""


@dataclass(frozen=True)
class Idle:
    """A host that is reached and has nothing to do since `since`, seconds since the epoch."""

    name: str
    since: float


@dataclass(frozen=True)
class Unasked:
    """What could be asked: verified versions newer than any model that was answered, the newest
    last; `steps` from that model to the head; `waits` a job that waits for another host, in words.
    `why`: what keeps them from being asked, and the mend."""

    versions: tuple[str, ...] = ()
    steps: int = 0
    waits: str = ""
    why: str = ""


def idle(hosts: Any) -> list[Idle]:
    """The idle hosts of a status."""
    return [
        Idle(str(host["name"]), float(host["idle_since"]))
        for host in (hosts if isinstance(hosts, list) else ())
        if isinstance(host, Mapping)
        and host.get("state") == "idle"
        and host.get("name") != LOCAL
        and isinstance(host.get("idle_since"), int | float)
    ]


def host_idle(
    hosts: Sequence[Idle], unasked: Unasked, time: float, held: bool = False
) -> Hint | None:
    """The host that stands idle for the longest, while there is something to ask."""
    if not hosts:
        return None
    longest = min(hosts, key=lambda one: one.since)
    seconds = time - longest.since
    steps = unasked.steps >= (STEPS_KEEP if held else STEPS_RAISE)
    if seconds < IDLE_SECONDS or not (unasked.versions or unasked.waits or steps):
        return None
    if unasked.waits:
        what = unasked.waits
    elif unasked.versions:
        more = f" and {len(unasked.versions) - 1} before it" if len(unasked.versions) > 1 else ""
        what = f"{unasked.versions[-1]}{more} was never asked the evaluation sets"
    else:
        what = f"nothing was asked for {unasked.steps} steps"
    return Hint(
        "host_idle",
        f"host {longest.name} is idle for {_span(seconds)}, and {what}",
        {
            "idle_seconds": round(seconds),
            "versions": len(unasked.versions),
            "steps": unasked.steps,
            "host": longest.name,
        },
        unasked.why,
    )


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def figures(state: State, config: Config) -> Unasked:
    """What could be asked, and why it is not. Reads the store, asks no host."""
    head = records.head(state)
    if head is None:
        return Unasked()
    with closing(open_metrics(state.home)) as db:
        answered = {
            str(row[0])
            for row in db.execute(
                "SELECT DISTINCT model FROM evaluations e WHERE EXISTS"
                " (SELECT 1 FROM answers a WHERE a.evaluation = e.id AND a.complete)"
            )
        }
    open_jobs = jobs.unfinished(state)
    answered |= {job.digest for job in open_jobs}  # it is about to be
    found: list[str] = []
    for row in state.db.execute(
        "SELECT name, weights_digest FROM versions WHERE state = 'verified' AND scope != 'base'"
        " ORDER BY id DESC"
    ):
        if row[1] in answered:
            break
        found.insert(0, str(row[0]))
    last = 0
    for row in state.db.execute(
        "SELECT step, weights_digest FROM checkpoints WHERE branch = ? ORDER BY id DESC",
        (head.branch,),
    ):
        if row[1] in answered:
            last = int(row[0])
            break
    steps = max(0, head.checkpoint.step - last)
    waits = next(
        (
            f"{job.told} waits for host {safe_line(job.wanted)}"
            for job in open_jobs
            if job.state is JobState.WAITING and job.wanted
        ),
        "",
    )
    return Unasked(tuple(found), steps, waits, _why(state, config, found, head.checkpoint.name))


def _why(state: State, config: Config, versions: Sequence[str], named: str) -> str:
    """What keeps the newest version, or the checkpoints, from being asked; and what to do."""
    rules, home = config.evaluation, state.home
    known = set_files(home)
    newest = versions[-1] if versions else ""
    ask = f"trainctl evaluate {newest or named} --queue asks it now"
    if not [name for name in rules.sets or known if name in known]:
        return f"put an evaluation set into {home.evaluation} (trainctl sets --help)"
    if newest and not rules.versions:
        return f"evaluation.versions is false, so no version is asked by itself; {ask}"
    if newest:
        for job in jobs.ended(state, 50):
            if job.model == newest and job.error:
                return f"its job is {job.state}: {safe_line(job.error)}; {ask}"
        return ask
    if not rules.checkpoint_steps:
        return f"evaluation.checkpoint_steps is 0, so no checkpoint is asked; {ask}"
    return (
        f"evaluation.checkpoint_steps = {rules.checkpoint_steps} says when checkpoints are; {ask}"
    )
