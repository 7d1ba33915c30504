"""`make bench-gpu`: memory, tokens/s and the share of the card's matrix peak, by shape and mode.

Each case runs in a process of its own, and where it is a claim, with no more of the card than that
free (`ballast`). Prints one table and keeps it with the card's name. Exit 1 where a target was
missed or a case broke down, 2 where there is no card.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.__main__ import RESULTS, keep, table
from benchmarks.figures import Row, at_least, at_most, figure, missing, skipped
from benchmarks.gpu.ballast import leaving
from benchmarks.gpu.modes import CLAIMS, MODES, TINY, Case, Claim

GB = 1e9
LIMIT_SECONDS = 1800.0
NO_CARD = (
    "make bench-gpu: torch sees no NVIDIA card here, so nothing was measured"
    " (python -m benchmarks.gpu --device cpu --shape tiny runs the same code on the CPU)"
)
Run = Callable[[Case, Path], dict[str, Any]]
"""Carries a case out, with a folder for models and rows; the fields of runs.Done."""


def carry_out(case: Case, folder: Path) -> dict[str, Any]:
    """Run a case here. The model and the rows are made once in `folder`."""
    import torch

    from benchmarks.gpu import data, runs, shapes
    from engine.training.freeing import free_memory
    from engine.training.quiet import quiet

    quiet()
    runs.before(case.device)
    shape = shapes.SHAPES[case.shape]
    dtype = torch.float32 if case.device == "cpu" else torch.bfloat16
    model = folder / case.shape
    if not (model / "config.json").is_file():
        shapes.make_model(shape, model, case.device, dtype)
        free_memory()  # a small card has no room for a second one
    rows = folder / "rows.jsonl"
    if not rows.is_file():
        count = (case.warm + case.steps + 1) * case.rows_a_step
        rows = data.write_rows(folder, count, case.rows)
    prepared = data.prepared(rows, model, folder / "home", shape.length)
    if case.who == "trainctl":
        return asdict(runs.ours(case, model, prepared))
    return asdict(runs.trl(case, model, rows, runs.packs_of_step(case, prepared)))


def in_a_child(case: Case, folder: Path) -> dict[str, Any]:
    """Run a case in a process of its own. Raises RuntimeError with the reason."""
    place = folder / "done.json"
    place.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.gpu", "--child", json.dumps(asdict(case))]
    try:
        with leaving(case.device, case.cap):
            done = subprocess.run(
                [*words, str(folder), str(place)],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
                stdout=sys.stderr,
                timeout=LIMIT_SECONDS,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done within {LIMIT_SECONDS:.0f} s") from None
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}, see above")
    found: dict[str, Any] = json.loads(place.read_text())
    return found


def rows_of_case(case: Case, done: dict[str, Any], claims: Sequence[Claim]) -> list[Row]:
    """What a case came to."""
    label = f"{case.shape}, {case.mode}" + ("" if case.who == "trainctl" else f", {case.who}")
    found = [
        figure(f"{label}: speed", [done["tokens_per_second"]], "tokens/s"),
        figure("  share of the matrix peak", [100 * done["share_of_peak"]], "%"),
    ]
    for key, words in (
        ("allocated", "peak allocated"),
        ("reserved", "peak reserved"),
        ("card", "peak by NVML"),
        ("host", "host memory"),
    ):
        if done[key] is None:
            found.append(skipped(f"  {words}", "no card"))
        else:
            found.append(figure(f"  {words}", [done[key] / GB], "GB"))
    if done["predicted"] is not None and done["took"]:
        ratio = done["predicted"] / done["took"]
        words = "  estimated / measured"
        if case.device == "cpu":  # the host's memory has much that is nobody's tensor
            found.append(figure(words, [ratio], "x"))
        else:
            found.append(at_most(f"{words}, off by", [100 * abs(ratio - 1)], "%", 5))
    for claim in claims:
        taken = done["card"] or done["reserved"]
        if taken is None:
            found.append(skipped(f"  {claim.words}", "no card"))
        else:
            found.append(at_most(f"  {claim.words}", [taken / GB], "GB", claim.most / GB))
    return found


def measure(
    shape: str, options: argparse.Namespace, run: Run, folder: Path
) -> list[dict[str, Any]]:
    """The rows of one shape: each mode, and TRL's where it has the same."""
    rows: list[Row] = []
    short = options.device == "cpu"
    more = {"warm": 1, "steps": 2, "rows_a_step": 4} if short else {}
    for name in options.mode or (TINY if short else MODES):
        claims = [one for one in CLAIMS if (one.shape, one.mode) == (shape, name)]
        sizes = [*([options.cap * GB] if options.cap else []), *(one.most for one in claims)]
        cap = int(min(sizes, default=0))
        base = {"device": options.device, "rows": tuple(options.rows), "cap": cap, **more}
        mine = _tried(Case(shape, name, **base), claims, run, folder, rows)
        if MODES[name].trl is None:
            continue
        label = f"{shape}, {name}, trl"
        if why := missing("trl"):
            rows.append(skipped(label, why))
            continue
        other = _tried(Case(shape, name, "trl", **base), (), run, folder, rows)
        if mine and other:
            ratio = mine["tokens_per_second"] / other["tokens_per_second"]
            rows.append(at_least(f"{shape}, {name}: speed over TRL's", [ratio], "times", 1.0))
    return rows


