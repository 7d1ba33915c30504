"""The best version on the hosts that ask for it ([hosts.NAME] deploy = "best").

Every byte is read there before the host's `best` leads to it. A host that is down costs the others
nothing: its reason is told once in the journal, and it is tried again, later and later. What was
deployed is looked at again once a day, for a host's disk may have been emptied.
"""

from __future__ import annotations

from typing import Any

from engine.judging.deployed import hints, remember, remembered, wanting
from engine.judging.evaluating import model, weights_of
from evaluation.host import memory
from evaluation.host.errors import HostFailure
from evaluation.host.machine import machine
from evaluation.host.session import Session
from evaluation.host.shipping import Progress
from queue_store import journal
from queue_store.config import Config
from queue_store.database import State, now
from queue_store.errors import NotFound, Refused, TrainctlError
from queue_store.programs import BrokenOff, Cancelled, never
from snapshots import labels
from snapshots.versions import Version

Json = dict[str, Any]
RETRY_SECONDS, RETRY_MOST = 60.0, 3600.0
DAY = 86400.0
ASKS = 'deploy = "best"'


def deploy(
    state: State,
    config: Config,
    name: str | None = None,
    *,
    cancelled: Cancelled = never,
    progress: Progress | None = None,
) -> list[Json]:
    """Bring the best version to the host `name`, or to all that ask: [{host, version, digest,
    error}], what went wrong at one as its `error`.

    Raises NotFound (no such host, no version is tagged best), Refused (nobody asks for it).
    """
    if name is not None and name not in config.hosts:
        known = ", ".join(config.hosts) or "none is configured"
        raise NotFound(f"no host {name}", mend=f"in config.toml: {known}")
    chosen = [host for host in wanting(config) if name in (None, host)]
    if not chosen:
        who = "no host asks" if name is None else f"{name} does not ask"
        raise Refused(f"{who} for the best version", mend=f"[hosts.NAME] {ASKS} in config.toml")
    best = labels.best(state)
    if best is None:
        raise NotFound(
            "no version is tagged best", mend="trainctl evaluate decides; or trainctl tag V best"
        )
    found = []
    for host in chosen:
        error = ""
        try:
            _bring(state, config, host, best, cancelled, progress)
        except BrokenOff:
            raise
        except (TrainctlError, OSError) as failure:
            error = str(failure)
            if not isinstance(failure, HostFailure) or failure.code != "busy":
                _failed(state, host, best, error)
        told = {"host": host, "version": best.name, "digest": best.weights_digest}
        found.append({**told, "error": error})
    return found


def look_after(state: State, config: Config, cancelled: Cancelled) -> list[str]:
    """What is due: for the engine's keeper, every minute. Returns a line for each host that does
    not have the best version for another reason than being at work."""
    best = labels.best(state) if wanting(config) else None
    if best is None:
        return []
    for host in wanting(config):
        known = remembered(state, host)
        same = known.get("digest") == best.weights_digest
        fresh = same and now() - known.get("time", 0.0) < DAY
        if not cancelled() and not fresh and known.get("next", 0.0) <= now():
            deploy(state, config, host, cancelled=cancelled)
    return hints(state, config)


def _bring(
    state: State,
    config: Config,
    host: str,
    best: Version,
    cancelled: Cancelled,
    progress: Progress | None,
) -> None:
    of = model(state, config, best.name)
    packed = memory.packed(state, weights_of(state, config, of), cancelled=cancelled)
    about = {"version": best.name, "weights_digest": best.weights_digest}
    with Session(machine(state.home, config.hosts, host), who="trainctl hosts deploy") as session:
        session.deploy(packed, about, cancelled=cancelled, progress=progress)
    before = remembered(state, host)
    with state.transaction():
        told = {"host": host, "version": best.name, "digest": best.weights_digest}
        if before.get("digest") != best.weights_digest or before.get("error"):
            text = f"{best.name} is deployed on {host}, read back there"
            place = {"branch": best.branch, "step": best.step}
            journal.record(state, "best.deployed", text, data=told, **place)
        remember(state, host, {"digest": best.weights_digest, "version": best.name, "time": now()})


def _failed(state: State, host: str, best: Version, why: str) -> None:
    """Told once in the journal while the reason stays the same; the next try comes later."""
    known = remembered(state, host)
    failures = int(known.get("failures", 0)) + 1
    wait = min(RETRY_SECONDS * 2 ** min(failures - 1, 20), RETRY_MOST)
    with state.transaction():
        if known.get("error") != why:
            text = f"{best.name} could not be deployed on {host}: {why}"
            journal.record(state, "best.undeployed", text, data={"host": host})
        tries = {"error": why, "failures": failures, "next": now() + wait}
        remember(state, host, {**known, **tries})
