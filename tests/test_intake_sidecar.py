"""How a file gets into the store: with its row, and its lineage sidecar with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from queue_store import durable, intake
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.inbox import Inbox

ROW = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


def drop(folder: Path, name: str) -> None:
    (folder / name).write_text(ROW)
    (folder / f"{name}.meta.json").write_text('{"generator_id": "manual"}')


def test_the_inbox_takes_a_sidecar_with_its_file_and_lists_a_lonely_one(home: Home) -> None:
    drop(home.inbox, "a.jsonl")
    (home.inbox / "gone.jsonl.meta.json").write_text("{}")
    inbox = Inbox(home, lambda: open_state(home), 0.0)
    taken = list(inbox.scan().taken) + list(inbox.scan().taken)
    assert [item.name for item in taken] == ["a.jsonl"]
    place = home.items / taken[0].file
    assert intake.sidecar_of(place).read_text() == '{"generator_id": "manual"}'
    assert [w.name for w in inbox.scan().waiting] == ["gone.jsonl.meta.json"]
    inbox.close()


def test_add_copies_a_sidecar_and_no_sidecar_becomes_an_item(home: Home, tmp_path: Path) -> None:
    drop(tmp_path, "b.jsonl")
    with open_state(home) as state:
        item = intake.add_file(state, tmp_path / "b.jsonl")
        assert intake.sidecar_of(home.items / item.file).is_file()
        assert (tmp_path / "b.jsonl.meta.json").is_file()
        assert intake.adopt_orphans(state) == []
        intake.remove(state, item.id)
        assert intake.sidecar_of(home.trash / item.file).is_file()


@pytest.mark.parametrize("take", [True, False])
def test_a_file_gets_its_place_and_its_row_in_one_transaction(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: bool
) -> None:
    """Else an engine that starts just then adopts the file as one without a row: two items."""
    moved = []
    original = durable.take_file
    with open_state(home) as state:

        def looks(source: Path, target: Path) -> None:
            moved.append(state.db.in_transaction)
            original(source, target)

        monkeypatch.setattr(durable, "take_file", looks)
        path = home.inbox / "a.jsonl"
        path.write_text(ROW)
        intake.add_file(state, path, take=take)
    assert moved == [True]
    assert path.exists() is not take
