"""Answers to the commands about evaluation jobs: on threads of the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.reading import jobrows
from engine.reading.views import Views
from queue_store import config, jobs
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


HANDLERS: dict[str, Callable[..., Any]] = {
    "jobs": listed,
    "evaluate": evaluate,
    "cancel_job": cancel,
}
