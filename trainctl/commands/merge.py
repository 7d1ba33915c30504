"""merge: a full model of an adapter's version and its base model.

A running engine does it, beside training; without one it is done here, under the home's lock.
The adapter's version, the head and the base model stay as they are.
"""

from __future__ import annotations

import argparse
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from queue_store.errors import TrainctlError
from queue_store.lock import EngineLock
from trainctl.context import Context
from trainctl.output import size
from trainctl.progress import Progress

if TYPE_CHECKING:
    from engine.sessions.session import Session

Json = dict[str, Any]
ASK_SECONDS = 0.5
BESIDE = (
    "it trained beside a 4-bit base and was merged into the full-precision one, as workers have"
    " evaluated it: its answers differ a little from those that training's own samples show"
)


def merge(context: Context, arguments: argparse.Namespace) -> int:
    """Merge a version. JSON: the version that was made, as `versions VERSION` has it, and `merged`
    {version, weights_digest, base_digest, method}."""
    from snapshots import versions as store

    name = store.get(context.state, arguments.version).name
    session = context.engine_if_any()
    with Progress() as shown:
        if session is not None:
            made = _asked(session, name, arguments.message, shown)["name"]
        else:
            made = _here(context, name, arguments.message, shown)
    found = _facts(context, made)
    context.show(found, lambda: _words(found, name))
    return 0


def _words(found: Json, name: str) -> str:
    made = (
        f"{found['name']} is the full model of {name}, {size(found['size_bytes'])}, verified:"
        f" {found['folder']}"
    )
    return made if found["merged"].get("method") != "qlora" else f"{made}\n{BESIDE}"


def _facts(context: Context, name: str) -> Json:
    from snapshots import facts, merged, versions
    from trainctl.commands.versions import version_row

    of = merged.of(context.state, versions.get(context.state, name))
    return {**facts.facts(context.state, name, version_row(context, name)), "merged": of}


def _here(context: Context, name: str, message: str, shown: Progress) -> str:
    from engine.adapters import merging
    from snapshots.versions import recover_versions

    with EngineLock.acquire(context.home, "merge"):
        recover_versions(context.state)  # a kill came between a folder and its row
        return merging.merge(
            *(context.state, context.config, name),
            description=message,
            progress=lambda done, of: shown(name, done, of),
        ).name


def _asked(session: Session, name: str, message: str, shown: Progress) -> Json:
    """By the engine; meanwhile it is asked how far it is."""
    answer: Future[Json] = Future()

    def ask() -> None:
        try:
            answer.set_result(session.request("merge", version=name, description=message))
        except BaseException as error:
            answer.set_exception(error)

    # A daemon: ctrl+c ends the waiting, not the merge.
    threading.Thread(target=ask, name="merge", daemon=True).start()
    while True:
        wait([answer], ASK_SECONDS)
        if answer.done():
            return answer.result()
        try:
            under_way = session.request("verifying")
        except TrainctlError:
            continue  # the answer to the merge itself says what is wrong
        for one in under_way:
            if one["version"] == name:
                shown(name, one["read_bytes"], one["size_bytes"])
