"""Retention: which versions the rules keep, and the removal of those that none keeps.

Rules are ORed and every version says why it stays. By number, day, week and score only verified
ones count, in the order of their ids, never of their names; times of the future are ignored. A
candidate goes only where a newer version was verified within a day.
Must never keep fewer than two verified versions, nor run with no rule at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from queue_store import durable, jobs, records, tallies
from queue_store.database import State, now, open_metrics
from queue_store.errors import Refused, VerificationFailed
from snapshots import removal, versions
from snapshots.checkpoints import folder_of
from snapshots.removal import LATEST, PERSON
from snapshots.upkeep import kept_checkpoints
from snapshots.versions import BEST, IMPORTED, MERGED, WEIGHTS, Version, version_folder

if TYPE_CHECKING:
    from queue_store.config import Snapshots

DAY = 86400.0


@dataclass(frozen=True)
class Rules:
    """The policy: how many versions stay as the newest, one a day, one a week, by their scores;
    for how many days what a rollback left stays; and the checkpoints beside them."""

    last: int = 5
    daily: int = 7
    weekly: int = 4
    best: int = 2
    branch_days: float = 7.0
    trash_days: float = 7.0
    checkpoints: int = 5
    best_checkpoints: int = 1

    @staticmethod
    def of(settings: Snapshots) -> Rules:
        """The rules of config.toml's [snapshots]."""
        return Rules(
            last=settings.keep_last,
            daily=settings.keep_daily,
            weekly=settings.keep_weekly,
            best=settings.keep_best_versions,
            branch_days=settings.branch_days,
            trash_days=settings.trash_days,
            checkpoints=settings.keep_checkpoints,
            best_checkpoints=settings.keep_best,
        )

    @property
    def empty(self) -> bool:
        """Whether no rule keeps anything: no policy but a mistake."""
        return not (self.last or self.daily or self.weekly or self.best)


@dataclass(frozen=True)
class Entry:
    """A line of `trainctl prune --dry-run`. `kind`: version or checkpoint; `keep` and why, or why
    it goes; `freed_bytes` what unlinking it gives back."""

    kind: str
    name: str
    keep: bool
    reasons: list[str]
    size_bytes: int
    freed_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def kept_because(state: State, rules: Rules) -> dict[str, list[str]]:
    """For every version, oldest first, the reasons for which it stays; none: a rule may take it."""
    found = versions.versions(state)
    head = records.head(state)
    at = head.checkpoint if head else None
    reasons: dict[str, list[str]] = {version.name: [] for version in found}

    def because(chosen: Iterable[Version], why: str) -> None:
        for version in chosen:
            reasons[version.name].append(why)

    # Imported and merged ones stay by themselves: they must not take the places of those made here.
    own = [v for v in reversed(found) if v.kind not in (IMPORTED, MERGED)]
    good = [v for v in own if v.state == "verified"]
    because((v for v in found if v.pinned), "pinned")
    because((v for v in found if v.kind == IMPORTED), "imported")
    because((v for v in found if v.kind == MERGED), "merged by hand")
    because((v for v in found if at and v.checkpoint == at.id), "head")
    because((v for v in found if at and v.checkpoint == at.parent), "parent of the head")
    for same in (
        [v for v in good if v.scope != WEIGHTS],
        [v for v in good if v.scope == WEIGHTS],
    ):
        because(same[:LATEST], f"latest {LATEST} verified")
        theirs = [v for v in same if v.kind in PERSON]
        because(theirs[:LATEST], f"latest {LATEST} verified that somebody made")
    because(good[: rules.last], f"last {rules.last}")
    because(_per(good, "%Y-%m-%d", rules.daily), f"daily, {rules.daily} days")
    because(_per(good, "%G-W%V", rules.weekly), f"weekly, {rules.weekly} weeks")
    because((v for v in found if BEST in v.tags), f"tagged {BEST}")
    shares = _shares(state, good)
    scored = sorted((v for v in good if v.id in shares), key=lambda v: (-shares[v.id], -v.id))
    because(scored[: rules.best], f"best {rules.best} by score")
    if len(scored) < rules.best:  # so few were evaluated
        measured = [v for v in good if v.val_loss is not None and v.id not in shares]
        lowest = sorted(measured, key=lambda v: (v.val_loss or 0.0, -v.id))
        because(lowest[: rules.best - len(scored)], f"best {rules.best} by validation loss")
    left = _left_lately(state, rules.branch_days)
    why = f"on a branch left within {rules.branch_days:g} days"
    because((v for v in found if v.checkpoint in left), why)
    asked = jobs.needed(state)
    because((v for v in found if v.name in asked), "an evaluation job needs it")
    because((v for v in found if v.state == "unverified"), "not verified yet")
    because((v for v in found if v.state == "corrupt"), "damaged: for a person to look at")
    because((v for v in found if v.state == versions.DELETING), "on its way to the trash")
    return reasons


