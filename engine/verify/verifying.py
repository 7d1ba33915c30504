"""The verb `verify` and the numbers of `diff`, as whoever asks calls them: what happens in a child
process, and what of it is written down.

Imports no torch: the children do. Used by the command line without an engine, and by an engine's
threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from queue_store.database import State
from queue_store.errors import Refused, VerificationFailed
from snapshots import child, inuse, versions
from snapshots.child import Progress, Unfinished
from snapshots.verify import Outcome
from snapshots.versions import BASE, Version, version_folder

__all__ = ["Unfinished", "outcome", "tensor_difference", "verify"]


def verify(
    state: State,
    name: str,
    *,
    deep: bool = False,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Version:
    """Verify a version, every byte of it; `deep`: and that it loads and computes. Records the
    outcome. Raises as versions.verify."""
    if not deep:
        return versions.verify(state, name, stop=stop, progress=progress)
    version = versions.get(state, name)
    words = deep_words(state, version)
    with inuse.reading(version.name, stop, progress) as told:
        name = "engine.verify.deep_verify"
        answer = child.run(name, words, where=words[-1], stop=stop, progress=told)
    return versions.record(state, version, Outcome.of(answer), deep=True)


def deep_words(state: State, version: Version) -> list[str]:
    """The command line of engine.verify.deep_verify for a version; its folder comes last."""
    return [
        *("--home", str(state.home.root), "--scope", version.scope),
        *("--manifest", version.manifest_digest, "--weights", version.weights_digest),
        *("--base-digest", versions.model_of(state)["base_digest"]),
        *("--step", str(version.step), str(version_folder(state.home, version))),
    ]


def outcome(
    state: State,
    name: str,
    *,
    deep: bool = False,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """`verify` as a row of `trainctl verify --json`: {name, ok, verified_at, problem, deep,
    deep_verified_at, checks[{check, ok, text}]}. Damage is in the row; raises NotFound, and
    Unfinished where nothing was found out."""
    row: dict[str, Any] = {"name": versions.get(state, name).name, "deep": deep}
    try:
        found = verify(state, name, deep=deep, stop=stop, progress=progress)
        row |= {"ok": True, "verified_at": found.verified_at, "problem": ""}
    except Unfinished:
        raise
    except VerificationFailed as error:
        unknown = {"unknown": "the verification failed"}
        row |= {"ok": False, "verified_at": unknown, "problem": str(error)}
        found = versions.get(state, name)
    row["deep_verified_at"] = found.deep_verified_at or {"unknown": "never verified deep"}
    return {**row, "checks": _checks(state, found.name) if deep else []}


def _checks(state: State, name: str) -> list[dict[str, Any]]:
    """What the newest deep verification of a version looked at, from its event."""
    import orjson

    row = state.db.execute(
        "SELECT data FROM events WHERE kind IN ('version.deep_verified', 'version.corrupt')"
        " AND json_extract(data, '$.version') = ? ORDER BY seq DESC LIMIT 1",
        (name,),
    ).fetchone()
    checks: list[dict[str, Any]] = orjson.loads(row[0]).get("checks", []) if row else []
    return checks


def tensor_difference(
    state: State, first: str, second: str, *, stop: threading.Event | None = None
) -> dict[str, Any]:
    """How far the weights of two versions lie apart, by tensor, as engine.verify.tensor_diff.

    Raises NotFound, Refused (a version without weights of its own), Unfinished.
    """
    a, b = versions.get(state, first), versions.get(state, second)
    for version in (a, b):
        if version.scope == BASE:
            raise Refused(
                f"{version.name} is the base model and holds no weights of its own",
                mend="compare two versions that were trained",
            )
    if a.weights_digest == b.weights_digest:
        return {"same": True, "tensors": [], "equal": {"unknown": "the digests are the same"}}
    folders: Sequence[str] = [str(version_folder(state.home, v)) for v in (a, b)]
    answer = child.run("engine.verify.tensor_diff", folders, where=" and ".join(folders), stop=stop)
    return {"same": False, "tensors": answer["tensors"], "equal": answer["equal"]}
