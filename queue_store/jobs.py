"""Evaluation jobs: one row each, durable, every move in one transaction with its event.

A job asks one model (named, and known by its weights' digest) the sets of the home. It waits,
ships its model's weights, runs, and ends; what breaks puts it back to waiting, and what was
answered stays answered. The newest wins: a job that waits for an older model is superseded.
Must never take a model for another: the digest of a job stays what it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from queue_store import journal
from queue_store.database import State, now
from queue_store.errors import NotFound, Refused
from queue_store.items import Priority


class JobState(StrEnum):
    WAITING = "waiting"
    SHIPPING = "shipping"
    """A process has it: the model is on its way to the host, and loaded there."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Reason(StrEnum):
    """Why a job was made; what keeps a job from being superseded stands last."""

    CHECKPOINT = "checkpoint"
    ITEM = "item"
    VERSION = "version"
    BASELINE = "baseline"
    DEMAND = "demand"


S = JobState
OPEN = (S.WAITING, S.SHIPPING, S.RUNNING)
TAKEN = (S.SHIPPING, S.RUNNING)
ENDED = (S.DONE, S.FAILED, S.CANCELLED, S.SUPERSEDED)
ALLOWED: dict[JobState, frozenset[JobState]] = {
    S.WAITING: frozenset({S.SHIPPING, S.FAILED, S.CANCELLED, S.SUPERSEDED}),
    S.SHIPPING: frozenset({S.RUNNING, S.WAITING, *ENDED}),
    S.RUNNING: frozenset({S.WAITING, *ENDED}),
    **{ended: frozenset() for ended in ENDED},
}
"""The moves that may be made; `move` is the one place that makes them."""

YIELDS = {
    Reason.ITEM: (Reason.ITEM, Reason.CHECKPOINT),
    Reason.CHECKPOINT: (Reason.ITEM, Reason.CHECKPOINT),
    Reason.VERSION: (Reason.ITEM, Reason.CHECKPOINT, Reason.VERSION),
}
"""Which waiting jobs a new one takes the place of. A checkpoint that comes every few minutes
must not keep a version for ever from its turn, so that one yields to versions alone."""


@dataclass(frozen=True)
class Job:
    """`wanted` is the host that was asked for ("" = any), `host` the one that has or had it.
    `items`, `answered` and `errors` count those of all its sets; items is None until a process
    counted them. `failures` are tries in a row that brought no answer and were not the host's
    doing. Times are seconds since the epoch; `next_try` 0 is at once, `deadline` None is never."""

    id: int
    model: str
    digest: str
    step: int | None
    branch: int | None
    sets: tuple[str, ...]
    reason: Reason
    priority: Priority
    state: JobState
    wanted: str
    host: str
    items: int | None
    answered: int
    errors: int
    created: float
    started: float | None
    ended: float | None
    tries: int
    failures: int
    next_try: float
    deadline: float | None
    error: str

    @property
    def told(self) -> str:
        """The job in the words of an event."""
        return f"evaluation {self.id} of {self.model}"


def _job(row: sqlite3.Row) -> Job:
    return Job(
        **{
            **dict(row),
            "sets": tuple(orjson.loads(row["sets"])),
            "reason": Reason(row["reason"]),
            "priority": Priority(row["priority"]),
            "state": JobState(row["state"]),
        }
    )


# -- reading -----------------------------------------------------------------------------------


def get(state: State, job: int) -> Job:
    """The job of that id. Raises NotFound."""
    row = state.db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
    if row is None:
        raise NotFound(f"no evaluation job {job}", mend="trainctl jobs lists them")
    return _job(row)


def unfinished(state: State, *of: JobState) -> list[Job]:
    """The jobs that have not ended (of these states alone, where some are named), in the order in
    which they take their turns."""
    marks = ",".join("?" * len(of or OPEN))
    rows = state.db.execute(
        f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY priority, id", of or OPEN
    )
    return [_job(row) for row in rows]


def ended(state: State, limit: int) -> list[Job]:
    """The newest ended jobs, newest first."""
    rows = state.db.execute(
        f"SELECT * FROM jobs WHERE state IN ({','.join('?' * len(ENDED))})"
        " ORDER BY ended DESC, id DESC LIMIT ?",
        (*ENDED, limit),
    )
    return [_job(row) for row in rows]


