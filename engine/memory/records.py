"""How well the estimate did so far: predicted and measured peaks of items that trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from queue_store.database import State, now

KEY = "memory.peaks"
KEPT = 100
"""Peaks that are kept, the newest."""


@dataclass(frozen=True)
class Peak:
    """An item's peak on a device, bytes; `settings` is what the estimate depends on, in words."""

    device: str
    item: int
    predicted: int
    measured: int
    settings: str
    time: float


def record(
    state: State, device: str, item: int, *, predicted: int, measured: int, settings: str
) -> None:
    """Keep an item's peak; of one item the highest. In a transaction of its own."""
    before = [one["measured"] for one in state.meta_get(KEY, []) if one["item"] == item]
    measured = max(measured, *before, 0)
    peak = Peak(device, item, predicted, measured, settings, now())
    with state.transaction():
        others = [one for one in state.meta_get(KEY, []) if one["item"] != item]
        state.meta_set(KEY, [*others, asdict(peak)][-KEPT:])


def peaks(state: State, device: str) -> list[Peak]:
    """What was measured on a device of that name, the oldest first."""
    found = [Peak(**one) for one in state.meta_get(KEY, []) if one["device"] == device]
    return [one for one in found if one.measured > 0]


def summary(state: State, device: str) -> dict[str, Any] | None:
    """{items, low, high, last{…}} of predicted / measured on that device, None without one."""
    found = peaks(state, device)
    if not found:
        return None
    ratios = [one.predicted / one.measured for one in found]
    last = asdict(found[-1])
    return {"items": len(found), "low": min(ratios), "high": max(ratios), "last": last}


def told(found: dict[str, Any]) -> str:
    """A summary in words; of one item there is no range."""
    low, high, items = found["low"], found["high"], found["items"]
    if items == 1:
        return f"in 1 item: predicted {low:.0%} of what was measured"
    return f"over {items} items: predicted {low:.0%} to {high:.0%} of what was measured"
