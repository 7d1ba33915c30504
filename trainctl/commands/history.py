"""history, samples and log: what was trained, what the model answered, what happened.

Reads the store and asks no engine, except for what a running one alone knows.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from queue_store import queue
from queue_store.errors import UsageError
from trainctl.context import Context, print_json, print_json_list
from trainctl.output import clock, table, text

FOLLOW_SECONDS = 0.5
PAGE = 1000
Json = dict[str, Any]


def history(context: Context, arguments: argparse.Namespace) -> int:
    """Every step: branch, step, item, cursors, loss …; or one metric with --series."""
    if arguments.series is not None:
        return _series(context, arguments)
    if arguments.item is not None:
        queue.get(context.views.state, arguments.item)  # as `show`: no such item is no empty answer
    if context.json:
        print_json_list(context.views.steps(item=arguments.item))
        return 0
    rows = context.views.history(item=arguments.item)
    print(
        table(
            (
                *(">step", ">branch", ">item", ">from", ">to", ">loss", ">rate", ">grad norm"),
                *(">tokens", ">seconds", "taken back"),
            ),
            [
                (
                    row["step"],
                    row["branch"],
                    row["item"],
                    row["cursor_from"],
                    row["cursor_to"],
                    row["loss"],
                    row["learning_rate"],
                    row["grad_norm"],
                    row["tokens"],
                    row["seconds"],
                    "yes" if row["taken_back"] else "",
                )
                for row in rows
            ],
            empty="no step was trained yet"
            if arguments.item is None
            else f"no step of item {arguments.item} was trained yet",
        )
    )
    return 0


def _series(context: Context, arguments: argparse.Namespace) -> int:
    from engine.messages import METRICS

    if arguments.series not in METRICS:
        raise UsageError(
            f"unknown series {arguments.series!r}", mend=f"one of {', '.join(METRICS)}"
        )
    data = context.views.series(arguments.series, width=PAGE)
    context.show(
        data,
        lambda: table(
            (">step", ">min", ">max", ">mean"),
            data["points"],
            empty=f"no {arguments.series} was measured yet",
        ),
    )
    return 0


def log(context: Context, arguments: argparse.Namespace) -> int:
    """The newest events of the journal; with -f those that come, until ctrl+c."""
    chosen = {"group": arguments.only, "text": arguments.contains}
    newest = context.views.latest_events(arguments.n, **chosen)["events"]
    if not arguments.follow:
        narrowed = arguments.only or arguments.contains
        nothing = "no such event yet" if narrowed else "nothing happened yet"
        context.show(newest, lambda: "\n".join(map(_line, newest)) or nothing)
        return 0
    after = 0
    while True:
        for event in newest:
            after = event["seq"]
            if context.json:
                print_json(event, line=True)
            else:
                print(_line(event), flush=True)
        time.sleep(FOLLOW_SECONDS)
        newest = context.views.events(after=after, **chosen)["events"]


def _line(event: Json) -> str:
    return f"{clock(event['time'])}  {event['kind']:<15}  {text(event['text'])}"
