"""Delete a version: what goes, what that frees, where it still lies, and its name typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tui.dialogs.base import Fact
from tui.dialogs.typed import TypedDialog
from tui.figures import age, real, size
from tui.frame import Record

GOES_SHOWN = 4
NOT_A_COPY = "A hard link is not a second copy: names that share bytes share their fate."


def removal_facts(plan: Record, now: float) -> list[Fact]:
    """The engine's `removal_plan` in words."""
    facts: list[Fact] = []
    goes = [str(line) for line in plan.get("goes") or ()]
    for number, line in enumerate(goes[:GOES_SHOWN]):
        facts.append(("goes" if not number else "", line))
    if len(goes) > GOES_SHOWN:
        facts.append(("", f"and {len(goes) - GOES_SHOWN} more"))
    facts.append(("size", f"{size(plan.get('size_bytes'))}, frees {size(plan.get('freed_bytes'))}"))
    shares = [str(name) for name in plan.get("shares") or ()]
    if shares:
        facts.append(("shares", ", ".join(shares)))
    facts.append(("copies", copies_text(plan, now)))
    return facts


def copies_text(record: Record, now: float) -> str:
    """The verified copies elsewhere, with their age, or that there is none."""
    copies = [one for one in record.get("copies") or () if isinstance(one, Mapping)]
    good = [
        f"{one.get('target')} (verified {age(now, one.get('verified_at'))} ago)"
        for one in copies
        if one.get("state", "verified") == "verified" and real(one.get("verified_at")) is not None
    ]
    other = [
        f"{one.get('target')}: {one.get('error') or one.get('state')}"
        for one in copies
        if one.get("state", "verified") != "verified"
    ]
    return ", ".join([*(good or ["none but the one here"]), *other])


class DeleteDialog(TypedDialog):
    """Result: {"version", "confirm"} once the version's name is typed."""

    def __init__(self, plan: Record, now: float) -> None:
        super().__init__()
        self._plan, self._now = plan, now
        self.word = str(plan.get("version"))
        self.title_text = self.button = f"Delete {self.word}"

    def facts(self) -> Sequence[Fact]:
        facts = removal_facts(self._plan, self._now)
        return [*facts, NOT_A_COPY] if self._plan.get("shares") else facts

    def agreed(self) -> Any:
        return {"version": self.word, "confirm": self.word}
