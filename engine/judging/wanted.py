"""Which evaluation jobs are to be made: after an item, every so many steps, for each version, the
base model once, and what a person orders.

It looks at the store alone, so training pays nothing for it; marks in the database say up to where
it has looked, so that nothing is missed over a restart and nothing asked twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluation.host.machine import LOCAL
from queue_store import jobs, records
from queue_store.config import Config
from queue_store.database import State, now
from queue_store.errors import NotFound, Refused
from queue_store.heldout import set_files
from queue_store.home import Home
from queue_store.items import Priority
from queue_store.jobs import Job, Reason
from snapshots import named, versions

MARKS = "jobs.marks"
ITEM_DONE = "item.done"


@dataclass(frozen=True)
class Marks:
    """Up to where the store was looked at: an event, a version, the head's branch and step; and
    with which base model and sets a baseline was ordered last."""

    event: int = 0
    version: int = 0
    branch: int = 0
    step: int = 0
    baseline: str = ""


def places(config: Config) -> list[str]:
    """Where jobs can go, in the order in which they are tried: the hosts, or this machine."""
    return list(config.hosts) or ([LOCAL] if config.evaluation.local else [])


def look(state: State, config: Config) -> list[Job]:
    """Make the jobs that [evaluation] wants for what came since the last look."""
    before = Marks(**state.meta_get(MARKS, {}))
    made: list[Job] = []
    head = records.head(state)
    if head is None:
        return made
    names = _sets(state.home, config)
    wanted, rules = bool(names and places(config)), config.evaluation
    after = replace(before, branch=head.branch, step=head.checkpoint.step)

    def add(of: named.Named, reason: Reason, priority: Priority = Priority.NORMAL) -> None:
        made.append(_add(state, config, of, names, reason, priority))

    with state.transaction():
        row = state.db.execute(
            "SELECT MAX(seq), SUM(kind = ?) FROM events WHERE seq > ?", (ITEM_DONE, before.event)
        ).fetchone()
        after = replace(after, event=row[0] or before.event)
        if wanted and head.checkpoint.kind != "base":
            if rules.after_item and row[1]:
                add(named.named(state, head.checkpoint.name), Reason.ITEM)
            elif config.hosts and _due(before, after, rules.checkpoint_steps):
                add(named.named(state, head.checkpoint.name), Reason.CHECKPOINT, Priority.LOW)
        for version in versions.versions(state):
            if version.id <= before.version:
                continue
            if version.state == "unverified":
                break  # soon: whether it is good is being looked at
            after = replace(after, version=version.id)
            good = version.state == "verified" and version.scope != versions.BASE
            if wanted and rules.versions and good:
                add(named.named(state, version.name), Reason.VERSION)
        if wanted and rules.baseline:
            base = named.named(state, named.BASE)
            key = f"{base.digest} {_seen(state.home, names)}"
            if key != before.baseline:
                after = replace(after, baseline=key)
                add(base, Reason.BASELINE)
        if after != before:
            state.meta_set(MARKS, asdict(after))
    return made


def order(
    state: State,
    config: Config,
    model: str | None = None,
    sets: Sequence[str] = (),
    priority: Priority = Priority.HIGH,
    host: str = "",
) -> Job:
    """The job that a person asks for; by default the newest verified version and [evaluation]
    sets. Raises NotFound (model, set, host), Refused."""
    from engine.judging import evaluating

    found = evaluating.model(state, config, model)
    known = set_files(state.home)
    names = list(dict.fromkeys(sets)) or _sets(state.home, config)
    for name in names:
        if name not in known:
            listed = f"known: {', '.join(known) or 'none'}"
            raise NotFound(
                f"no evaluation set {name!r}", where=str(state.home.evaluation), mend=listed
            )
    if not names:
        where = str(state.home.evaluation)
        raise NotFound("no evaluation set", where=where, mend="see trainctl sets --help")
    if host and host != LOCAL and host not in config.hosts:
        listed = ", ".join(config.hosts) or "none is configured"
        raise NotFound(f"no host {host}", mend=f"in config.toml: {listed}")
    if not places(config):
        raise Refused(
            "there is nowhere to evaluate",
            where="evaluation.local",
            mend='name a host in [hosts], or set evaluation.local = "cpu"',
        )
    step, branch = (one if isinstance(one, int) else None for one in (found.step, found.branch))
    of = named.Named(found.name, found.digest, None, step, branch)
    return _add(state, config, of, names, Reason.DEMAND, priority, host)


def _add(
    state: State,
    config: Config,
    of: named.Named,
    sets: Sequence[str],
    reason: Reason,
    priority: Priority,
    host: str = "",
) -> Job:
    minutes = config.evaluation.deadline_minutes
    return jobs.add(
        state,
        model=of.name,
        digest=of.digest,
        step=_number(of.step),
        branch=_number(of.branch),
        sets=sets,
        reason=reason,
        priority=priority,
        host=host,
        deadline=now() + 60 * minutes if minutes else None,
    )


def _due(before: Marks, after: Marks, every: int) -> bool:
    """Whether a multiple of `every` steps was passed; on a new branch it begins anew."""
    same = before.branch == after.branch
    return bool(every) and same and after.step // every > before.step // every


def _sets(home: Home, config: Config) -> list[str]:
    """The sets that jobs ask, of those that are there."""
    known = set_files(home)
    return [name for name in config.evaluation.sets or known if name in known]


def _seen(home: Home, names: Sequence[str]) -> str:
    """What tells that a set changed, without reading it."""
    files = set_files(home)
    found = [(name, files[name].stat()) for name in names]
    return " ".join(f"{name}:{info.st_size}:{info.st_mtime_ns}" for name, info in found)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
