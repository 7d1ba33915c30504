"""Which generator's rows are rejected, whether a new version of it made that worse, and which
validator rejects most: the home's items by their lineage. Reads only.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from evaluation.rates import CLEAR, difference, rate
from queue_store import lineage, queue, records
from queue_store.database import State
from queue_store.items import Item, ItemState

Json = dict[str, Any]
NO_LEVEL = {"unknown": "the file's name says none"}
NO_ROWS = {"unknown": "no file with lineage has rows yet"}


@dataclass
class Tally:
    """Sums over files. `over_rows` are the rows whose length is known."""

    files: int = 0
    rows: int = 0
    rejected: int = 0
    over_length: int = 0
    over_rows: int = 0
    held_out: int = 0
    steps: int = 0
    failed: int = 0
    rejected_files: int = 0
    items: list[int] = field(default_factory=list)

    def add(self, item: Item, steps: int) -> None:
        report = item.report or {}
        self.files += 1
        self.items.append(item.id)
        self.rows += report.get("lines", item.lines)
        self.rejected += report.get("rejected_count", item.lines - item.accepted)
        if "over_limit" in report:
            self.over_length += report["over_limit"]["count"]
            self.over_rows += report["accepted"]
        self.held_out += item.held_out or 0
        self.steps += steps
        self.failed += item.state is ItemState.FAILED
        self.rejected_files += item.state is ItemState.REJECTED

    def join(self, other: Tally) -> None:
        for name in ("files", "rows", "rejected", "over_length", "over_rows", "held_out", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed
        self.rejected_files += other.rejected_files
        self.items += other.items

    def json(self) -> Json:
        over: Any = {"unknown": "none of the files is prepared yet"}
        if self.over_rows:
            over = rate(self.over_length, self.over_rows)
        return {
            "files": self.files,
            "rows": self.rows,
            "rejected": self.rejected,
            "rejected_rate": rate(self.rejected, self.rows),
            "over_length": over,
            "held_out": self.held_out,
            "steps": self.steps,
            "failures": self.failed + self.rejected_files,
            "failed": self.failed,
            "rejected_files": self.rejected_files,
            "items": sorted(self.items),
        }


def report(
    state: State, metrics: sqlite3.Connection, *, live: bool, generator: str | None = None
) -> Json:
    """What `trainctl lineage --json` prints (its --help says the shape). `live`: an engine runs;
    `generator`: only this one's files."""
    steps = _steps(metrics, records.line(state, live=live))
    made: dict[tuple[str, str], Tally] = defaultdict(Tally)
    without: dict[tuple[str, int | None], Tally] = defaultdict(Tally)
    broken: list[Json] = []
    checks: dict[str, Json] = {}
    for item in queue.items(state):
        said = lineage.of_item(state, item)
        known = said is not None and "unknown" not in said
        if generator is not None and not (known and said and said["generator_id"] == generator):
            continue
        trained = steps.get(item.id, 0)
        if known and said:
            made[said["generator_id"], said["generator_version"]].add(item, trained)
        else:
            badge = item.badge
            without[badge.get("skill", ""), badge.get("level")].add(item, trained)
            if said:
                broken.append({"item": item.id, "name": item.name, "why": said["unknown"]})
        _count_checks(checks, lineage.validators(state, item), item)
    versions = sorted(made, key=lambda key: (key[0], _order(key[1])))
    return {
        "generators": [
            {"generator": name, "version": version, **made[name, version].json()}
            for name, version in versions
        ],
        "no_lineage": [
            {"skill": skill, "level": dict(NO_LEVEL) if level is None else level, **tally.json()}
            for (skill, level), tally in sorted(
                without.items(), key=lambda kv: (kv[0][0], kv[0][1] or 0)
            )
        ],
        "broken": broken,
        "most_rejected": _most_rejected(made),
        "bumps": list(_bumps(made, versions)),
        "validators": sorted(
            (_validator(name, one) for name, one in checks.items()),
            key=lambda one: (-_share(one["error_rate"]), one["name"]),
        ),
        "most_aggressive": _most_aggressive(checks),
    }


def _steps(metrics: sqlite3.Connection, line: Iterable[tuple[int, int | None]]) -> dict[int, int]:
    """Steps of each item that are part of the present model."""
    found: dict[int, int] = defaultdict(int)
    for run, last in line:
        for item, count in metrics.execute(
            "SELECT item, COUNT(*) FROM steps WHERE run = ? AND step <= ? GROUP BY item",
            (run, 1 << 62 if last is None else last),
        ):
            found[item] += count
    return found


