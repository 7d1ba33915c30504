"""Whole screens, compared with what they were: both sizes, and the states that need words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from queue_store.config import Config
from tests.test_tui_screen import trained
from tests.test_tui_versions import branched
from tests.tui_pilot import NARROW, WIDE, configured, console_on, loaded, until
from tests.tui_rows import RowsWorld
from tests.tui_world import World

Compare = Callable[..., bool]


@pytest.fixture(autouse=True)
def one_terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Everything that changes a picture and is not ours: colours, locale, time zone."""
    for name in ("NO_COLOR", "TEXTUAL_THEME", "COLUMNS", "LINES", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def full() -> World:
    world = trained(200)
    world.train(120)
    world.version("before the hard file", pinned=True)
    world.hint = "validation loss rises since step 300 (gap 0.08): consider stopping early"
    world.add_item("broken.jsonl", "low", "rejected", error="line 3: not JSON")
    world.add_item("syllo_level0.jsonl", "normal", "done")
    return world


def shot(
    compare: Compare,
    world: World,
    size: tuple[int, int],
    *keys: str,
    config: Config | None = None,
    ready: Callable[[Any], Any] | None = None,
) -> bool:
    app = console_on(world, config)

    async def before(pilot: Any) -> None:
        await until(pilot, lambda: loaded(app), "data")
        await until(pilot, lambda: bool(app.frame.samples) == bool(world.answers), "samples")
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.1)
        if ready is not None:
            await until(pilot, lambda: ready(app))
        await pilot.pause(0.4)

    return compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_training(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert shot(snap_compare, full(), size)


@pytest.mark.parametrize("pane", ["2", "4", "5", "6"])
def test_each_pane_when_folded(snap_compare: Compare, pane: str) -> None:
    assert shot(snap_compare, full(), NARROW, pane)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("key", ["s", "R", "k", "question_mark"])
def test_dialogs(snap_compare: Compare, size: tuple[int, int], key: str) -> None:
    assert shot(snap_compare, full(), size, key)


def forked() -> World:
    """As `branched`, with a copy elsewhere, a tag, and a damaged one."""
    world = branched()
    copy = {"target": "nas", "state": "verified", "verified_at": world.now, "error": ""}
    world.versions_[0] |= {"copies": [copy], "tags": ["good"], "pinned": True}
    world.versions_[1]["state"] = "corrupt"
    return world


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("keys", [["T"], ["i"], ["ctrl+d"]], ids=["tree", "facts", "delete"])
def test_versions(snap_compare: Compare, size: tuple[int, int], keys: list[str]) -> None:
    assert shot(snap_compare, forked(), size, "5", *keys)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("keys", [["enter"], ["t"], ["t", "n", "n"]], ids=["facts", "row", "wrong"])
def test_an_item(snap_compare: Compare, size: tuple[int, int], keys: list[str]) -> None:
    assert shot(snap_compare, RowsWorld(steps=60), size, *keys)


def test_an_items_rows_in_ascii(snap_compare: Compare) -> None:
    assert shot(snap_compare, RowsWorld(steps=60), NARROW, "t", config=configured(ascii=True))


def test_ascii(snap_compare: Compare) -> None:
    assert shot(snap_compare, full(), WIDE, config=configured(ascii=True))


def test_an_empty_home(snap_compare: Compare) -> None:
    world = World()
    world.items.clear()
    world.state, world.phase, world.progress = "starting", "loading the model", 0.4
    assert shot(snap_compare, world, WIDE)


def test_a_lost_engine(snap_compare: Compare) -> None:
    world = full()

    def lose(app: Any) -> bool:
        if not world.lost:
            world.lost = "no engine is running for this home"
            world.now += 12
        return bool(app.frame.lost)

    assert shot(snap_compare, world, WIDE, ready=lose)


def test_too_small(snap_compare: Compare) -> None:
    app = console_on(full())

    async def before(pilot: Any) -> None:
        await pilot.pause(0.3)

    assert snap_compare(app, terminal_size=(50, 12), run_before=before)
