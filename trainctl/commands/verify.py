"""verify: read versions back and compare; with --deep, see that they load and compute.

A running engine reads them, so that nothing is read twice or deleted while it is read; without
one they are read here, under the home's lock. How far it is stands on a terminal's stderr.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from queue_store.errors import TrainctlError, VerificationFailed
from queue_store.lock import EngineLock
from trainctl.context import Context
from trainctl.output import percent, size, text

if TYPE_CHECKING:
    from engine.sessions.session import Session
    from snapshots.child import Progress

Json = dict[str, Any]
ASK_SECONDS = 0.5


def verify(context: Context, arguments: argparse.Namespace) -> int:
    """Read a version's (or every version's) bytes from the disk; exit 4 if one is damaged.

    JSON, a list: name, ok, verified_at, problem, unfinished, deep, deep_verified_at, checks.
    """
    from snapshots import versions as store

    if arguments.version is not None:
        names = [store.get(context.state, arguments.version).name]
    else:
        found = store.versions(context.state)
        names = [version.name for version in found if version.state != store.DELETING]
    session = context.engine_if_any() if names else None
    results: list[Json] = []
    if session is not None:
        results = [
            _row(name, arguments.deep, partial(_asked, session, name, arguments.deep))
            for name in names
        ]
    elif names:
        results = _here(context, names, arguments.deep)
    context.show(results, lambda: "\n".join(_outcomes(results)) or "no version to verify")
    damaged = [r["name"] for r in results if not r["ok"] and not r["unfinished"]]
    unfinished = [r["name"] for r in results if r["unfinished"]]
    if unfinished and not damaged:
        raise VerificationFailed(
            f"{', '.join(unfinished)}: the verification did not finish", mend="verify it again"
        )
    if damaged:
        what = (
            "it cannot be trained on" if arguments.deep else "not every byte is as it was written"
        )
        raise VerificationFailed(
            f"{', '.join(damaged)}: {what}",
            mend="train on from another version; trainctl versions lists them",
        )
    return 0


def _here(context: Context, names: list[str], deep: bool) -> list[Json]:
    from engine.verify import verifying

    found = []
    with EngineLock.acquire(context.home, "verify"):
        for name in names:
            with _shown(name) as told:
                read = partial(verifying.outcome, context.state, name, deep=deep, progress=told)
                found.append(_row(name, deep, read))
    return found


def _row(name: str, deep: bool, act: Callable[[], Json]) -> Json:
    """What `act` found out about a version, or that it found out nothing: one that cannot be read
    now must not keep the others from being read."""
    try:
        return {**act(), "unfinished": False}
    except VerificationFailed as error:
        unknown = {"unknown": "the verification did not finish"}
        return {
            "name": name,
            "ok": False,
            "unfinished": True,
            "verified_at": unknown,
            "problem": str(error),
            "deep": deep,
            "deep_verified_at": unknown,
            "checks": [],
        }


def _asked(session: Session, name: str, deep: bool) -> Json:
    """By the engine; meanwhile it is asked how far it is, where there is somebody to see it."""
    answer: Future[Json] = Future()

    def ask() -> None:
        try:
            answer.set_result(session.request("verify", version=name, deep=deep))
        except BaseException as error:
            answer.set_exception(error)

    # A daemon: ctrl+c ends the waiting, not the reading.
    threading.Thread(target=ask, name="verify", daemon=True).start()
    with _shown(name) as told:
        while True:
            wait([answer], ASK_SECONDS)
            if answer.done():
                return answer.result()
            _tell(session, name, told)


def _tell(session: Session, name: str, told: Progress | None) -> None:
    if told is None:
        return
    try:
        under_way = session.request("verifying")
    except TrainctlError:
        return  # the answer to the verification itself says what is wrong
    for one in under_way:
        if one["version"] == name:
            told(one["read_bytes"], one["size_bytes"])


@contextmanager
def _shown(name: str) -> Iterator[Progress | None]:
    """What writes on a terminal's stderr how far the reading is; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    def told(read: int, of: int) -> None:
        share = f" ({percent(read, of)})" if of else ""
        sys.stderr.write(f"\r\x1b[K{name}  read {size(read)} of {size(of)}{share}")
        sys.stderr.flush()

    try:
        yield told
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _outcomes(results: Iterable[Json]) -> Iterator[str]:
    for result in results:
        if result["unfinished"]:
            yield f"{result['name']}  not verified  {text(result['problem'])}"
        elif not result["ok"]:
            yield f"{result['name']}  DAMAGED  {text(result['problem'])}"
        elif result["deep"]:
            yield f"{result['name']}  every byte as written, and it loads and computes"
        else:
            yield f"{result['name']}  every byte as written"
        for check in result["checks"]:
            mark = "ok " if check["ok"] else "BAD"
            yield f"        {mark}  {check['check']}: {text(check['text'])}"
