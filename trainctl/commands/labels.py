"""pin, tag, describe: what a person writes on a version. Its files stay as they are.

A running engine writes it, so that its screens show it at once; without one it is written here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from trainctl.commands.versions import version_row
from trainctl.context import Context
from trainctl.output import text


def pin(context: Context, arguments: argparse.Namespace) -> int:
    """Keep a version for ever, or with --off no longer so. JSON: the version."""
    from snapshots import labels

    on = not arguments.off
    _write(
        context,
        arguments.version,
        "pin",
        lambda name: labels.pin(context.state, name, on),
        pinned=on,
    )
    row = version_row(context, arguments.version)
    said = "pinned: it stays" if on else "no longer pinned"
    context.show(row, lambda: f"{row['name']}  {said}")
    return 0


def tag(context: Context, arguments: argparse.Namespace) -> int:
    """Give a version a name of one's own, or with --off take it away. JSON: the version."""
    from snapshots import labels, versions

    version = versions.get(context.state, arguments.version).name
    act = labels.untag if arguments.off else labels.tag
    _write(
        context,
        version,
        "tag",
        lambda name: act(context.state, name, arguments.name),
        name=arguments.name,
        on=not arguments.off,
    )
    row = version_row(context, version)
    tags = f"tags: {', '.join(row['tags'])}" if row["tags"] else "no tag"
    context.show(row, lambda: f"{row['name']}  {text(tags)}")
    return 0


def describe(context: Context, arguments: argparse.Namespace) -> int:
    """Say anew what a version is. JSON: the version."""
    from snapshots import labels

    words = arguments.text
    _write(
        context,
        arguments.version,
        "describe",
        lambda name: labels.describe(context.state, name, words),
        text=words,
    )
    row = version_row(context, arguments.version)
    said = row["description"] or "without a description"
    context.show(row, lambda: f"{row['name']}  {text(said)}")
    return 0


def _write(
    context: Context, version: str, command: str, here: Callable[[str], Any], **arguments: Any
) -> None:
    """By the engine, or `here` where none runs."""
    session = context.engine_if_any()
    if session is None:
        here(version)
    else:
        session.request(command, version=version, **arguments)
