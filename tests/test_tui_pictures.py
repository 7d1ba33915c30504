"""Every pane, dialog and view at the three sizes, as text, compared with what it was: where a
difference is meant, `pytest tests/test_tui_pictures.py --snapshot-update` and read the diff."""

from __future__ import annotations

import importlib
import pkgutil
from types import SimpleNamespace
from typing import Any

import pytest
from syrupy import SnapshotAssertion
from textual.screen import ModalScreen

import tui
from tests.test_tui_snapshots import one_terminal  # noqa: F401
from tests.tui_picture import TextPictures, picture
from tests.tui_pilot import NARROW, WIDE, console_on, loaded, screen, until
from tests.tui_shots import DIALOGS, KINDS, PANES, STATES, THEN, Shot
from tui.dialogs.base import Dialog
from tui.dialogs.prompt import PromptBox
from tui.dialogs.reading import ReadingView
from tui.dialogs.typed import TypedDialog
from tui.dialogs.whole import WholeView

SIZES = (WIDE, NARROW, (60, 16))
FRAMES = {Dialog, TypedDialog, WholeView}
"""Only what others are made of."""


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts the seconds of the wall stands still."""
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("tui.dialogs.report.time", clock)
    monkeypatch.setattr("tui.console.MESSAGE_SECONDS", 1e9)
    monkeypatch.setattr(PromptBox, "_tick", lambda self: None)


async def still(pilot: Any) -> str:
    """The picture once it does not change any more."""
    seen: list[str] = ["", "."]
    while seen[-1] != seen[-2]:
        await pilot.pause(0.03)
        seen.append(picture(pilot))
    return seen[-1]


async def taken(shot: Shot, *sizes: tuple[int, int]) -> str:
    """What `shot` shows in a terminal of these sizes, one after the other."""
    world = shot.world()
    app = console_on(world, shot.config, **shot.more)
    found = []
    async with app.run_test(size=sizes[0]) as pilot:
        await until(pilot, lambda: loaded(app), "data")
        await until(pilot, lambda: bool(app.frame.samples) == bool(world.answers), "samples")
        if shot.first is not None:
            shot.first(app, world)
        if shot.zoom:
            await pilot.press(shot.keys[0], "z")
        for key in shot.keys:
            if key.startswith(THEN):
                text = key.removeprefix(THEN)
                await until(pilot, lambda text=text: text in screen(pilot), text)
            else:
                await pilot.press(key)
        if shot.kind is not None:
            await until(pilot, lambda: type(app.screen) is shot.kind, f"{shot.name} opens")
        for size in sizes:
            if size != tuple(app.size):
                await pilot.resize_terminal(*size)
            await until(pilot, lambda: shot.text in screen(pilot), f"{shot.name}: {shot.text}")
            found.append(await still(pilot))
        for event in (world.hold, getattr(world, "asking", None)):
            if event is not None:
                event.set()
    return "\n".join(found)


@pytest.mark.parametrize("shot", [*PANES, *STATES, *DIALOGS], ids=lambda shot: shot.name)
async def test_it_looks_as_it_did(shot: Shot, snapshot: SnapshotAssertion, standing: None) -> None:
    if shot.kind is None:  # a dialog is as wide as the screen was when it opened
        pictures = await taken(shot, *SIZES)
    else:
        pictures = "\n".join([await taken(shot, size) for size in SIZES])
    assert pictures == snapshot(extension_class=TextPictures)


async def test_too_small_looks_as_it_did(snapshot: SnapshotAssertion) -> None:
    app = console_on(PANES[0].world())
    async with app.run_test(size=(50, 12)) as pilot:
        await until(pilot, lambda: "needs 60x16" in screen(pilot))
        assert await still(pilot) == snapshot(extension_class=TextPictures)


def test_every_dialog_and_view_has_a_picture() -> None:
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        importlib.import_module(module.name)

    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    ours = {one for one in below(ModalScreen) if one.__module__.startswith("tui.")}
    assert ReadingView in ours
    assert {one.__name__ for one in ours - FRAMES - KINDS} == set()
