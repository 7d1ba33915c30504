"""data make and sets: files of a skill's rows, and the home's held-out sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainctl.context import Context
from trainctl.output import count, counted, size, table


def make(context: Context, arguments: argparse.Namespace) -> int:
    """A file of rows, the same bytes for the same arguments, with its lineage beside it."""
    from evaluation.make import make_file

    path = make_file(
        arguments.skill,
        arguments.level,
        arguments.count,
        arguments.seed,
        arguments.held_out,
        Path(arguments.output).expanduser().absolute(),
    )
    length = path.stat().st_size
    data = {
        "file": str(path),
        "skill": arguments.skill,
        "level": arguments.level,
        "rows": arguments.count,
        "seed": arguments.seed,
        "held_out": arguments.held_out,
        "size_bytes": length,
    }
    context.show(data, lambda: f"{path}: {counted(arguments.count, 'row')}, {size(length)}")
    return 0


def sets(context: Context, arguments: argparse.Namespace) -> int:
    """The evaluation sets: what is asked, never trained. JSON: name, skill, examples, digest."""
    from evaluation.sets import load_sets

    rows: list[dict[str, Any]] = [
        {
            "name": found.name,
            "skills": sorted({example.skill for example in found.examples if example.skill}),
            "examples": len(found.examples),
            "digest": found.digest,
        }
        for found in load_sets(context.home)
    ]
    context.show(
        rows,
        lambda: table(
            ("set", "skills", ">examples", "digest"),
            [
                (row["name"], ", ".join(row["skills"]), count(row["examples"]), row["digest"][:12])
                for row in rows
            ],
            empty=f"no evaluation set: put JSONL files into {context.home.evaluation}",
        ),
    )
    return 0
