"""What is told of rows and their tokens: `show ID --row N`, lengths, masks, an item's report."""

from __future__ import annotations

from typing import Any

from queue_store.safe import safe_line
from trainctl.context import Context, print_json
from trainctl.output import count, counted, known, pairs, table, text
from trainctl.rowtext import ascii_only, legend, print_row
from tui.histogram import bars
from tui.rowtext import thinking

WIDTH = 78
LINES_SHOWN = 20
FINDINGS_SHOWN = 20
Json = dict[str, Any]


def show_row(context: Context, item: int, line: int) -> int:
    """One row of an item as it trains; exit 1 where the row is wrong."""
    from engine.inspecting.showing import row

    found = row(context.views, item, line)
    if context.json:
        print_json(found)
    else:
        print_row(found)
        print(_place(found))
    return 1 if "error" in found else 0


def _place(found: Json) -> str:
    place, settings = found["prepared"], found["settings"]
    as_it = "as it was prepared" if known(place) else f"with the {_SETTINGS[settings]}"
    facts: list[tuple[str, Any]] = [
        ("item", f"{found['item']}  {text(found['name'])}"),
        ("shown", as_it),
    ]
    if "error" not in found:
        facts.append(("marks", legend()))
    if not known(place):
        return pairs([*facts, ("pack", place)])
    lines = [str(line) for line in place["lines"][:LINES_SHOWN]]
    if len(place["lines"]) > LINES_SHOWN:
        lines.append("…")
    facts += [
        (
            "pack",
            f"{place['pack'] + 1} of {count(place['packs'])} ({place['part']}): "
            + counted(place["rows_in_pack"], "row")
            + f", {counted(place['tokens_in_pack'], 'token')}",
        ),
        ("with lines", " ".join(lines)),
    ]
    for time in place["times"]:
        done = "trained" if time["trained"] else "to come"
        facts.append(
            (
                f"epoch {time['epoch']}",
                f"step {count(time['step'])} of the item, pack {count(time['place'])} of"
                f" {count(place['packs'])} in its order; {done}",
            )
        )
    return pairs(facts)


_SETTINGS = {"frozen": "settings that the item began with", "now": "settings of now"}


def lengths(data: Json, limit: int) -> str:
    """Token lengths in figures and as a histogram."""
    tokens = data["tokens"]
    figures = ", ".join(
        f"{key} {count(round(tokens[key]))}" for key in ("mean", "p50", "p95", "p99", "max")
    )
    drawn = bars(tokens["histogram"], WIDTH, limit=limit, ascii=ascii_only())
    return "\n".join([f"tokens a row: {figures}; {count(tokens['total'])} in all", *drawn])


def masks(data: Json) -> str:
    """What share trains, how that was told, and the checks of the masks."""
    found = data["masks"]
    ways = ", ".join(f"{way} ({count(rows)})" for way, rows in found["ways"].items())
    lines = [
        f"trained tokens: {100 * found['trained_share']:.1f} %" + (f", by {ways}" if ways else "")
    ]
    told = thinking(found.get("thinking"))
    lines += [f"thinking: {safe_line(told)}"] if told else []
    for check in found.get("checks", ()):
        where = f" (line {check['line']})" if known(check["line"]) else ""
        word = "ok  " if check["passed"] else "FAIL"
        lines.append(f"  {word} {safe_line(str(check['name']))}{where}: {safe_line(check['text'])}")
    return "\n".join(lines)


def checks(data: Json) -> str:
    """What the checkers of contents found, by checker, and the first of it by line."""
    found = data.get("checks")
    if not isinstance(found, dict) or not known(found):
        return ""
    counts = {name: number for name, number in found["counts"].items() if number}
    told = ", ".join(f"{safe_line(name)} {count(number)}" for name, number in counts.items())
    rows = [
        (one["line"], f"{one['checker']} {one['version']}", one["severity"], one["text"])
        for one in found["findings"][:FINDINGS_SHOWN]
    ]
    more = sum(counts.values()) - len(rows)
    head = f"checks ({found['level']}, {len(found['versions'])} checkers): {told or 'nothing'}"
    parts = [head, table((">line", "checker", "severity", "found"), rows)]
    if more > 0:
        parts.append(f"… and {count(more)} more")
    return "\n".join(part for part in parts if part)


def prepared_text(report: Json) -> str:
    """What preparing an item found: rows left out, lengths, masks."""
    over, packing = report["over_limit"], report["packing"]
    facts = pairs(
        [
            ("held out", count(len(report["held_out"]))),
            ("too long", f"{count(over['count'])} over {count(over['max_length'])} tokens"),
            ("rejected", count(report["rejected_count"])),
            ("packs", f"{count(packing['packs'])}, {100 * packing['fill']:.1f} % filled"),
            ("validates", count(report["validation"]["rows"])),
        ]
    )
    limit = int(over["max_length"])
    parts = [facts, lengths(report, limit), masks(report), checks(report)]
    return "\n".join(part for part in parts if part)