def _tried(
    case: Case, claims: Sequence[Claim], run: Run, folder: Path, rows: list[Row]
) -> dict[str, Any] | None:
    """Run a case and add its rows; one that breaks down is a row that says why."""
    try:
        done = run(case, folder)
    except RuntimeError as error:
        label = f"{case.shape}, {case.mode}" + (f", {case.who}" if case.who != "trainctl" else "")
        # What TRL cannot do on this card is no fault of ours.
        met = case.who != "trainctl"
        rows.append({**skipped(label, f"broke down: {error}"), "met": met})
        return None
    rows += rows_of_case(case, done, claims)
    return done


def slug(card: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", card.lower()))


def main(arguments: Sequence[str] | None = None, run: Run = in_a_child) -> int:
    """`run` carries a case out: in a child, or here, where a test asks for that."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu with the shape tiny")
    parser.add_argument("--shape", nargs="+", metavar="NAME", help="default: all four Qwen3")
    parser.add_argument("--mode", nargs="+", choices=MODES, metavar="NAME", help="default: all")
    parser.add_argument("--rows", nargs="+", default=(), metavar="FILE", help="JSONL to train on")
    parser.add_argument("--cap", type=float, default=0.0, metavar="GB", help="a card of that size")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--child", nargs=3, metavar=("CASE", "DIR", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        words, folder, place = options.child
        case = json.loads(words)
        done = carry_out(Case(**{**case, "rows": tuple(case["rows"])}), Path(folder))
        Path(place).write_text(json.dumps(done))
        return 0
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        print(NO_CARD)
        return 2
    from benchmarks.gpu import card, shapes

    name = card.name(options.device)
    unknown = [one for one in options.shape or () if one not in shapes.SHAPES]
    if unknown:
        parser.error(f"no shape {unknown[0]}: one of {', '.join(shapes.SHAPES)}")
    about = machine.describe()
    benches = []
    for shape in options.shape or shapes.REAL:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
            rows = measure(shape, options, run, Path(folder))
        seconds = round(time.monotonic() - started, 1)
        benches.append({"name": shape, "seconds": seconds, "rows": rows})
        print(f"\n{shape} ({seconds:.0f} s)\n{table(rows)}", flush=True)
    size = card.total(options.device) / GB
    report = {
        "date": date.today().isoformat(),
        "quick": False,
        "card": {"name": name, "memory_gb": round(size, 1)},
        "machine": {**about, "processor": f"{name}, {size:.1f} GB; {about['processor']}"},
        "benches": benches,
    }
    return keep(report, options.results, slug(name))


if __name__ == "__main__":
    sys.exit(main())
