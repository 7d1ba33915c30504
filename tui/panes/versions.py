"""Pane 5: the versions, newest first, with what one needs to choose between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tui.figures import age, count, loss, percent, real, size
from tui.frame import Frame, Record
from tui.panes.base import READING, ListPane, words
from tui.safe import Line, pad, wrap


def score(version: Record) -> str:
    """The share of exact samples, or the first score there is."""
    scores: Any = version.get("scores")
    if isinstance(scores, dict) and "unknown" not in scores:
        value = scores.get("exact", next(iter(scores.values()), None))
        return percent(value) if real(value) is not None else ""
    return percent(scores) if real(scores) is not None else ""


def checked(version: Record) -> str:
    """Whether it was read back and compared: ok, DAMAGED, or not yet."""
    if version.get("state") == "corrupt":
        return "DAMAGED"
    return "ok" if real(version.get("verified_at")) is not None else "unverified"


class VersionsPane(ListPane):
    name_of = "versions"
    number = 5

    def __init__(self) -> None:
        super().__init__()
        self._versions: dict[object, Record] = {}

    def title(self) -> str:
        return f"{len(self._versions)}" + (f" /{self.filter}" if self.filter else "")

    def show(self, frame: Frame) -> None:
        if frame.versions is not self.frame.versions:
            newest_first = reversed(list(frame.versions))
            self._versions = {version.get("name"): version for version in newest_first}
        super().show(frame)

    def keys(self) -> Sequence[object]:
        return list(self._versions)

    def selected(self) -> Record | None:
        """The version under the cursor."""
        keys = self.shown()
        return self._versions[keys[self.position(keys)]] if keys else None

    def heading(self, width: int) -> Line:
        if width < 60:
            return ((f"{'name':5}  {'step':>8} {'val':>6} {'exact':>5} age", "dim"),)
        text = f"{'name':6}  {'branch':>6} {'step':>9} {'loss':>7} {'val':>7} {'exact':>5}"
        return ((f"{text} {'size':>7} {'check':10} {'age':>4} kind       about", "dim"),)

    def row(self, key: object, width: int) -> Line:
        version = self._versions[key]
        pin = "*" if version.get("pinned") else " "
        # Ages are counted from the engine's clock, so that an idle screen stays as it is.
        old = age(self.frame.now, version.get("created"))
        check = checked(version)
        tone = "" if check == "ok" else "bad" if check == "DAMAGED" else "warn"
        val = loss(version.get("val_loss"))
        train = loss(version.get("loss"))
        if width < 60:
            name = f"{key!s:5}{pin}"
            mark = "" if check == "ok" else "!"
            step = count(version.get("step"))
            return (
                (name, "bold"),
                (f" {step:>8} {val:>6} {score(version):>5} {old:>3}", ""),
                (mark, tone),
            )
        return (
            (f"{key!s:6}{pin}", "bold"),
            (f" {version.get('branch')!s:>6} {count(version.get('step')):>9}", ""),
            (f" {train:>7} {val:>7} {score(version):>5}", ""),
            (f" {size(version.get('size_bytes')):>7} ", ""),
            (f"{check:10}", tone),
            (f" {old:>4} {version.get('kind', '')!s:10} ", "dim"),
            (pad(version.get("description", ""), max(0, width - 78)), ""),
        )

    def empty(self, width: int) -> list[Line]:
        if not self.frame.status:
            return READING
        return words(wrap("No versions yet: s keeps the present state as one.", width))