def _order(version: str) -> list[tuple[int, int, str]]:
    """1.10.0 after 1.9.0, and before 1.10.0 nothing but what is older: a key for sorting."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(0, int(part), "") if part.isdecimal() else (-1, 0, part) for part in parts]


def _most_rejected(made: dict[tuple[str, str], Tally]) -> Json:
    """The generator with the highest share of rejected rows, and whether the rest is clearly
    below it."""
    whole: dict[str, Tally] = defaultdict(Tally)
    for (name, _), tally in made.items():
        whole[name].join(tally)
    candidates = {name: tally for name, tally in whole.items() if tally.rows}
    if not candidates:
        return dict(NO_ROWS)
    name = max(candidates, key=lambda n: (candidates[n].rejected / candidates[n].rows, n))
    tally = candidates[name]
    if not tally.rejected:
        rows = sum(one.rows for one in candidates.values())
        return {"unknown": f"no row of any generator was rejected ({rows} rows)"}
    rest = Tally()
    for other, one in candidates.items():
        if other != name:
            rest.join(one)
    p = difference(tally.rejected, tally.rows, rest.rejected, rest.rows)
    return {
        "generator": name,
        "rejected": rate(tally.rejected, tally.rows),
        "others": rate(rest.rejected, rest.rows),
        "p": p,
        "clear": p < CLEAR,
    }


def _bumps(made: dict[tuple[str, str], Tally], versions: list[tuple[str, str]]) -> Iterable[Json]:
    """Each version of a generator against the one before it."""
    for (name, old), (after, new) in pairwise(versions):
        if name != after:
            continue
        one, two = made[name, old], made[name, new]
        p = difference(one.rejected, one.rows, two.rejected, two.rows)
        worse = two.rejected * one.rows > one.rejected * two.rows
        verdict = "no clear difference" if p >= CLEAR else "worse" if worse else "better"
        yield {
            "generator": name,
            "from": old,
            "to": new,
            "before": rate(one.rejected, one.rows),
            "after": rate(two.rejected, two.rows),
            "files": [one.files, two.files],
            "p": p,
            "verdict": verdict,
        }


def _count_checks(checks: dict[str, Json], found: list[Json], item: Item) -> None:
    rows = (item.report or {}).get("lines", item.lines)
    for one in found:
        entry = checks.setdefault(
            one["name"],
            {
                **{"versions": set(), "level": one["level"], "files": 0, "files_failed": 0},
                **{"rows": 0, "errors": 0, "warnings": 0},
            },
        )
        entry["versions"] |= {one["version"]} - {""}
        entry["files"] += 1
        entry["files_failed"] += not one["passed"]
        # A mask check is of a file: it has no rows that it counts.
        entry["rows"] += 1 if one["level"] == "masks" else rows
        entry["errors"] += one["errors"]
        entry["warnings"] += one["warnings"]


def _validator(name: str, one: Json) -> Json:
    errors = min(one["errors"], one["rows"])
    return {
        "name": name,
        "versions": sorted(one["versions"], key=_order),
        "level": one["level"],
        "files": one["files"],
        "files_failed": one["files_failed"],
        "rows": one["rows"],
        "errors": one["errors"],
        "warnings": one["warnings"],
        "error_rate": rate(errors, one["rows"]),
    }


def _share(found: Json) -> float:
    return float(found["share"]) if isinstance(found["share"], float) else -1.0


def _most_aggressive(checks: dict[str, Json]) -> Json:
    """The validator that refuses the largest share of the rows that it looked at. The mask checks
    look at files, so they do not compete."""
    rows = [_validator(n, one) for n, one in checks.items() if one["level"] != "masks"]
    refusing = [one for one in rows if one["errors"]]
    if not refusing:
        return {"unknown": "no validator has refused a row"}
    best = max(refusing, key=lambda one: (_share(one["error_rate"]), one["name"]))
    others = [one for one in rows if one["name"] != best["name"]]
    second = max(others, key=lambda one: _share(one["error_rate"]), default=None)
    mine = best["error_rate"]
    p = 1.0
    if second is not None:
        theirs = second["error_rate"]
        p = difference(mine["hits"], mine["total"], theirs["hits"], theirs["total"])
    return {
        "name": best["name"],
        "versions": best["versions"],
        "error_rate": mine,
        "next": second["name"] if second else {"unknown": "it is the only one"},
        "clear": second is None or p < CLEAR,
    }
