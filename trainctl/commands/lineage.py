"""lineage: the home's files by the generator that made them, and what became of their rows."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from queue_store.errors import NotFound
from trainctl.context import Context
from trainctl.output import count, counted, known, pairs, table, text

Json = dict[str, Any]
EMPTY = """\
no file is in the queue yet. trainctl data make SKILL … writes files with their lineage; a
generator of your own puts FILE.jsonl.meta.json beside FILE.jsonl, with at least
{"generator_id": "mine", "generator_version": "1.0.0"}"""


def lineage(context: Context, arguments: argparse.Namespace) -> int:
    """Files, rows and rejections by generator and version. Raises NotFound for an unknown one."""
    from evaluation.lineage_report import report

    views = context.views
    found = report(views.state, views.metrics, live=views.live(), generator=arguments.generator)
    if arguments.generator is not None and not found["generators"]:
        whole = report(views.state, views.metrics, live=False)["generators"]
        names = sorted({row["generator"] for row in whole})
        raise NotFound(
            f"no file of generator {arguments.generator!r}",
            mend=f"known: {', '.join(names) or 'none, for no file has a sidecar'}",
        )
    context.show(found, lambda: "\n\n".join(_parts(found)))
    return 0


def _parts(found: Json) -> Iterator[str]:
    if not found["generators"] and not found["no_lineage"]:
        yield EMPTY
        return
    columns = (">files", ">rows", ">rejected", "share", ">over length", ">steps", ">failed")
    if found["generators"]:
        yield table(
            ("generator", "version", *columns),
            [(row["generator"], row["version"], *_counts(row)) for row in found["generators"]],
        )
    if found["no_lineage"]:
        yield "no lineage (no sidecar, or a broken one), by file name:\n" + table(
            ("skill", "level", *columns),
            [
                (
                    row["skill"] or "other names",
                    row["level"] if known(row["level"]) else "",
                    *_counts(row),
                )
                for row in found["no_lineage"]
            ],
        )
    for one in found["broken"]:
        yield f"item {one['item']}, {text(one['name'])}: {text(one['why'])}"
    yield "\n".join(_sentences(found))
    yield table(
        ("validator", "version", "looks at", ">files", ">errors", "share", ">warnings"),
        [
            (
                *(one["name"], ", ".join(one["versions"]), one["level"], one["files"]),
                *(count(one["errors"]), _rate(one["error_rate"]), count(one["warnings"])),
            )
            for one in found["validators"]
        ],
    )


def _counts(row: Json) -> tuple[Any, ...]:
    over = row["over_length"]
    return (
        *(row["files"], count(row["rows"]), count(row["rejected"]), _rate(row["rejected_rate"])),
        _rate(over, interval=False) if known(over) else "not prepared",
        *(count(row["steps"]), row["failures"]),
    )


def _rate(rate: Json, *, interval: bool = True) -> str:
    """ "4.1 % (3.0-5.5)", or "" for the share of nothing."""
    if not known(rate["share"]):
        return ""
    share = f"{100 * rate['share']:.1f} %"
    return share + (f" ({100 * rate['low']:.1f}-{100 * rate['high']:.1f})" if interval else "")


def _of(rate: Json) -> str:
    rows = counted(rate["total"], "row")
    return f"{count(rate['hits'])} of {rows}, {_rate(rate)}" if rate["total"] else "no rows"


def _sentences(found: Json) -> Iterator[str]:
    worst = found["most_rejected"]
    if "unknown" in worst:
        yield f"rejected most: {text(worst['unknown'])}"
    else:
        name, mine = text(worst["generator"]), _of(worst["rejected"])
        others = f"; all others: {_of(worst['others'])}" if worst["others"]["total"] else ""
        unclear = "" if worst["clear"] or not others else "; too few rows to call it worse"
        yield f"rejected most: {name}, {mine}{others}{unclear}"
    for bump in found["bumps"]:
        yield (
            f"{text(bump['generator'])} {text(bump['from'])} -> {text(bump['to'])}:"
            f" {bump['verdict']} (p {bump['p']:.2g}): {_of(bump['before'])}, then"
            f" {_of(bump['after'])}, in {counted(bump['files'][1], 'file')}"
        )
    best = found["most_aggressive"]
    if "unknown" in best:
        yield f"most aggressive validator: {text(best['unknown'])}"
    else:
        unclear = "" if best["clear"] else f", not clearly more than {text(best['next'])}"
        yield f"most aggressive validator: {text(best['name'])}, {_of(best['error_rate'])}{unclear}"


def block(found: Json) -> str:
    """An item's lineage, as `trainctl show` prints it."""
    said = found["generator"]
    rows: list[tuple[str, Any]] = [("lineage", said if "unknown" in said else _made(said))]
    if "unknown" not in said:
        params = ", ".join(f"{key} {value}" for key, value in said["params"].items())
        rows += [("parameters", params), ("checked", _checked(said))]
    rows += [("note", note) for note in found["notes"]]
    validators = table(
        ("validator", "version", "looks at", ">errors", ">warnings"),
        [
            (one["name"], one["version"], one["level"], one["errors"], one["warnings"])
            for one in found["validators"]
        ],
    )
    return pairs(rows) + "\n\n" + validators


def _made(said: Json) -> str:
    at = f", {said['generated_at']}" if said["generated_at"] else ""
    rows = f", {counted(said['example_count'], 'row')}" if said["example_count"] is not None else ""
    return f"{said['generator_id']} {said['generator_version']}{at}{rows}"


def _checked(said: Json) -> str:
    """What the sidecar says of its own validation."""
    by = ", ".join(f"{name} {version}" for name, version in said["validator_versions"].items())
    passed = {True: "passed", False: "did not pass", None: ""}[said["validation_passed"]]
    numbers = [
        f"{said[key]} {word}"
        for key, word in (("validation_errors", "errors"), ("validation_warnings", "warnings"))
        if said[key] is not None
    ]
    return ", ".join(part for part in (passed, *numbers, f"by {by}" if by else "") if part)
