"""restore, rollback: train on from a version.

A running engine does it at a step boundary; without one it is done here, under the home's lock.
Both tell what is lost, want the version's name typed, and keep the state that they leave as a
version. Nothing here deletes anything.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from queue_store import records
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.lock import EngineLock
from trainctl.confirm import confirm_name
from trainctl.context import Context
from trainctl.output import count, duration, text

Json = dict[str, Any]


def restore(context: Context, arguments: argparse.Namespace) -> int:
    """Train on from a version. JSON: version (what was saved first), target, branch, step."""
    from trainctl.commands import backup

    if arguments.source is not None:
        backup.bring_back(context, arguments.source, arguments.version)
    try:
        return _go_back(context, arguments.version, arguments.yes)
    except (VerificationFailed, Refused, NotFound) as error:
        backup.point_to_copy(context, arguments.version, error)
        raise


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
        if told.get("reads"):
            # Before the engine stops for it: what reads for minutes must not hold up training.
            _refuse_damaged(session.request("verify", version=plan.version))
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


def _refuse_damaged(outcome: Json) -> None:
    if not outcome["ok"]:
        raise VerificationFailed(outcome["problem"])


def _go_back_here(context: Context, name: str | None, yes: str | None) -> Json:
    from engine.loop.recovery import check_locked
    from snapshots import rollback as store
    from snapshots import versions

    with EngineLock.acquire(context.home, "rollback"):
        check_locked(context.state, context.config, context.home.config)
        _stand_somewhere(context, name)
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
        try:
            versions.verify(context.state, done.saved.name)
        except VerificationFailed as error:
            raise VerificationFailed(
                f"training stands on {done.target.name} now, but {done.saved.name}, the state that"
                f" it left, is not as it was written: {error}"
            ) from None
        return {
            "version": done.saved.name,
            "target": done.target.name,
            "branch": done.head.branch,
            "step": done.head.checkpoint.step,
        }


def _stand_somewhere(context: Context, name: str | None) -> None:
    """In a home that has not trained, an imported version is gone back to from the base model."""
    if name is None or records.head(context.state) is not None:
        return
    from snapshots import versions

    if versions.get(context.state, name).kind == versions.IMPORTED:
        from engine.training.live import first_head

        first_head(context.state, context.home, context.config)


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
