"""An item in the middle of training outlives a release that packs and orders otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import pytest

from engine.prepare import packing
from engine.prepare.prepared import FORMAT
from queue_store.home import Home
from tests import engine_kit as kit


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The release that wrote format 1: best fit alone, and no pack is first."""
    # By the module's name: the package has a function of the same.
    for module in ("prepare", "run"):
        monkeypatch.setattr(sys.modules[f"engine.prepare.{module}"], "FORMAT", 1)
    monkeypatch.setattr(packing, "tightest", packing.best_fit)
    return monkeypatch


def a_home(folder: Path) -> Home:
    home = kit.make_home(folder, training={"epochs": 2})
    kit.add(home, "a.jsonl", 40, 1)
    return home


def test_an_item_goes_on_in_the_order_that_it_began_with(
    tmp_path: Path, older: pytest.MonkeyPatch
) -> None:
    wanted = kit.train_all(a_home(tmp_path / "undisturbed"))
    home = a_home(tmp_path / "upgraded")
    with kit.Running(home) as running:
        running.pause_at(3)
        running.ask("stop")
    older.undo()
    assert FORMAT >= 2
    assert kit.train_all(home) == wanted
    kit.assert_each_row_once(home, 1)
    (folder,) = home.prepared.iterdir()
    assert orjson.loads((folder / "prepared.json").read_bytes())["format"] == 1
    assert kit.train_all(a_home(tmp_path / "new")) != wanted, "what begins now has the new order"