def _left_lately(state: State, days: float) -> set[int]:
    """The checkpoints of the lines that a fork took out of the model less than `days` ago: each
    fork on its own, so that going back every week does not keep every old branch for ever."""
    rows = state.db.execute("SELECT id, parent, branch FROM checkpoints ORDER BY id").fetchall()
    came_from = {row["id"]: row["parent"] for row in rows}
    tip = {row["branch"]: row["id"] for row in rows}  # a branch that was left never grows again

    def line(checkpoint: int | None) -> set[int]:
        found: set[int] = set()
        while checkpoint is not None and checkpoint not in found:
            found.add(checkpoint)
            checkpoint = came_from.get(checkpoint)
        return found

    forks = state.db.execute("SELECT * FROM branches ORDER BY id").fetchall()
    started = {fork["id"]: fork["checkpoint"] for fork in forks}
    at = records.head(state)
    ours = line(at.checkpoint.id) if at else set()
    left: set[int] = set()
    for fork in forks:
        if fork["parent"] is None or now() - fork["created"] >= days * DAY:
            continue
        end = tip.get(fork["parent"], started.get(fork["parent"]))
        left |= line(end) - line(fork["checkpoint"])
    return left - ours


def _shares(state: State, among: Collection[Version]) -> dict[int, float]:
    """By a version's id the share of its held-out answers that are right, of those that were asked
    the same questions: shares of others could not be ranked."""
    if not state.home.metrics_db.exists():
        return {}
    digests = {version.weights_digest for version in among}
    with closing(open_metrics(state.home)) as metrics:
        asked = tallies.alike(tallies.tallies(metrics, digests), digests)
    shares = {
        digest: sum(one.right for one in mine) / sum(one.n for one in mine)
        for digest, mine in asked.items()
    }
    return {v.id: shares[v.weights_digest] for v in among if v.weights_digest in shares}


def _per(newest_first: list[Version], period: str, count: int) -> list[Version]:
    """The newest version of each of the `count` latest days or weeks; future times are ignored."""
    chosen: dict[str, Version] = {}
    for version in newest_first:
        if version.created <= time.time():
            chosen.setdefault(time.strftime(period, time.localtime(version.created)), version)
    return list(chosen.values())[:count]


def plan(state: State, rules: Rules) -> list[Entry]:
    """What `prune` would do, versions first, oldest first, each with its reasons. Reads no bytes.
    Raises Refused for an empty policy."""
    _refuse_empty(rules)
    entries = []
    reasons = kept_because(state, rules)
    for version in versions.versions(state):
        why = reasons[version.name]
        keep = bool(why)
        if not keep:
            newer = removal.recently_verified_after(state, version)
            note = "" if newer else ", once a newer one is verified again"
            why = [f"no rule keeps it{note}"]
        folder = version_folder(state.home, version)
        freed = durable.freed_bytes(folder)
        entries.append(Entry("version", version.name, keep, why, version.size_bytes, freed))
    kept = kept_checkpoints(state, keep=rules.checkpoints, keep_best=rules.best_checkpoints)
    for checkpoint_id, why in kept.items():
        found = records.checkpoint(state, checkpoint_id)
        freed = durable.freed_bytes(folder_of(state.home, found))
        because = why or ["no rule keeps it"]
        entries.append(Entry("checkpoint", found.name, bool(why), because, found.size_bytes, freed))
    return entries


def prune(
    state: State, rules: Rules, *, stop: threading.Event | None = None
) -> list[dict[str, Any]]:
    """Move the versions that no rule keeps to the trash, oldest first. Returns [{name, removed,
    why}]: what was in the way of the others. Raises Refused for an empty policy."""
    _refuse_empty(rules)
    told: list[dict[str, Any]] = []
    for name, why in kept_because(state, rules).items():
        if why or (stop is not None and stop.is_set()):
            continue
        # Asked again for each: what went before, or a person, may have changed the answer.
        if kept_because(state, rules).get(name):
            continue
        try:
            verify_newer(state, versions.get(state, name), stop=stop)
            removal.delete(state, name, why="no rule keeps it", days=rules.trash_days, stop=stop)
        except (Refused, VerificationFailed) as error:
            told.append({"name": name, "removed": False, "why": error.what})
        else:
            told.append({"name": name, "removed": True, "why": "no rule keeps it"})
    return told


def verify_newer(state: State, version: Version, *, stop: threading.Event | None) -> None:
    """Have a version that is newer than this one verified within a day. Raises Refused where
    none can be."""
    if removal.recently_verified_after(state, version):
        return
    for newer in reversed(versions.versions(state)):
        if newer.id <= version.id or newer.state != "verified":
            continue
        try:
            versions.verify(state, newer.name, stop=stop)
        except VerificationFailed:
            continue
        return
    raise Refused(f"{version.name} stays: no newer version is good")


def _refuse_empty(rules: Rules) -> None:
    if rules.empty:
        raise Refused(
            "no rule would keep any version",
            where="snapshots.keep_last, keep_daily, keep_weekly, keep_best_versions",
            mend="set one of them above 0",
        )
