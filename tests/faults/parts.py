"""Parts of the suite as processes of their own: what they told, and what was wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.faults.mutants import ROOT

Told = list[dict[str, Any]]


def part(module: str, *words: object) -> Told:
    """Run `python -m tests.faults.MODULE …`; one object a point. Raises AssertionError where the
    part itself broke off."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{module} {words}: {done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def nothing_wrong(told: Told) -> None:
    """Raises AssertionError with every point after which something was wrong."""
    judged = [one for one in told if "wrong" in one]
    assert judged, "nothing was judged"
    bad = [one for one in judged if one["wrong"]]
    assert not bad, "\n".join(json.dumps(one) for one in bad)
