"""`python -m benchmarks [--quick] [--only NAME…] [--results DIR]`: everything that is measured.

Each bench runs in a process of its own, so that no memory, thread setting or import of one
reaches another. Prints one table and keeps it, with the machine's description, as Markdown and
JSON. Exit 1 where a target was missed or a bench broke down.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.figures import missing, skipped

BENCHES = (
    "session",
    "queue",
    "queue_pane",
    "answers",
    "pause",
    "storage",
    "saving",
    "safety",
    "restart",
    "console",
    "attached",
    "curves",
    "faces",
    "memory",
    "hints",
    "engine",
    "loss",
    "validate",
    "compare",
    "prepare",
    "gap",
    "hosts",
    "jobs",
    "ranks",
)
PEERS = {"prepare": "trl"}
"""What a bench compares with, where it is nothing without it."""

RESULTS = Path(__file__).parent / "results"
LIMIT_SECONDS = 1200.0
COLUMNS = ("", "value", "unit", "target", "met", "spread")


def child(name: str, quick: bool, place: Path) -> None:
    """Run one bench here and leave its result at `place`."""
    result = importlib.import_module(f"benchmarks.bench_{name}").run(quick)
    place.write_text(json.dumps(result["rows"]))


def measure(name: str, quick: bool) -> list[dict[str, Any]]:
    """The rows of one bench, from a process of its own; one row that says why, where it broke."""
    if name in PEERS and (why := missing(PEERS[name])):
        return [skipped(name, why)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder) / "rows.json"
        words = [sys.executable, "-m", "benchmarks", "--child", name, str(place)]
        try:
            done = subprocess.run(
                words + ["--quick"] * quick,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
                stdout=sys.stderr,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [_broken(name, f"not done within {LIMIT_SECONDS:.0f} s")]
        if done.returncode:
            return [_broken(name, f"exit code {done.returncode}, see above")]
        rows: list[dict[str, Any]] = json.loads(place.read_text())
        return rows


def _broken(name: str, why: str) -> dict[str, Any]:
    return {**skipped(name, f"broke down: {why}"), "met": False}


def cells(row: dict[str, Any]) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    if row.get("skipped"):
        return [row["label"], "", "", "", "" if row["met"] else "NO", row["skipped"]]
    met = ("yes" if row["met"] else "NO") if row["target"] else ""
    value = f"{row['value']:,}"
    return [row["label"], value, row["unit"], row["target"], met, row.get("spread", "")]


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned columns, for a terminal."""
    lines = [list(COLUMNS)] + [cells(row) for row in rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n == 1 else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    about = report["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    lines = [
        f"# Measured on {report['date']}",
        "",
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB;"
        f" {about['kernel']}, Python {about['python']}; {packages}.",
        f"Load before: {about['load_before']}."
        + (" Short runs (`--quick`): the spread is wide." if report["quick"] else ""),
    ]
    for bench in report["benches"]:
        heads = (f"{bench['name']} ({bench['seconds']:.0f} s)", *COLUMNS[1:])
        lines += ["", "| " + " | ".join(heads) + " |", "|---|--:|---|---|---|---|"]
        lines += [
            "| " + " | ".join(c.replace("|", "/") for c in cells(row)) + " |"
            for row in bench["rows"]
        ]
    return "\n".join(lines) + "\n"


def keep(report: dict[str, Any], folder: Path, name: str) -> int:
    """Write the report into `folder`, by its date and `name`; 1 where a target was missed, or 0."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{report['date']}-{name}"
    place.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    place.with_suffix(".md").write_text(markdown(report))
    print(f"\nkept in {place}.md and .json")
    return 0 if all(row["met"] for bench in report["benches"] for row in bench["rows"]) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs, in five minutes")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=BENCHES, metavar="NAME")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.quick, Path(options.child[1]))
        return 0
    about = machine.describe()
    benches = []
    for name in options.only:
        started = time.monotonic()
        rows = measure(name, options.quick)
        seconds = round(time.monotonic() - started, 1)
        benches.append({"name": name, "seconds": seconds, "rows": rows})
        print(f"\n{name} ({seconds:.0f} s)\n{table(rows)}", flush=True)
    report = {
        "date": date.today().isoformat(),
        "quick": options.quick,
        "machine": about,
        "benches": benches,
    }
    return keep(report, options.results, machine.slug(about))


if __name__ == "__main__":
    sys.exit(main())
