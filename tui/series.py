"""A metric's history as arrays that stay small however long training runs.

Imported after the first frame only, as it needs numpy. Extremes survive every reduction, so
that a spike of one step stays visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LIMIT = 1 << 14
"""Points that are kept; twice as many are merged two by two."""


@dataclass(frozen=True, eq=False)
class Series:
    """`steps` int64[n] ascending; `low`, `high`, `mean` float64[n], NaN where the value is not a
    number. `spacing` is the number of steps that the widest point stands for."""

    metric: str
    branch: Any
    steps: NDArray[np.int64]
    low: Floats
    high: Floats
    mean: Floats
    spacing: float = 1.0

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> int:
        return int(self.steps[-1]) if len(self.steps) else -1


@dataclass(frozen=True, eq=False)
class Track:
    """A branch left: `series` are its own steps alone, after step `fork`, the last one that it
    shares with the present line, to step `tip`; `name` is the version made of it, "" for none."""

    name: str
    branch: Any
    fork: int
    tip: int
    series: Series

    @property
    def key(self) -> tuple[Any, ...]:
        """The same for the same branch, read for the same metric and range."""
        spacing, length = self.series.spacing, len(self.series)
        return self.name, self.branch, self.fork, self.tip, self.series.metric, spacing, length

    def seen(self, metric: str, first: float, last: float) -> bool:
        """Whether any of it stands between two steps, in the picture of a metric."""
        drawn = self.series.metric == metric and len(self.series) > 0
        return drawn and self.fork <= last and self.tip >= first


def track(result: Mapping[str, Any]) -> Track:
    """One entry of a `left_branches` answer."""
    name, fork, tip = str(result.get("name") or ""), int(result["fork"]), int(result["tip"])
    return Track(name, result.get("branch"), fork, tip, of(result))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def of(result: Mapping[str, Any]) -> Series:
    """The answer of a `series` request: points of [step, min, max, mean, …], null where none."""
    points: Sequence[Sequence[Any]] = result.get("points") or ()
    table = np.array(
        [[_number(value) for value in point[:4]] for point in points], dtype=np.float64
    ).reshape(len(points), 4)
    merged = int(result.get("total") or 0) > len(points) > 0
    reach = float(table[-1, 0] - table[0, 0] + 1) if merged else 1.0
    return Series(
        metric=str(result.get("metric", "")),
        branch=result.get("branch"),
        steps=table[:, 0].astype(np.int64),
        low=table[:, 1].copy(),
        high=table[:, 2].copy(),
        mean=table[:, 3].copy(),
        spacing=max(1.0, reach / len(points)) if merged else 1.0,
    )


def extended(series: Series, tail: Series) -> Series:
    """`series` with the later points of `tail` behind it, merged where they are too many."""
    keep = tail.steps > series.last
    if not keep.any():
        return series
    joined = Series(
        metric=series.metric,
        branch=tail.branch,
        steps=np.concatenate((series.steps, tail.steps[keep])),
        low=np.concatenate((series.low, tail.low[keep])),
        high=np.concatenate((series.high, tail.high[keep])),
        mean=np.concatenate((series.mean, tail.mean[keep])),
        spacing=max(series.spacing, tail.spacing),
    )
    return _halved(joined) if len(joined) > 2 * LIMIT else joined


def _halved(series: Series) -> Series:
    """Every two points made one."""
    even = len(series) // 2 * 2
    last = slice(even, None)
    low, high = series.low[:even].reshape(-1, 2), series.high[:even].reshape(-1, 2)
    mean = series.mean[:even].reshape(-1, 2)
    # A pair with a NaN in it keeps its NaN mean, so that the gap stays on the curve.
    return Series(
        metric=series.metric,
        branch=series.branch,
        steps=np.concatenate((series.steps[:even:2], series.steps[last])),
        low=np.concatenate((np.fmin(low[:, 0], low[:, 1]), series.low[last])),
        high=np.concatenate((np.fmax(high[:, 0], high[:, 1]), series.high[last])),
        mean=np.concatenate((mean.mean(axis=1), series.mean[last])),
        spacing=series.spacing * 2,
    )
