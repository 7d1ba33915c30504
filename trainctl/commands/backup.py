"""backup: copy versions to the targets of config.toml, list, verify, and bring them back.

A running engine does it, beside training; without one it is done here, under the home's lock.
Exit 1 where a target could not be used, 4 where a copy is damaged.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from queue_store.errors import Refused, TrainctlError, UsageError, VerificationFailed
from queue_store.lock import EngineLock
from queue_store.safe import safe_line
from trainctl.context import Context
from trainctl.output import ago, known, size, table, text

Json = dict[str, Any]
REDRAW_SECONDS = 0.2


def backup(context: Context, arguments: argparse.Namespace) -> int:
    """Copies of versions. JSON: one object a target, or with --list one a copy."""
    if arguments.list:
        return _list(context, arguments.target, arguments.only)
    action, version = "copy", arguments.only
    if arguments.verify:
        action = "verify"
    elif arguments.fetch is not None:
        if arguments.only is not None:
            raise UsageError("--fetch names its version itself", mend="--fetch VERSION")
        if arguments.target is None:
            raise UsageError("--fetch needs a target", mend="trainctl backup NAME --fetch VERSION")
        action, version = "fetch", arguments.fetch or None
    results, notes = _act(context, arguments.target, action, version)
    context.show(results, lambda: "\n".join([*map(_told, results), *notes]))
    _judge(results)
    return 0


def bring_back(context: Context, target: str, version: str) -> None:
    """Fetch one version for `restore --from`. Raises the error of the target."""
    results, _ = _act(context, target, "fetch", version)
    _judge(results)


def point_to_copy(context: Context, name: str, error: TrainctlError) -> None:
    """Say in an error that a target has a verified copy of the version, where one has."""
    from snapshots import copies

    number = name.removeprefix("v")
    for row in context.views.versions():
        if name in row["tags"]:
            number = row["name"].removeprefix("v")
    if not number.isdecimal():
        return
    found = [c for c in copies.copies(context.state) if c.version == int(number)]
    for copy in found:
        if copy.state == copies.VERIFIED:
            error.mend = (
                f"the target {copy.target} has a verified copy:"
                f" trainctl restore {copy.name} --from {copy.target}"
            )
            return


def _act(
    context: Context, target: str | None, action: str, version: str | None
) -> tuple[list[Json], list[str]]:
    session = context.engine_if_any()
    if session is not None:
        done = session.request("backup", target=target, action=action, version=version)
        return done["results"], done["notes"]
    from snapshots import backup as store

    bar = _Bar()
    with EngineLock.acquire(context.home, "backup"):
        try:
            results = store.run(
                context.state,
                context.config,
                name=target,
                action=action,
                version=version,
                progress=bar,
            )
        finally:
            bar.clear()
    return results, store.notes(results, context.state)


def _list(context: Context, target: str | None, version: str | None) -> int:
    from snapshots import copies, targets

    backups = context.config.backups
    if target is not None:
        targets.names(context.config, target)
    rows = [
        row
        for row in copies.listing(context.state, backups)
        if target in (None, row["target"]) and version in (None, row["version"])
    ]
    nothing = "no copy yet: trainctl backup makes them"
    if not backups:
        nothing = "no backup target is configured: [backups.NAME] in config.toml"
    context.show(
        rows,
        lambda: table(
            ("version", "target", "state", "verified", ">size", "here", "kept because", "error"),
            [
                (
                    *(row["version"], row["target"], row["state"]),
                    ago(row["verified_at"]) if known(row["verified_at"]) else "never",
                    *(size(row["size_bytes"]), "yes" if row["here"] else "no longer"),
                    *(", ".join(row["kept_because"]), row["error"]),
                )
                for row in rows
            ],
            empty=f"{nothing}; {copies.HARD_LINKS}",
        ),
    )
    return 0


def _told(result: Json) -> str:
    done = [
        f"{word} {', '.join(result[key])}"
        for key, word in (
            ("copied", "copied and read back"),
            ("verified", "every byte as written:"),
            ("fetched", "brought back"),
            ("removed", "removed by rule"),
        )
        if result[key]
    ]
    done += [f"DAMAGED {d['version']}: {text(d['problem'])}" for d in result["damaged"]]
    if result["error"] and not result["damaged"]:
        done.append(f"FAILED: {text(result['error'])}")
    return f"{result['target']} ({text(result['place'])})  " + ("; ".join(done) or "up to date")


def _judge(results: list[Json]) -> None:
    """Raise where not all is well: exit 4 before 1."""
    for result in results:
        if result["damaged"]:
            names = ", ".join(d["version"] for d in result["damaged"])
            raise VerificationFailed(
                f"{names} at {result['target']}: {result['damaged'][0]['problem']}",
                mend="trainctl backup makes damaged copies anew from versions that are good here",
            )
    for result in results:
        if result["error"]:
            raise Refused(f"backup {result['target']}: {result['error']}")


class _Bar:
    """One line of progress on stderr, where a person looks at it."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self.width = 0
        self.last = 0.0

    def __call__(self, name: str, done: int, whole: int) -> None:
        if not self.shown or time.monotonic() < self.last + REDRAW_SECONDS:
            return
        self.last = time.monotonic()
        share = f" ({100 * done // whole} %)" if whole else ""
        line = safe_line(f"{name}  {size(done)} of {size(whole)}{share}")
        sys.stderr.write("\r" + line.ljust(self.width))
        sys.stderr.flush()
        self.width = max(self.width, len(line))

    def clear(self) -> None:
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
