"""The commands about evaluation; engine.messages has them among the others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from engine.arguments import Command, Id, Kind, Name, Nothing, Spec, Word


class CompareAnswers(Command, frozen=True):
    first: Name
    second: Name | None = None
    set: Name | None = None
    """One evaluation set alone."""


class ComparedItem(Command, frozen=True):
    first: Id
    second: Id
    """Evaluations, as the sets of compare_answers name them."""
    item: Annotated[str, Meta(min_length=1, max_length=4000)]


class Jobs(Command, frozen=True):
    ended: Annotated[int, Meta(ge=0, le=5000)] = 50
    """How many of the jobs that have ended, the newest first, after all that have not."""


class Evaluate(Command, frozen=True):
    model: Name | None = None
    """A version, tag, checkpoint, digest or "base"; None = the newest verified version."""
    sets: Annotated[list[Name], Meta(max_length=1000)] | None = None
    """Names of evaluation sets; None = those of [evaluation]."""
    priority: Word = "high"
    host: Name | None = None
    """A host of config.toml, or "local"; None = the first that is idle."""


class JobPriority(Command, frozen=True):
    job: Id
    priority: Word


class OneHost(Command, frozen=True):
    host: Name


class HostTrust(Command, frozen=True):
    host: Name
    fingerprint: Annotated[str, Meta(pattern=r"^SHA256:[A-Za-z0-9+/=]{1,100}$")]
    """What a person agreed to."""


class CancelJob(Command, frozen=True):
    job: Id


COMMANDS: dict[str, Spec] = {
    "compare_answers": Spec(CompareAnswers, Kind.LOOK),
    "compared_item": Spec(ComparedItem, Kind.READ),
    "jobs": Spec(Jobs, Kind.READ),
    "evaluate": Spec(Evaluate, Kind.STORE),
    "cancel_job": Spec(CancelJob, Kind.STORE),
    "job_priority": Spec(JobPriority, Kind.STORE),
    "evaluation_sets": Spec(Nothing, Kind.READ),
    "host_look": Spec(OneHost, Kind.LOOK),
    "host_key": Spec(OneHost, Kind.LOOK),
    "host_trust": Spec(HostTrust, Kind.UPKEEP),
}