def needed(state: State) -> set[str]:
    """The names of the models that a job waits for or asks now: their weights must stay."""
    marks = ",".join("?" * len(OPEN))
    rows = state.db.execute(f"SELECT DISTINCT model FROM jobs WHERE state IN ({marks})", OPEN)
    return {str(row[0]) for row in rows}


# -- moves -------------------------------------------------------------------------------------


def move(
    state: State,
    job: int,
    to: JobState,
    text: str,
    *,
    data: dict[str, Any] | None = None,
    **columns: Any,
) -> Job:
    """Move a job to another state, set `columns`, and journal it as `evaluation.<state>`.

    Raises Refused for a move that ALLOWED does not have (it ended meanwhile, say), NotFound.
    """
    with state.transaction() as db:
        found = get(state, job)
        if to not in ALLOWED[found.state]:
            raise Refused(f"{found.told} is {found.state} and cannot become {to}")
        values = {"state": to.value, **columns}
        if to in ENDED:
            values["ended"] = now()
        sets = ", ".join(f"{name} = ?" for name in values)
        db.execute(f"UPDATE jobs SET {sets} WHERE id = ?", (*values.values(), job))
        _tell(state, found, to, text, data)
        return get(state, job)


def _tell(
    state: State, job: Job, to: JobState, text: str, data: dict[str, Any] | None = None
) -> None:
    journal.record(
        state,
        f"evaluation.{to.value}",
        text,
        branch=job.branch,
        step=job.step,
        data={"job": job.id, "model": job.model, "digest": job.digest, **(data or {})},
    )


def add(
    state: State,
    *,
    model: str,
    digest: str,
    step: int | None,
    branch: int | None,
    sets: Sequence[str],
    reason: Reason,
    priority: Priority = Priority.NORMAL,
    host: str = "",
    deadline: float | None = None,
) -> Job:
    """A job that waits, and those superseded whose place it takes. Where the same is asked of the
    same model already, that job, with the higher priority of the two and the stronger reason."""
    with state.transaction() as db:
        same = _same(state, digest, sets, host)
        if same is not None:
            order = list(Reason)
            if order.index(reason) > order.index(same.reason):
                # Under the new name, too: that of a version says whether it is pinned.
                db.execute(
                    "UPDATE jobs SET reason = ?, model = ? WHERE id = ?",
                    (reason.value, model, same.id),
                )
            db.execute(
                "UPDATE jobs SET priority = ? WHERE id = ?",
                (min(priority, same.priority), same.id),
            )
            return get(state, same.id)
        cursor = db.execute(
            "INSERT INTO jobs(model, digest, step, branch, sets, reason, priority, state, wanted,"
            " created, deadline) VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(model, digest, step, branch, orjson.dumps(list(sets)).decode()),
                *(reason.value, int(priority), S.WAITING.value, host, now(), deadline),
            ),
        )
        made = get(state, int(cursor.lastrowid or 0))
        _tell(state, made, S.WAITING, f"{made.told} waits ({reason}): {', '.join(sets)}")
        for older in unfinished(state, S.WAITING):
            if older.id < made.id and older.reason in YIELDS.get(reason, ()):
                if _pinned(state, older.model):
                    continue
                supersede(state, older.id, f"{model} is newer")
        return made


def _same(state: State, digest: str, sets: Sequence[str], host: str) -> Job | None:
    for job in unfinished(state):
        if (job.digest, job.wanted) == (digest, host) and set(job.sets) == set(sets):
            return job
    return None


def _pinned(state: State, model: str) -> bool:
    row = state.db.execute("SELECT pinned FROM versions WHERE name = ?", (model,)).fetchone()
    return row is not None and bool(row[0])


def claim(state: State, job: int, host: str) -> Job:
    """A waiting job goes to a host. Raises Refused where it waits no more."""
    with state.transaction():
        found = get(state, job)
        return move(
            state,
            job,
            S.SHIPPING,
            f"{found.told} goes to {host}",
            data={"host": host},
            host=host,
            tries=found.tries + 1,
            started=found.started or now(),
        )


