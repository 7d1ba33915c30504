"""Change the priority of items: the order that follows, and who has to wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tui.dialogs.base import Dialog, Fact
from tui.frame import PRIORITIES, WAITING, Record, in_order, key_of

SHOWN = 8
RUNNING = ("training", "preparing")


def raised(word: str, by: int) -> str | None:
    """The priority above (by = -1) or below (+1), None at the end."""
    index = PRIORITIES.index(word) + by if word in PRIORITIES else -1
    return PRIORITIES[index] if 0 <= index < len(PRIORITIES) else None


def changed(items: Sequence[Record], words: Mapping[object, str]) -> list[Record]:
    """What runs and waits, once the items of `words` have these priorities: as the engine does
    it, each goes to the end of its new priority, in the order of `words`."""
    place = {key: 1e18 + n for n, key in enumerate(words)}
    return [
        {**item, "priority": words[key], "position": place[key]} if key in words else item
        for item in items
        if item.get("state") in (*RUNNING, *WAITING)
        for key in (key_of(item),)
    ]


def preempted(items: Sequence[Record]) -> Record | None:
    """The item in training, where one of a higher priority waits: it makes way at the next step."""
    waits = [_level(item) for item in items if item.get("state") in WAITING]
    for item in items:
        if item.get("state") == "training" and waits and min(waits) < _level(item):
            return item
    return None


def _level(item: Record) -> int:
    word = str(item.get("priority"))
    return PRIORITIES.index(word) if word in PRIORITIES else len(PRIORITIES)


class PriorityDialog(Dialog):
    """Result: the new priorities, by the items' keys, in order. `words` are those proposed."""

    def __init__(
        self,
        items: Sequence[Record],
        words: Mapping[object, str],
        *,
        preempt: bool,
        notes: Sequence[Fact] = (),
    ) -> None:
        super().__init__()
        self.words = dict(words)
        chosen = [item for item in items if key_of(item) in self.words]
        to = set(self.words.values())
        who = str(chosen[0].get("name")) if len(chosen) == 1 else f"{len(chosen)} items"
        word = next(iter(to)) if len(to) == 1 else "their new priorities"
        self.title_text = f"Set {who} to {word}"
        self.button = f"Set to {word}" if len(to) == 1 else "Set them"
        after = changed(items, self.words)
        waits = preempted(after) if preempt else None
        if waits is not None:
            after = [{**o, "state": "paused"} if o is waits else o for o in after]
        order = in_order(after)
        at = [n for n, item in enumerate(order) if key_of(item) in self.words]
        first = max(0, min(at[0] - SHOWN // 2, len(order) - SHOWN)) if at else 0
        self._facts: list[Fact] = list(notes)
        if waits is not None:
            text = f"{waits.get('name')} is paused at the next step and goes on after"
            self._facts.append(f"{text}: {order[0].get('name')} trains first.")
        self._facts.append("The order then:")
        for number, other in list(enumerate(order, 1))[first : first + SHOWN]:
            mark = ">" if key_of(other) in self.words else " "
            text = f"{mark}{number:3}  {other.get('priority')!s:7} {other.get('name')}"
            self._facts.append(text)
        below = sum(place >= first + SHOWN for place in at)
        if below:
            self._facts.append(f"     and {below} more of them further down")
        if len(order) > SHOWN:
            self._facts.append(f"     {len(order)} items in all")

    def facts(self) -> Sequence[Fact]:
        return self._facts

    def result(self, button: str) -> dict[object, str]:
        return self.words
