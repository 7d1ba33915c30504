"""doctor: is everything there that training needs, and does the home keep its promises.

Looks and changes nothing; a running engine is not disturbed. The checkers are in trainctl/doctor.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from queue_store.errors import TrainctlError
from trainctl.context import Context
from trainctl.doctor import (
    databases,
    digests,
    gpu,
    host,
    invariants,
    outside,
    packages,
    places,
    settings,
)
from trainctl.doctor.check import Check
from trainctl.output import table


def doctor(context: Context, arguments: argparse.Namespace) -> int:
    """Run every check; exit 1 if anything is wrong.

    JSON: {ok, checks[{name, ok, found, advice}]}.
    """
    found = list(_chosen(context, arguments))
    wrong = [check for check in found if not check.ok]
    context.show(
        {"ok": not wrong, "checks": [asdict(check) for check in found]},
        lambda: (
            table(
                ("", "check", "found", "what to do"),
                [("OK" if c.ok else "!!", c.name, c.found, c.advice) for c in found],
            )
            + (f"\n{len(wrong)} of {len(found)} need attention" if wrong else "\nall is well")
        ),
    )
    return 1 if wrong else 0


def _chosen(context: Context, arguments: argparse.Namespace) -> Iterator[Check]:
    if arguments.host is None:
        return checks(context, quick=arguments.quick)
    return host.host(context.home, context.config.hosts, arguments.host)


def checks(context: Context, *, quick: bool = False) -> Iterator[Check]:
    """Every check of the machine and, where there is one, of the home. `quick` reads no weights
    and no whole databases."""
    yield packages.python()
    yield from packages.packages()
    yield from gpu.gpus()
    yield settings.default_settings()
    try:
        home = context.home
    except TrainctlError as error:
        yield Check("home", True, error.what, error.mend)
        return
    yield Check("home", True, str(home.root))
    for check in (
        settings.settings,
        settings.processes,
        places.permissions,
        places.disk,
        places.filesystem,
    ):
        yield check(home)
    yield places.reserve(home)
    yield from databases.databases(home, quick=quick)
    if home.state_db.exists():
        yield databases.copies(home, quick=quick)
        yield databases.clock(home)
        yield from invariants.invariants(home, quick=quick)
        if not quick:
            yield from digests.digests(home, digests.on_terminal(context.json))
    yield outside.systemd(home)
    yield from outside.targets(home)
    yield settings.engine(home)
