"""Items of a database made anew: a row for every file in store/items, under its old number.

The number stands in the file's name; in names of before it, ledgers tell it by the item's name.
Must never lose a file: one whose number is taken gets another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from queue_store import intake, journal, queue
from queue_store.database import State
from snapshots.checkpoints import Ledger


def fill(state: State, ledgers: Iterable[Ledger], unknown: list[str]) -> None:
    """Rows for the files that have none, in the order in which they came; rows whose files are
    gone go. What is guessed is appended to `unknown`."""
    known = {row[0] for row in state.db.execute("SELECT file FROM items")}
    there: set[str] = set()
    told: list[tuple[intake.Named, Path]] = []
    for path in sorted(state.home.items.iterdir()):
        there.add(path.name)
        if path.name not in known and not path.name.endswith(intake.SIDECAR) and path.is_file():
            told.append((intake.read_name(path.name), path))
    hints = _hints(state, ledgers)
    for named, path in sorted(told, key=lambda one: (one[0].id is None, one[0].stamp)):
        wanted = named.id
        if wanted is None:
            wanted = next((i for i in sorted(hints) if hints[i] == named.name), None)
            hints.pop(wanted or 0, None)
            unknown.append(f"the number of {named.name}: its file is of an older trainctl")
        intake.adopt(state, path, wanted)
    for number, file in state.db.execute("SELECT id, file FROM items").fetchall():
        if file not in there and not (state.home.items / file).exists():
            _without_file(state, number, file)


def _hints(state: State, ledgers: Iterable[Ledger]) -> dict[int, str]:
    """Names of items by number, as ledgers have them."""
    have = {row[0] for row in state.db.execute("SELECT id FROM items")}
    return {
        led.item: led.training_file
        for led in ledgers
        if led.item is not None and led.training_file and led.item not in have
    }


def _without_file(state: State, number: int, file: str) -> None:
    """An item of the copy that was removed since: its row goes too."""
    item = queue.get(state, number)
    text = f"{item.name} has no file any more: removed since the copy was made"
    journal.record(state, "item.removed", text, item=number, data={"file": file})
    state.db.execute("DELETE FROM attempts WHERE item = ?", (number,))
    state.db.execute("DELETE FROM items WHERE id = ?", (number,))
