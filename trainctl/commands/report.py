"""report: does the model get better? The learning curves and held-out scores, and what they say.

As text, as JSON, or as one HTML page that needs nothing else. Reads the store, asks no model.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from queue_store.errors import UsageError
from trainctl.commands.compare import rate_cell
from trainctl.context import Context
from trainctl.output import clock, count, counted, known, table, text

Json = dict[str, Any]
SHOWN = 10
"""Events and hard examples on a terminal; the page and --json have more."""
NEWEST = 12
"""Models of a set, the newest, and files, of which a terminal shows all figures."""
FILES = 20
LONGEST = 70


def report(context: Context, arguments: argparse.Namespace) -> int:
    """The report on learning. JSON: see --help."""
    from engine.reading.learning import report as read

    found = read(context.views)
    if arguments.html is None:
        context.show(found, lambda: "\n".join(words(found)))
        return 0
    from trainctl.learning_page import page

    path = Path(arguments.html)
    written = page(found, context.config.model.name)
    try:
        _write(path, written)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            mend="give another file to --html",
        ) from None
    data = {"file": str(path.absolute()), "bytes": len(written.encode())}
    context.show(data, lambda: f"{data['file']}: one page, {count(data['bytes'])} bytes")
    return 0


def _write(path: Path, page: str) -> None:
    """The user's alone: it tells what the model is trained on."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(page)


def words(found: Json) -> Iterator[str]:
    """The report as lines for a terminal."""
    yield f"step {count(found['step'])}, branch {text(found['branch'])}"
    yield ""
    yield from _verdict(found)
    yield ""
    yield from _scores(found)
    yield ""
    yield from _judged(found)
    yield ""
    yield from _effects(found)
    yield ""
    yield from _hard(found)
    yield ""
    yield examples_line(found["examples"])


def _verdict(found: Json) -> Iterator[str]:
    said = found["verdict"]
    yield f"VERDICT  {text(said['text'])}"
    yield from (f"  {line}" for line in figures(found))


def figures(found: Json) -> list[str]:
    """What the verdict rests on, a line each."""
    said, lines = found["verdict"], []
    if known(said["best"]):
        best = said["best"]
        lines.append(f"best step {count(best['step'])}: validation loss {best['val_loss']:.4g}")
    if known(said["gap"]):
        gap = said["gap"]
        lines.append(
            f"at the end: training loss {gap['train']:.4g}, validation {gap['val']:.4g}, gap"
            f" {gap['share']:.0%} of it"
        )
    if known(said["best"]):
        noise = f"a single validation varies by about {said['noise']:.2g} around its curve"
        lines.append(f"over the last quarter {said['trend']:+.1%}; {noise}")
    accuracy = said["accuracy"]
    if known(accuracy):
        most = (
            f"; most at step {count(accuracy['best_step'])}, not shown to be worse from step"
            f" {count(accuracy['as_good_from'])} on"
        )
        lines.append(
            f"held-out: {accuracy['right']} of {accuracy['n']} right at step"
            f" {count(accuracy['step'])} (95 %: {accuracy['low']:.0%} to {accuracy['high']:.0%})"
            + (most if accuracy["as_good_from"] else "")
        )
    else:
        lines.append(f"held-out accuracy: {text(accuracy)}")
    if known(found["comparable_from"]):
        lines.append(
            f"only validations from step {count(found['comparable_from'])} on count: those before"
            " were of other rows"
        )
    return lines


def _scores(found: Json) -> Iterator[str]:
    if not found["scores"]:
        yield "no held-out answers on this line yet: trainctl evaluate"
    for one in found["scores"]:
        tiers = sorted({tier for row in one["models"] for tier in row["tiers"]}, key=tier_order)
        rows, more = _chosen(one["models"])
        left = f"; {count(more)} more with --html or --json" if more else ""
        yield f"{text(one['set'])} ({one['digest'][:12]}), {counted(one['items'], 'item')}{left}"
        yield table(
            (">step", "model", ">right", ">accuracy", *(f">{tier}" for tier in tiers)),
            [
                (
                    *(count(row["step"]), row["name"], f"{row['right']}/{row['n']}", cell(row)),
                    *(cell(row["tiers"].get(tier)) for tier in tiers),
                )
                for row in rows
            ],
        )


def _chosen(rows: list[Json]) -> tuple[list[Json], int]:
    """The models that a terminal shows, and how many it does not: the first, the newest, and the
    one with the highest share."""
    if len(rows) <= NEWEST + 2:
        return rows, 0
    top = max(rows[1:-NEWEST], key=lambda row: row["accuracy"] if row["n"] else 0.0)
    return [rows[0], top, *rows[-NEWEST:]], len(rows) - NEWEST - 2


def tier_order(tier: str) -> tuple[int, str]:
    """easy, medium, hard, then others by name."""
    from evaluation.skills import TIERS

    return (TIERS.index(tier) if tier in TIERS else len(TIERS)), tier


def cell(row: Json | None) -> str:
    """ "71.0 % (61-79)", "-" where nothing was judged."""
    return "-" if row is None else rate_cell({**row, "share": row["accuracy"]})


def _judged(found: Json) -> Iterator[str]:
    yield f"best version: {text(found['best'])}"
    for event in found["events"][-SHOWN:]:
        yield f"{clock(event['time'])}  {event['kind']:<22}  {text(event['text'])}"
    if not found["events"]:
        yield "no regression, no alarm and no decision so far"


def _effects(found: Json) -> Iterator[str]:
    yield table(
        (">item", "file", ">before", ">after", ">change", "beyond noise"),
        [effect_row(row) for row in found["effects"][-FILES:]],
        empty="no file has trained on this line",
    )
    if len(found["effects"]) > FILES:
        yield f"{count(len(found['effects']) - FILES)} files before them with --html or --json"


def effect_row(row: Json) -> tuple[Any, ...]:
    """A file's cells: losses before and after it, the change, and whether it is clear."""
    if not known(row["change"]):
        return row["item"], row["name"], "-", "-", "-", text(row["change"])
    before, after = row["before"], row["after"]
    return (
        *(row["item"], row["name"]),
        *(f"{one['loss']:.4g} @{count(one['step'])}" for one in (before, after)),
        *(f"{row['change']:+.4f}", "yes" if row["clear"] else "no, within the noise"),
    )


def _hard(found: Json) -> Iterator[str]:
    hard = found["hard"]
    never = sum(row["never"] for row in hard)
    if not hard:
        yield "no hard examples: none was wrong in three of its last five answers"
        return
    yield f"{counted(len(hard), 'hard example')}, {never} of them never right:"
    yield table(
        ("set", "item", ">wrong", "expected", "answered last", "asked"),
        [
            (
                *(row["set"], row["item"], f"{row['wrong']} of {row['of']}"),
                *(short(row[key]) for key in ("expected", "answer", "prompt")),
            )
            for row in hard[:SHOWN]
        ],
    )


def short(words: str) -> str:
    """The beginning of a text."""
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"


def examples_line(found: Json) -> str:
    """What became of the fixed examples, in a sentence."""
    if not known(found):
        return f"fixed examples: {text(found)}"
    return (
        f"fixed examples from step {count(found['first'])} to {count(found['last'])}:"
        f" {found['learned']} learned, {found['lost']} lost, {found['always']} right all along,"
        f" {found['never']} never right, of {found['examples']}"
    )
