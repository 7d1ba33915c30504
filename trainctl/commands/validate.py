"""validate: what is in a file and what would train of it; trains nothing, changes nothing.

The quick level needs neither a home nor a model and imports no tokenizer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queue_store.errors import NotFound
from queue_store.home import Home
from queue_store.rows import quick_check
from queue_store.safe import safe_line
from trainctl.commands.rows import checks, lengths, masks
from trainctl.context import Context, print_json_list
from trainctl.output import count, counted, known, pairs, percent, table
from trainctl.progress import Progress
from trainctl.rowtext import print_row

if TYPE_CHECKING:
    from engine.inspecting.validating import Place

SHOWN = 100
Json = dict[str, Any]


def validate(context: Context, arguments: argparse.Namespace) -> int:
    """The report of a file, or with --tokens its rows as tokens; exit 1 where a row is wrong,
    too long while that refuses the file, or a check of the masks fails.

    Raises DataError if the file cannot be read, NotFound and ConfigError where a level that
    needs a model was asked for and there is none.
    """
    path = Path(arguments.file).expanduser()
    with ExitStack() as stack, Progress() as progress:
        at, level, why = _place(context, arguments, stack)
        check = quick_check(path, limit=SHOWN)
        if at is None or not (check.accepted or arguments.tokens):
            from engine.rowcheck import quick

            if at is not None:
                why = "quick level only: no row can be made tokens of"
            data = {**quick(check), "level_reason": why}
        else:
            from engine.inspecting import validating

            if arguments.tokens:
                return _tokens(context, validating.tokens(path, check, at, progress))
            data = {**validating.tokenized(path, check, level, at, progress), "level_reason": why}
    context.show(data, lambda: _plain(arguments.file, data))
    return 1 if data["problems"] else 0


def _place(
    context: Context, arguments: argparse.Namespace, stack: ExitStack
) -> tuple[Place | None, str, str]:
    """What the file would train with (None: nothing), the level, and why it is that one where
    nobody asked for it."""
    asked = arguments.level or ("standard" if arguments.tokens or arguments.model else "")
    if arguments.level == "quick" and not arguments.tokens:
        return None, "quick", ""
    from engine.inspecting.validating import place
    from engine.training.base import fetchable

    home = _home(context)
    try:
        at = stack.enter_context(place(home, arguments.model or ""))
        return at, asked or at.level, ""
    except NotFound as error:
        # Without a home, or before a hub's model came, nothing is broken. All else is, and a
        # script must not take a look at the rows alone for the whole check.
        if asked or (home is not None and not fetchable(context.config.model.base)):
            raise
        return None, "quick", f"quick level only: {error}"


def _home(context: Context) -> Home | None:
    """The home; one that was named must be there."""
    return context.home if context.given_home else context.found_home()


def _tokens(context: Context, rows: Iterable[Json]) -> int:
    """Every row as tokens: a JSON list, one object a line, or text for a person."""
    wrong = 0

    def counted_rows() -> Iterator[Json]:
        nonlocal wrong
        for row in rows:
            wrong += "error" in row
            yield row

    if context.json:
        print_json_list(counted_rows())
    else:
        for row in counted_rows():
            print_row(row)
    return 1 if wrong else 0


def _plain(file: str, data: Json) -> str:
    rejected = [(bad["line"], bad["reason"]) for bad in data["rejected"]]
    parts = [
        pairs(
            [
                ("file", file),
                ("spec", data["spec"]),
                ("level", data["level"]),
                ("rows", count(data["lines"])),
                ("accepted", count(data["accepted"])),
                ("rejected", count(data["rejected_count"])),
                *(_rows(data) if known(data["tokens"]) else ()),
            ]
        )
    ]
    if known(data["tokens"]):
        parts.append(lengths(data, int(data["settings"]["max_length"])))
        parts.append(masks(data))
        parts.append(checks(data))
    parts.append(table((">line", "rejected because"), rejected))
    if data["rejected_count"] > len(rejected):
        parts.append(f"… and {count(data['rejected_count'] - len(rejected))} more")
    parts += [f"problem: {safe_line(text)}" for text in data["problems"]]
    parts += [f"suggestion: {safe_line(text)}" for text in data["suggestions"]]
    if data["level_reason"]:
        parts.append(safe_line(data["level_reason"]))
    return "\n".join(part for part in parts if part)


def _rows(data: Json) -> list[tuple[str, str]]:
    """What becomes of the accepted rows."""
    held, over, packing = data["held_out"], data["over_limit"], data["packing"]
    validation, limit = data["validation"]["rows"], over["max_length"]
    found = [("trains", f"{counted(data['rows'], 'row')} in {counted(packing['packs'], 'pack')}")]
    if validation:
        found.append(("validates", counted(validation, "row")))
    share = percent(held["count"], data["accepted"])
    found.append(("held out", f"{count(held['count'])} ({share}): in an evaluation set"))
    too_long = f"{count(over['count'])} over {count(limit)} tokens"
    if over["count"]:
        too_long += (
            f" ({100 * over['share']:.1f} %), the longest {count(over['longest'])} (line"
            f" {over['longest_line']}): {'refused' if _refuses(data) else 'left out whole'}"
        )
    found.append(("too long", too_long))
    found.append(("packs filled", f"{100 * packing['fill']:.1f} % of {count(limit)} tokens"))
    return found


def _refuses(data: Json) -> bool:
    return bool(data["settings"]["over_length"] == "refuse")
