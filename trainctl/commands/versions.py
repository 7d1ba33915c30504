"""checkpoints, versions, snapshot, verify, restore, rollback, pin.

A running engine does what changes its head, at a step boundary; without one these verbs do it
here, under the home's lock. Restore and rollback tell what is lost, want the version's name
typed, and keep the state that they leave as a version. Nothing here deletes anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from queue_store.errors import VerificationFailed
from queue_store.lock import EngineLock
from trainctl.confirm import confirm_name
from trainctl.context import Context
from trainctl.output import ago, count, duration, known, size, table, text

Json = dict[str, Any]


def checkpoints(context: Context, arguments: argparse.Namespace) -> int:
    """The checkpoints on disk, oldest first."""
    rows = context.views.checkpoints()
    context.show(
        rows,
        lambda: table(
            (
                *(">id", "name", ">branch", ">step", ">item", ">cursor", "made", ">size"),
                *(">loss", ">val loss", "complete"),
            ),
            [
                (
                    *(row["id"], row["name"], row["branch"], row["step"]),
                    *(_or_blank(row["item"]), row["cursor"], ago(row["created"])),
                    *(size(row["size_bytes"]), _or_blank(row["loss"]), _or_blank(row["val_loss"])),
                    row["complete"],
                )
                for row in rows
            ],
            empty="no checkpoint yet: the first one comes with training",
        ),
    )
    return 0


def versions(context: Context, arguments: argparse.Namespace) -> int:
    """The versions, oldest first."""
    rows = context.views.versions()
    context.show(
        rows,
        lambda: table(
            (
                *("name", ">branch", ">step", "made", ">size", "verified", ">loss", ">val loss"),
                *("kept because", "description"),
            ),
            [
                (
                    *(row["name"], row["branch"], row["step"], ago(row["created"])),
                    *(size(row["size_bytes"]), _verified(row)),
                    *(_or_blank(row["loss"]), _or_blank(row["val_loss"])),
                    *(", ".join(row["kept_because"]), row["description"]),
                )
                for row in rows
            ],
            empty="no version yet: trainctl snapshot makes one",
        ),
    )
    return 0


def _or_blank(value: Any) -> Any:
    return value if known(value) else ""


def _verified(row: Json) -> str:
    if row.get("state") == "corrupt":
        return "DAMAGED"
    return ago(row["verified_at"]) if known(row["verified_at"]) else "not yet"


def snapshot(context: Context, arguments: argparse.Namespace) -> int:
    """Keep the present state as a verified version. JSON: the version, as in `versions`."""
    session = context.engine_if_any()
    if session is not None:
        made = session.request(
            "snapshot_version",
            description=arguments.message,
            weights_only=arguments.weights_only,
            pin=arguments.pin,
        )
        name = made["name"]
    else:
        from snapshots import versions as store

        with EngineLock.acquire(context.home, "snapshot"):
            name = store.create(
                context.state,
                description=arguments.message,
                scope=store.WEIGHTS if arguments.weights_only else store.WHOLE,
                pinned=arguments.pin,
            ).name
    row = _row(context, name)
    context.show(row, lambda: f"{name} at step {count(row['step'])}, verified")
    return 0


def verify(context: Context, arguments: argparse.Namespace) -> int:
    """Read a version's (or every version's) bytes from the disk; exit 4 if one is damaged."""
    from snapshots import versions as store

    if arguments.version is not None:
        names = [store.get(context.state, arguments.version).name]
    else:
        names = [version.name for version in store.versions(context.state)]
    results: list[Json] = []
    for name in names:
        try:
            found = store.verify(context.state, name)
            results.append(
                {"name": name, "ok": True, "verified_at": found.verified_at, "problem": ""}
            )
        except VerificationFailed as error:
            unknown = {"unknown": "the verification failed"}
            results.append(
                {"name": name, "ok": False, "verified_at": unknown, "problem": str(error)}
            )
    context.show(results, lambda: "\n".join(_outcomes(results)) or "no version to verify")
    damaged = [result["name"] for result in results if not result["ok"]]
    if damaged:
        raise VerificationFailed(
            f"{', '.join(damaged)}: not every byte is as it was written",
            mend="train on from another version; trainctl versions lists them",
        )
    return 0


def _outcomes(results: Iterable[Json]) -> Iterable[str]:
    for result in results:
        if result["ok"]:
            yield f"{result['name']}  every byte as written"
        else:
            yield f"{result['name']}  DAMAGED  {text(result['problem'])}"


def pin(context: Context, arguments: argparse.Namespace) -> int:
    """Keep a version for ever, or with --off no longer so."""
    session = context.engine_if_any()
    if session is not None:
        session.request("pin", version=arguments.version, pinned=not arguments.off)
        name = arguments.version
    else:
        from snapshots import versions as store

        name = store.pin(context.state, arguments.version, not arguments.off).name
    row = _row(context, name)
    state = "pinned: it stays" if row["pinned"] else "no longer pinned"
    context.show(row, lambda: f"{row['name']}  {state}")
    return 0


def _row(context: Context, name: str) -> Json:
    """The version's JSON by name or tag."""
    rows = context.views.versions()
    return next(row for row in rows if row["name"] == name or name in row["tags"])


