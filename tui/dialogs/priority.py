"""Change an item's priority: the order that follows, and who has to wait."""

from __future__ import annotations

from collections.abc import Sequence

from tui.dialogs.base import Dialog, Fact
from tui.frame import ACTIVE, PRIORITIES, Record, in_order

SHOWN = 8


def raised(word: str, by: int) -> str | None:
    """The priority above (by = -1) or below (+1), None at the end."""
    index = PRIORITIES.index(word) + by if word in PRIORITIES else -1
    return PRIORITIES[index] if 0 <= index < len(PRIORITIES) else None


def preempted(items: Sequence[Record], item: Record, priority: str) -> Record | None:
    """The item in training that would have to wait for `item`, None for nobody."""
    for other in items:
        if other.get("state") == "training" and other.get("id") != item.get("id"):
            above = PRIORITIES.index(priority) < PRIORITIES.index(str(other.get("priority")))
            return other if above else None
    return None


class PriorityDialog(Dialog):
    """Result: the new priority."""

    def __init__(
        self, items: Sequence[Record], item: Record, priority: str, *, preempt: bool
    ) -> None:
        super().__init__()
        self.priority = priority
        self.title_text = f"Set {item.get('name')} to {priority}"
        self.button = f"Set to {priority}"
        waits = preempted(items, item, priority) if preempt else None
        changed = [
            {**other, "priority": priority, "position": float("inf")}
            if other.get("id") == item.get("id")
            else other
            for other in items
        ]
        order = [o for o in in_order(changed) if o.get("state") in (*ACTIVE, "queued", "paused")]
        if waits is not None:
            order = [o for o in order if o.get("id") == item.get("id")] + [
                o for o in order if o.get("id") != item.get("id")
            ]
        at = next((n for n, o in enumerate(order) if o.get("id") == item.get("id")), 0)
        first = max(0, min(at - SHOWN // 2, len(order) - SHOWN))
        self._facts: list[Fact] = ["The order then:"]
        for number, other in list(enumerate(order, 1))[first : first + SHOWN]:
            mark = ">" if other.get("id") == item.get("id") else " "
            text = f"{mark}{number:3}  {other.get('priority')!s:7} {other.get('name')}"
            self._facts.append(text)
        if len(order) > SHOWN:
            self._facts.append(f"     {len(order)} items in all")
        if waits is not None:
            self._facts.append(f"{waits.get('name')} is paused at the next step and goes on after.")

    def facts(self) -> Sequence[Fact]:
        return self._facts

    def result(self, button: str) -> str:
        return self.priority
