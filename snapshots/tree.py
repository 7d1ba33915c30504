"""Which version came from which, where the line forks, and what was rolled back.

The tree follows the checkpoints that the versions were made of: a version's parent is the newest
version on the line that its checkpoint came along. Reads only, and no files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from queue_store import records

if TYPE_CHECKING:
    from queue_store.database import State
    from snapshots.versions import Version

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Tree:
    """`parent` names for each version the one that it came from (None: the base model itself);
    `left` are those on a branch that a rollback left, `elsewhere` imported ones that training
    never stood on; `head` is the version that training stands
    on or, where it went on since, after; None where there is none."""

    parent: dict[str, str | None]
    left: frozenset[str]
    head: str | None
    elsewhere: frozenset[str] = frozenset()

    def fields(self, name: str) -> dict[str, Any]:
        """A version's part of its JSON: `parent`, `rolled_back`, and `on_line`, whether it is of
        the line that training stands on."""
        why = "it came from the base model, with no version between"
        if name in self.elsewhere:
            why = "it trained elsewhere, and was imported"
        return {
            "parent": self.parent[name] or {"unknown": why},
            "rolled_back": name in self.left,
            "on_line": name not in self.left | self.elsewhere,
        }


def grow(state: State, found: Sequence[Version]) -> Tree:
    """The tree of `found`, all versions of the home, oldest first."""
    rows = state.db.execute("SELECT id, parent FROM checkpoints")
    came_from: dict[int, int | None] = {row[0]: row[1] for row in rows}
    merged = {v.name for v in found if v.kind == "merged"}
    newest = {v.checkpoint: v.name for v in found if v.name not in merged}

    def line(checkpoint: int | None) -> Iterator[int]:
        while checkpoint is not None:
            yield checkpoint
            checkpoint = came_from.get(checkpoint)

    def nearest(checkpoint: int | None) -> str | None:
        return next((newest[c] for c in line(checkpoint) if c in newest), None)

    at = records.head(state)
    ours = frozenset(line(at.checkpoint.id if at else None))
    imported = {v.name for v in found if v.kind == "imported"}
    off = frozenset(v.name for v in found if v.checkpoint not in ours)
    return Tree(
        parent={
            # A merged model came from its adapter's version, and nothing goes on from it.
            v.name: nearest(v.checkpoint if v.name in merged else came_from.get(v.checkpoint))
            for v in found
        },
        left=off - imported if at else frozenset(),
        head=nearest(at.checkpoint.id) if at else None,
        elsewhere=off & imported,
    )


def drawn(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Rows of `versions` (oldest first) as a tree: each with what stands before its name.

    The line of the head goes straight down; what forks off it stands between, indented.
    """
    names = {row.get("name") for row in rows}
    children: defaultdict[object, list[Row]] = defaultdict(list)
    for row in rows:
        parent = row.get("parent")
        children[parent if isinstance(parent, str) and parent in names else ""].append(row)
    result: list[tuple[str, Row]] = []
    waiting: list[tuple[Row, str, str]] = []

    def wait(below: list[Row], prefix: str, left: object) -> None:
        ours = [row for row in below if row.get("on_line", not row.get("rolled_back"))]
        # Where the head's line ends, what went on from there forks off, all of it.
        straight = ours or (below if left else [])
        main = straight[-1] if straight else None
        if main is not None:
            waiting.append((main, prefix, prefix))
        for row in reversed(below):
            if row is not main:
                waiting.append((row, f"{prefix}|- ", f"{prefix}|  "))

    wait(children[""], "", None)
    while waiting:
        row, before, prefix = waiting.pop()
        result.append((before, row))
        wait(children[row.get("name")], prefix, row.get("rolled_back"))
    return result