def running(state: State, job: int, items: int, answered: int) -> Job:
    """The model is loaded; `answered` of `items` have an answer already."""
    found = get(state, job)
    text = f"{found.told} runs on {found.host}: {items - answered} of {items} items to ask"
    return move(state, job, S.RUNNING, text, items=items, answered=answered)


def done(state: State, job: int, items: int, answered: int, errors: int) -> Job:
    """Every item has an answer, or an error of its own."""
    found = get(state, job)
    text = f"{found.told} is done: {answered} of {items} items answered"
    if errors:
        text += f", {errors} without an answer that counts"
    counts = {"items": items, "answered": answered, "errors": errors}
    return move(state, job, S.DONE, text, data={"host": found.host, **counts}, error="", **counts)


def again(
    state: State, job: int, why: str, *, after: float = 0.0, failures: int = 0, **counts: int
) -> Job:
    """Back to waiting, for `after` seconds: what was answered is kept, the rest asked again.
    `counts`: items, answered, errors, where a process told them."""
    found = get(state, job)
    soon = f" in {after:.0f} s" if after else ""
    return move(
        state,
        job,
        S.WAITING,
        f"{found.told} waits again{soon}: {why}",
        data={"error": why, "host": found.host, "tries": found.tries},
        error=why,
        next_try=now() + after if after else 0.0,
        failures=failures,
        **counts,
    )


def fail(state: State, job: int, why: str, **counts: int) -> Job:
    """A job ends without all its answers; those that came stay."""
    text = f"{get(state, job).told} failed: {why}"
    return move(state, job, S.FAILED, text, data={"error": why}, error=why, **counts)


def supersede(state: State, job: int, why: str) -> Job:
    """A job ends because nobody needs it any more, or nobody can do it: its model is gone."""
    text = f"{get(state, job).told} is superseded: {why}"
    return move(state, job, S.SUPERSEDED, text, error=why)


def cancel(state: State, job: int) -> Job:
    """A person ends a job, at any time; the process that has it sees that and ends. What was
    answered stays. Raises NotFound, Refused where it has ended."""
    found = get(state, job)
    if found.state in ENDED:
        raise Refused(f"{found.told} is {found.state} already", mend="see trainctl jobs")
    return move(state, job, S.CANCELLED, f"{found.told} was cancelled")


def prioritize(state: State, job: int, priority: Priority) -> Job:
    """Another priority for a job that has not ended: no move, and no event. One that is under way
    goes on; should it break off, it waits as the new priority says. Raises NotFound, Refused."""
    with state.transaction() as db:
        found = get(state, job)
        if found.state in ENDED:
            raise Refused(f"{found.told} is {found.state} already", mend="see trainctl jobs")
        db.execute("UPDATE jobs SET priority = ? WHERE id = ?", (int(priority), job))
        return get(state, job)


def postpone(state: State, job: int, why: str, seconds: float) -> None:
    """A job that waits does so for longer, and says why: no move, and no event."""
    with state.transaction() as db:
        db.execute(
            "UPDATE jobs SET error = ?, next_try = ? WHERE id = ? AND state = ?",
            (why, now() + seconds, job, S.WAITING),
        )


def progress(state: State, job: int, answered: int) -> None:
    """How far a running job is: no move, and no event."""
    with state.transaction() as db:
        db.execute(
            "UPDATE jobs SET answered = ? WHERE id = ? AND state = ?", (answered, job, S.RUNNING)
        )


def expire(state: State) -> list[Job]:
    """End the waiting jobs whose deadline is over."""
    late = [
        job
        for job in unfinished(state, S.WAITING)
        if job.deadline is not None and job.deadline <= now()
    ]
    return [fail(state, job.id, overdue(job)) for job in late]


def overdue(job: Job) -> str:
    """Why a job whose deadline is over failed."""
    last = f"; last: {job.error}" if job.error else ""
    return f"not done by its deadline (evaluation.deadline_minutes){last}"


def recover(state: State, held: Collection[int] = ()) -> list[Job]:
    """What a process had that is gone waits again: all that is taken but those `held` by a process
    of this engine. For the engine alone."""
    return [
        again(state, job.id, "its process ended", failures=job.failures)
        for job in unfinished(state, *TAKEN)
        if job.id not in held
    ]
