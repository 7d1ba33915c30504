"""Pane 5: the versions, newest first, with what one needs to choose between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tui.evaluation import is_best, share_right
from tui.figures import age, count, loss, percent, real, short, size
from tui.frame import Frame, Record
from tui.panes.base import READING, ListPane, words
from tui.safe import Line, clip, pad, wrap

ABOUT_FROM = 6
"""Lines of the pane from which on one tells what keeps the chosen version."""
TALL, ABOUT_LINES = 12, 3
"""From so many lines on it may take so many, for some are kept by many rules."""
NARROW, ROOMY = 60, 100
"""Columns below which a row says the least, and from which on it says all."""


def score(version: Record) -> str:
    """The share of the fixed examples that were right."""
    samples: Any = version.get("samples")
    if isinstance(samples, Mapping) and real(samples.get("total")):
        return percent((real(samples.get("exact")) or 0.0) / samples["total"])
    return ""


def checked(version: Record) -> str:
    """Whether it was read back and compared (ok), and loads and computes; DAMAGED, or not yet."""
    if version.get("state") == "corrupt":
        return "DAMAGED"
    if real(version.get("verified_at")) is None:
        return "unverified"
    return "ok, loads" if real(version.get("deep_verified_at")) is not None else "ok"


def copies(version: Record) -> list[str]:
    """The targets that hold a verified copy. What lies here under two names is none."""
    found = [one for one in version.get("copies") or () if isinstance(one, Mapping)]
    return [str(one.get("target")) for one in found if one.get("state") == "verified"]


def elsewhere(version: Record) -> str:
    """The copies in a column: the one target, or how many; "here" where there is none."""
    targets = copies(version)
    if len(targets) > 1:
        return f"{len(targets)} more"
    return targets[0] if targets else "here"


def kept(version: Record) -> str:
    """Why it stays, in one line, with its kind and copies."""
    reasons = ", ".join(map(str, version.get("kept_because") or ())) or "no rule: pruned next"
    best = "best · " if is_best(version) else ""
    found = copies(version)
    there = f"copies: {', '.join(found)}" if found else "no copy elsewhere"
    return f"{best}kept: {reasons} · {there} · {version.get('kind')}"


class VersionsPane(ListPane):
    """The cursor goes with the newest version while it was left there. While this is the chosen
    pane it stays on its row, for the next key acts on that. `keeps` is the key that makes a
    version, "" where this console cannot."""

    name_of = "versions"
    number = 5

    def __init__(self, keeps: str = "s") -> None:
        super().__init__()
        self._keeps = keeps
        self.as_tree = False
        """Whether they stand as they came from each other, instead of the newest first."""
        self.marked: str | None = None
        """The name of the version that the others are compared with."""
        self._versions: dict[object, Record] = {}
        self._before: dict[object, str] = {}
        self._newest: object = None

    def title(self) -> str:
        kind = " · tree" if self.as_tree else ""
        mark = f" · = {self.marked} marked" if self.marked else ""
        return f"{len(self._versions)}{kind}{mark}" + (f" /{self.filter}" if self.filter else "")

    def show(self, frame: Frame) -> None:
        if frame.versions is not self.frame.versions:
            self._arrange(frame)
        super().show(frame)

    def _arrange(self, frame: Frame) -> None:
        before = self.shown()
        at = self.position(before)
        follows = not self.has_class("-shown") and before[at : at + 1] == [self._newest]
        if self.as_tree:
            from snapshots.tree import drawn

            pairs = drawn(list(frame.versions))
        else:
            pairs = [("", version) for version in reversed(list(frame.versions))]
        self._versions = {version.get("name"): version for _, version in pairs}
        self._before = {version.get("name"): before for before, version in pairs}
        self._newest = next((v.get("name") for v in reversed(list(frame.versions))), None)
        if self.marked not in self._versions:
            self.marked = None
        left = [key for key in (*before[at:], *reversed(before[:at])) if key in self._versions]
        self.chosen = None if follows or not left else left[0]

    def position(self, keys: Sequence[object]) -> int:
        chosen = self._newest if self.chosen is None else self.chosen
        return list(keys).index(chosen) if chosen in keys else 0

    def toggle_mark(self) -> bool:
        """Mark the chosen version, or take its mark off; whether one is marked now."""
        chosen = self.selected()
        name = None if chosen is None else str(chosen.get("name"))
        self.marked = None if name == self.marked else name
        self.set_title()
        self.redraw()
        return self.marked is not None

    def lines(self, width: int, height: int) -> list[Line]:
        """The list, and below it, where there is room, what keeps the chosen one."""
        chosen = self.selected()
        if height < ABOUT_FROM or chosen is None:
            return super().lines(width, height)
        text = f"{chosen.get('name')} {kept(chosen)}"
        about = wrap(text, width) if height >= TALL else [clip(text, width)]
        about = about[:ABOUT_LINES]
        shown = super().lines(width, height - len(about))
        shown += [()] * (height - len(about) - len(shown))
        return [*shown, *(((line, "dim"),) for line in about)]

    def do_tree(self) -> None:
        self.as_tree = not self.as_tree
        self._arrange(self.frame)
        self.set_title()
        self.redraw()

    def keys(self) -> Sequence[object]:
        return list(self._versions)

    def selected(self) -> Record | None:
        """The version under the cursor."""
        keys = self.shown()
        return self._versions[keys[self.position(keys)]] if keys else None

    def _name_width(self, least: int) -> int:
        """Room for the longest name with its branches, of those that are not very deep."""
        longest = max((len(b) + len(str(k)) for k, b in self._before.items()), default=0)
        return max(least, min(longest, least + 9))

    def heading(self, width: int) -> Line:
        if width < NARROW:
            name = self._name_width(5)
            return ((f"{'name':{name}}  {'step':>6} {'val':>6} exact eval age", "dim"),)
        name = self._name_width(6)
        branch = f" {'branch':>6}" if width >= ROOMY else ""
        train = f"{'loss':>7} " if width >= ROOMY else ""
        text = f"{'name':{name}} {branch} {'step':>9} {train}{'val':>7} exact eval"
        kind = f"{'kind':15} " if width >= ROOMY else ""
        return ((f"{text} {'size':>7} {'check':10} {'age':>4} {'copies':8} {kind}about", "dim"),)

    def row(self, key: object, width: int) -> Line:
        version = self._versions[key]
        line = self._short(key, version) if width < NARROW else self._long(key, version, width)
        if not version.get("rolled_back"):
            return line
        # Left behind by a rollback: still there, and not what trains. Damage keeps its colour.
        return tuple((text, tone if tone == "bad" else "dim") for text, tone in line)

    def _label(self, key: object, version: Record, width: int) -> str:
        text = f"{self._before.get(key, '')}{key!s}"
        sign = "=" if key == self.marked else "^" if is_best(version) else " "
        sign = "*" if sign == " " and version.get("pinned") else sign
        # Of a deep fork the name counts, not where it hangs.
        return f"{text[-width:]:{width}}{sign}"

    def _short(self, key: object, version: Record) -> Line:
        check = checked(version)
        sign = "" if check.startswith("ok") else "!"
        at, val = version.get("step"), loss(version.get("val_loss"))
        step = short(at) if (real(at) or 0) >= 100_000 else count(at)
        old = age(self.frame.now, version.get("created"))
        return (
            (self._label(key, version, self._name_width(5)), "bold"),
            (f" {step:>6} {val:>6} {score(version):>5} {share_right(version):>4} {old:>3}", ""),
            (sign, _tone(check)) if sign else ("+" if copies(version) else "", ""),
        )

    def _long(self, key: object, version: Record, width: int) -> Line:
        check = checked(version)
        roomy = width >= ROOMY
        # Ages are counted from the engine's clock, so that an idle screen stays as it is.
        old = age(self.frame.now, version.get("created"))
        val = loss(version.get("val_loss"))
        train = f" {loss(version.get('loss')):>7}" if roomy else ""
        branch = f" {version.get('branch')!s:>6}" if roomy else ""
        kind = f"{pad(str(version.get('kind', '')), 15)} " if roomy else ""
        tags = "".join(f"[{tag}] " for tag in version.get("tags") or ())
        name = self._label(key, version, self._name_width(6))
        used = len(name) + len(branch) + 63 + len(train) + len(kind)
        return (
            (name, "bold"),
            (f"{branch} {count(version.get('step')):>9}", ""),
            (f"{train} {val:>7} {score(version):>5} {share_right(version):>4}", ""),
            (f" {size(version.get('size_bytes')):>7} ", ""),
            (f"{check:10}", _tone(check)),
            (f" {old:>4} {pad(elsewhere(version), 8)} {kind}", "dim"),
            (pad(f"{tags}{version.get('description', '')}", max(0, width - used)), ""),
        )

    def empty(self, width: int) -> list[Line]:
        if not self.frame.status:
            return READING
        how = f": {self._keeps} keeps the present state as one" if self._keeps else ""
        return words(wrap(f"No versions yet{how}.", width))


def _tone(check: str) -> str:
    return "" if check.startswith("ok") else "bad" if check == "DAMAGED" else "warn"
