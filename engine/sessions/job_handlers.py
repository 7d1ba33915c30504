"""Answers to the commands about evaluation jobs: on threads of the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.reading import jobrows
from engine.reading.views import Views
from queue_store import config, jobs
from queue_store.heldout import set_files
from queue_store.items import Priority
from queue_store.jobs import Job

Json = dict[str, Any]


def listed(views: Views, ended: int) -> list[Job]:
    """The jobs as the store has them; the dispatcher adds what the engine knows."""
    return jobrows.listed(views.state, ended)


def evaluate(
    views: Views, model: str | None, sets: list[str] | None, priority: str, host: str | None
) -> Json:
    """Order an evaluation; the job."""
    from engine.judging import wanted

    settings = config.load(views.home.config)
    made = wanted.order(views.state, settings, model, sets or (), Priority.of(priority), host or "")
    return jobrows.job_json(made)


def cancel(views: Views, job: int) -> Json:
    """End a job; it, as it is now."""
    return jobrows.job_json(jobs.cancel(views.state, job))


def prioritize(views: Views, job: int, priority: str) -> Json:
    """Let a job take its turn sooner or later; it, as it is now."""
    return jobrows.job_json(jobs.prioritize(views.state, job, Priority.of(priority)))


def sets(views: Views) -> Json:
    """The command `evaluation_sets`: what an evaluation can be asked with: {sets[] (the files of
    evaluation/), wanted[] (those that [evaluation] names, or all), places[] (hosts, or this
    machine), folder}. Reads no set."""
    from engine.judging import wanted

    settings = config.load(views.home.config)
    names = list(set_files(views.home))
    return {
        "sets": names,
        "wanted": [name for name in settings.evaluation.sets or names if name in names],
        "places": wanted.places(settings),
        "folder": str(views.home.evaluation),
    }


HANDLERS: dict[str, Callable[..., Any]] = {
    "jobs": listed,
    "evaluate": evaluate,
    "cancel_job": cancel,
    "job_priority": prioritize,
    "evaluation_sets": sets,
}
