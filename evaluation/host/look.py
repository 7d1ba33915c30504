"""A look at a host: is it there, what has it, is it busy. Takes no lock and makes nothing there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evaluation.host.errors import HostFailure
from evaluation.host.machine import Machine
from evaluation.host.session import Session
from queue_store.safe import safe_line

Json = dict[str, Any]
START_SECONDS = 20.0


def look(machine: Machine, *, start: float = START_SECONDS) -> Json:
    """{name, ssh, state, why, gpus, ram, disk{free, total, store}, models[{digest, bytes, used}],
    deployed{version, digest, weights_digest, base, time}, python, packages{}, backends[]}. `state`:
    "idle", "busy" (`why` says by whom), "refused" (up, and something is to be mended), "down".
    What could not be asked is {"unknown": why}.
    """
    place = machine.place
    found: Json = {"name": machine.name, "ssh": place.host if place else ""}
    try:
        with Session(replace(machine, start=start), lock=False) as session:
            facts = session.facts
    except (HostFailure, OSError) as error:
        transient = not isinstance(error, HostFailure) or error.transient
        why = error.what if isinstance(error, HostFailure) else str(error)
        unknown = {"unknown": why}
        asked = ("gpus", "ram", "disk", "models", "deployed", "python", "packages", "backends")
        if isinstance(error, HostFailure) and error.mend and not transient:
            why = f"{why}: {error.mend}"
        state = "down" if transient else "refused"
        return {**found, "state": state, "why": why, **dict.fromkeys(asked, unknown)}
    return {**found, **_told(facts)}


def _told(facts: Json) -> Json:
    store = facts.get("store")
    store = store if isinstance(store, dict) else {}
    missing = [safe_line(str(name)) for name in _list(facts.get("missing"))]
    state, why = "idle", ""
    if facts.get("busy"):
        state, why = "busy", safe_line(str(facts["busy"]))
    if missing:
        state, why = "refused", f"not installed for its Python: {', '.join(missing)}"
    elif store.get("error"):
        state, why = "refused", safe_line(str(store["error"]))
    unknown = {"unknown": "the host does not say"}
    disk: Json = unknown
    if type(store.get("free")) is int:
        disk = {key: store.get(key) for key in ("free", "total")}
        disk["store"] = safe_line(str(store.get("path")))
    packages = facts.get("packages")
    return {
        **{"state": state, "why": why, "gpus": facts.get("gpu", unknown)},
        **{"ram": facts.get("ram", unknown), "disk": disk},
        "models": [one for one in _list(store.get("held")) if _is_model(one)],
        "deployed": _deployed(store.get("deployed")),
        "python": safe_line(str(facts.get("python", ""))),
        "packages": packages if isinstance(packages, dict) else unknown,
        "backends": [str(name) for name in _list(facts.get("backends"))],
    }


def _deployed(value: Any) -> Json:
    if not isinstance(value, dict) or not isinstance(value.get("version"), str):
        return {"unknown": "nothing is deployed there"}
    told = {key: value.get(key) for key in ("digest", "weights_digest", "base", "time")}
    return {**told, "version": safe_line(value["version"])[:200]}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_model(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("digest"), str)
        and type(value.get("bytes")) is int
        and isinstance(value.get("used"), float)
    )
