"""Evaluation jobs and hosts in the JSON shapes that faces and scripts rely on.

A job: `id, model, digest, step, branch, sets[], reason, priority, state, wanted, host, items,
answered, errors, created, started, ended, tries, next_try, deadline, error`. A host: see
engine.loop.hostboard. What is not known is {"unknown": why}. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.messages import is_unknown, known
from queue_store import jobs
from queue_store.database import State
from queue_store.jobs import TAKEN, Job, JobState

Json = dict[str, Any]


def job_json(job: Job, *, live: bool = True) -> Json:
    """One job. `live`: an engine runs; without one nobody has it, and it waits."""
    taken = job.state in TAKEN
    state = JobState.WAITING if taken and not live else job.state
    waits = state == JobState.WAITING
    return {
        "id": job.id,
        "model": job.model,
        "digest": job.digest,
        "step": known(job.step, "the model's step is not known"),
        "branch": known(job.branch, "the model's branch is not known"),
        "sets": list(job.sets),
        "reason": str(job.reason),
        "priority": job.priority.word,
        "state": str(state),
        "wanted": job.wanted,
        "host": known(job.host or None, "no host has had it yet"),
        "items": known(job.items, "not counted yet"),
        "answered": job.answered,
        "errors": job.errors,
        "created": job.created,
        "started": known(job.started, "not begun yet"),
        "ended": known(job.ended, "it has not ended"),
        "tries": job.tries,
        "next_try": known(job.next_try or None, "as soon as a host is idle")
        if waits
        else known(None, f"it is {state}"),
        "deadline": known(job.deadline, "it has none"),
        "error": job.error,
    }


def listed(state: State, ended: int) -> list[Job]:
    """The jobs that have not ended, in the order of their turns, then the newest ended ones."""
    return [*jobs.unfinished(state), *jobs.ended(state, ended)]


def joined(found: Iterable[Job], status: Json) -> Json:
    """{jobs, hosts}: the jobs with how far those that run are by an engine's status, and its
    hosts."""
    rows = [job_json(job, live=status["engine"] is not None) for job in found]
    evaluation = status.get("evaluation")
    running = [] if not isinstance(evaluation, dict) else evaluation.get("running", [])
    by = {one["id"]: one for one in running}
    for row in rows:
        live = by.get(row["id"])
        if live is None or row["state"] not in TAKEN:
            continue
        for key in ("items", "answered"):
            if not is_unknown(live[key]):
                row[key] = live[key]
    return {"jobs": rows, "hosts": status["hosts"]}