def restore(context: Context, arguments: argparse.Namespace) -> int:
    """Train on from a version. JSON: version (what was saved first), target, branch, step."""
    return _go_back(context, arguments.version, arguments.yes)


def rollback(context: Context, arguments: argparse.Namespace) -> int:
    """Back to a version, by default the newest verified earlier one of this line."""
    return _go_back(context, arguments.version, arguments.yes)


@dataclass(frozen=True)
class _Plan:
    """What going back to `version` means, by an engine's word or the store's."""

    version: str
    to_step: int
    from_step: int
    steps_lost: int
    hours_lost: float
    items: list[Json]
    keeps: str


def _go_back(context: Context, name: str | None, yes: str | None) -> int:
    session = context.engine_if_any()
    if session is not None:
        told = session.request("rollback_plan", version=name)
        plan = _Plan(
            version=told["version"],
            to_step=told["step"],
            from_step=told["now"]["step"],
            steps_lost=told["steps_lost"],
            hours_lost=told["hours_lost"],
            items=told["items"],
            keeps=told["keeps"],
        )
        _agree(plan, name, yes)
        done = session.request("rollback", version=plan.version, plan=told["plan"])
        saved, branch = done["version"], done["branch"]
        result = {
            "version": saved["name"] if isinstance(saved, dict) else saved,
            "target": plan.version,
            "branch": branch,
            "step": done["step"],
        }
    else:
        result = _go_back_here(context, name, yes)
    context.show(
        result,
        lambda: (
            f"training stands on {result['target']}, step {count(result['step'])}, branch"
            f" {result['branch']}; what was current is {result['version']}"
        ),
    )
    return 0


def _go_back_here(context: Context, name: str | None, yes: str | None) -> Json:
    from snapshots import rollback as store

    with EngineLock.acquire(context.home, "rollback"):
        made = store.plan(context.state, name)
        plan = _Plan(
            version=made.version,
            to_step=made.target_step,
            from_step=made.step,
            steps_lost=made.steps_lost,
            hours_lost=made.hours_lost,
            items=list(made.items),
            keeps=made.keeps,
        )
        _agree(plan, name, yes)
        done = store.apply(context.state, made)
        return {
            "version": done.saved.name,
            "target": done.target.name,
            "branch": done.head.branch,
            "step": done.head.checkpoint.step,
        }


def _agree(plan: _Plan, name: str | None, yes: str | None) -> None:
    """Show what goes and have the version's name typed. Raises Refused, UsageError."""
    lines = [
        f"back to {plan.version}: from step {count(plan.from_step)} to {count(plan.to_step)}",
        f"  lost    {count(plan.steps_lost)} steps, {duration(3600 * plan.hours_lost)} of training",
        *(f"  item    {item['id']} {text(item['name'])}: {item['becomes']}" for item in plan.items),
        f"  kept    {plan.keeps}",
    ]
    # A tag or a bare number that named the version also agrees to it.
    if yes is not None and yes == name:
        yes = plan.version
    confirm_name("\n".join(lines), plan.version, yes=yes)
