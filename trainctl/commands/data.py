"""data make and sets: files of a skill's rows, and the home's held-out sets."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainctl.context import Context
from trainctl.output import count, counted, known, pairs, size, table, text

Json = dict[str, Any]
SHOWN = 10
"""Problems of a set that a person is shown."""


def make(context: Context, arguments: argparse.Namespace) -> int:
    """A file of rows, the same bytes for the same arguments, with its lineage beside it."""
    from evaluation.make import make_file

    path = make_file(
        arguments.skill,
        arguments.tier or arguments.level,
        arguments.count,
        arguments.seed,
        arguments.held_out,
        Path(arguments.output).expanduser().absolute(),
    )
    length = path.stat().st_size
    data = {
        "file": str(path),
        "skill": arguments.skill,
        **({"tier": arguments.tier} if arguments.tier else {"level": arguments.level}),
        "rows": arguments.count,
        "seed": arguments.seed,
        "held_out": arguments.held_out,
        "size_bytes": length,
    }
    context.show(data, lambda: f"{path}: {counted(arguments.count, 'row')}, {size(length)}")
    return 0


def sets(context: Context, arguments: argparse.Namespace) -> int:
    """The evaluation sets: what is asked, by whom it is judged, what is wrong where. JSON: see
    --help. Exit 1 where a row cannot be asked or judged."""
    from evaluation.set_report import report

    found = report(context.home)
    context.show(found, lambda: "\n".join(_sets(found, context)))
    return int(any(problem["error"] for row in found for problem in row["problems"]))


def _sets(found: list[Json], context: Context) -> Iterator[str]:
    yield table(
        ("set", ">rows", ">prompts", "tiers", "skills", "scorer", "digest"),
        [
            (
                *(row["name"], count(row["rows"]), count(row["prompts"])),
                ", ".join(f"{tier} {n}" for tier, n in row["tiers"].items()) or "-",
                ", ".join(row["skills"]) or "-",
                ", ".join(f"{s['name']} {s['version']}" for s in row["scorers"]) or "-",
                row["digest"][:12] if known(row["digest"]) else "-",
            )
            for row in found
        ],
        empty=f"no evaluation set: put JSONL files into {context.home.evaluation}",
    )
    judges = {(s["name"], s["version"]): s["about"] for row in found for s in row["scorers"]}
    if judges:
        yield ""
        yield pairs((f"{name} {version}", about) for (name, version), about in judges.items())
        yield "(all of them: without the <think> block that an answer opens with)"
    for row in found:
        for problem in row["problems"][:SHOWN]:
            line = "" if problem["line"] is None else f":{problem['line']}"
            yield f"{text(row['name'])}.jsonl{line}: {text(problem['what'])}"
        more = len(row["problems"]) - SHOWN
        if more > 0:
            yield f"{text(row['name'])}.jsonl: and {counted(more, 'line')} more (--json has all)"
