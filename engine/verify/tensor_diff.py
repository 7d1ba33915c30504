"""`python -m engine.verify.tensor_diff FOLDER FOLDER`: how far two sets of weights lie apart.

One tensor of each at a time, so that two models of any size fit in memory. Prints one JSON object
`{ok, equal, tensors}`: `equal` counts the tensors that are the same bit for bit; `tensors` are the
others, those that moved most first: {name, shape, dtype, max_abs, mean_abs, relative} (`relative`:
the norm of the difference by that of the first), or {name, only} and {name, a, b} where one has no
such tensor or another shape. Read-only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from snapshots.digest import weight_files


def compare(first: Path, second: Path) -> dict[str, Any]:
    """The JSON object above. Raises OSError and safetensors' errors where a file is damaged."""
    from contextlib import ExitStack

    from safetensors import safe_open

    with ExitStack() as stack:
        places: list[dict[str, Any]] = []
        for folder in (first, second):
            opened = [
                stack.enter_context(safe_open(path, framework="pt"))
                for path in weight_files(folder)
            ]
            places.append({name: file for file in opened for name in file.keys()})  # noqa: SIM118
        return _compare(*places)


def _compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    equal = 0
    found: list[dict[str, Any]] = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            found.append({"name": name, "only": "a" if name in ours else "b"})
            continue
        row = _moved(ours[name].get_tensor(name), theirs[name].get_tensor(name))
        if row is None:
            equal += 1
        else:
            found.append({"name": name, **row})
    found.sort(key=lambda row: -(row.get("relative") or 0.0))
    return {"ok": True, "equal": equal, "tensors": found}


def _moved(a: Any, b: Any) -> dict[str, Any] | None:
    """How far `b` lies from `a`; None where they are the same bit for bit."""
    import torch

    if a.shape != b.shape or a.dtype != b.dtype:
        return {
            key: {"shape": list(t.shape), "dtype": _dtype(t)} for key, t in (("a", a), ("b", b))
        }
    if torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)):
        return None
    gap = (b.double() - a.double()).abs()
    base = float(torch.linalg.vector_norm(a.double()))
    return {
        "shape": list(a.shape),
        "dtype": _dtype(a),
        "max_abs": _finite(float(gap.max())),
        "mean_abs": _finite(float(gap.mean())),
        "relative": _finite(float(torch.linalg.vector_norm(gap)) / base) if base else None,
    }


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if abs(value) < float("inf") else None


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m engine.verify.tensor_diff FOLDER FOLDER", file=sys.stderr)
        return 2
    try:
        print(json.dumps(compare(Path(arguments[0]), Path(arguments[1]))))
    except Exception as error:  # torch and safetensors raise classes of their own
        print(json.dumps({"unfinished": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
