"""The add dialog: completion on the screen, several files, what is wrong said inside it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from engine.reading import shapes
from tests.test_tui_queue import asked
from tests.test_tui_screen import trained
from tests.tui_pilot import NARROW, console_on, go_to, push, running, screen, until
from tests.tui_world import World
from tui import paths
from tui.dialogs.add import AddDialog


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("part_a.jsonl", "part_b.jsonl", "other.jsonl"):
        (tmp_path / name).write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(pilot: Any) -> str:
    return str(pilot.app.screen.query_one("#path", Input).value)


def added(world: World) -> list[tuple[str, str]]:
    return [(a["path"], a["priority"]) for command, a in asked(world) if command == "add"]


async def test_tab_completes_and_shows_the_candidates(folder: Path) -> None:
    world = trained()
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("1", "a", "p", "tab")
        await until(pilot, lambda: typed(pilot) == "part_")
        await until(pilot, lambda: "part_a.jsonl  part_b.jsonl" in screen(pilot))
        await pilot.press("b", "tab")
        await until(pilot, lambda: typed(pilot) == "part_b.jsonl ")
        assert "part_a.jsonl" not in screen(pilot)
        assert app.focused is not None and app.focused.id == "path", "Tab stays in the field"
        await pilot.press("z", "z", "tab")
        await until(pilot, lambda: "nothing here begins with zz" in screen(pilot))
        await pilot.press("backspace", "backspace")
        await push(pilot, "#accept")
        await until(pilot, lambda: added(world))
    assert added(world) == [(str(folder / "part_b.jsonl"), "normal")]


async def test_a_glob_adds_several_and_tells_how_many(folder: Path) -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "a", *"part_*.jsonl other.jsonl")
        await push(pilot, "#accept")
        await until(pilot, lambda: "3 items are queued" in screen(pilot))
    names = ["part_a.jsonl", "part_b.jsonl", "other.jsonl"]
    assert added(world) == [(str(folder / name), "normal") for name in names]


async def test_of_several_a_rejected_one_is_told(folder: Path) -> None:
    world = trained()
    add = world.do_add

    def some(path: str, priority: str) -> Any:
        found = add(path, priority)
        if "part_b" in path:
            found[0] |= {"state": "rejected", "error": "line 1: no messages"}
        return found

    world.do_add = some  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "a", *"part_*")
        await push(pilot, "#accept")
        wanted = "1 of 2 are queued. Not: part_b.jsonl: rejected: line 1: no messages"
        await until(pilot, lambda: wanted in screen(pilot))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("none.jsonl", "no such file"),
        (".", "a folder, not a file"),
        ("*.json", "no file matches"),
        ("", "type the path of a file"),
    ],
)
async def test_what_is_wrong_stands_in_the_dialog_and_what_was_typed_stays(
    folder: Path, text: str, why: str
) -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "a", *text)
        await push(pilot, "#accept")
        await until(pilot, lambda: why in screen(pilot))
        assert isinstance(app.screen, AddDialog) and typed(pilot) == text
        assert added(world) == []


async def test_a_file_that_is_there_already_is_told_once(folder: Path) -> None:
    world = trained()
    world.add_item("other.jsonl", "low", "done", size=3)
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: len(app.queue_pane.items()) == 5)
        await pilot.press("1", "a", *"other.jsonl")
        await push(pilot, "#accept")
        await until(pilot, lambda: "is there already (item 5, done, 3 B)" in screen(pilot))
        assert added(world) == [] and typed(pilot) == "other.jsonl"
        await push(pilot, "#accept")
        await until(pilot, lambda: len(added(world)) == 1)


async def test_a_file_is_added_while_others_wait_in_the_inbox(folder: Path) -> None:
    """Of those nothing is known but the name, not even an id or a size."""
    world = trained()
    path = str(folder / "inbox/other.jsonl")
    file = {"name": "other.jsonl", "priority": 1, "reason": "open", "path": path, "since": 0.0}
    world.items.append(shapes.waiting(file))
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: len(app.queue_pane.items()) == 5)
        await pilot.press("1", "a", *"other.jsonl")
        await push(pilot, "#accept")
        await until(pilot, lambda: "other.jsonl is queued" in screen(pilot))
    assert added(world) == [(str(folder / "other.jsonl"), "normal")]


async def test_what_the_engine_refuses_comes_back_into_the_dialog(folder: Path) -> None:
    world = trained()
    world.refuse["add"] = "no room on the disk for other.jsonl: it stays where it is"
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "a", *"other.jsonl")
        await push(pilot, "#accept")
        await until(
            pilot,
            lambda: isinstance(app.screen, AddDialog) and typed(pilot) == "other.jsonl",
            "the dialog again",
        )
        await until(pilot, lambda: screen(pilot).count("no room on the disk") == 2)


async def test_a_folder_that_does_not_answer_freezes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    complete = paths.complete

    def slow(line: str, base: str) -> paths.Completed:
        entered.set()
        release.wait(120)
        return complete(line, base)

    monkeypatch.setattr(paths, "complete", slow)
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "a", "o", "tab")
        await until(pilot, entered.is_set)
        await until(pilot, lambda: "reading ..." in screen(pilot))
        world.train(1)
        await until(pilot, lambda: "step 121" in screen(pilot), "the screen lives")
        await pilot.press("t")
        release.set()
        await pilot.press("h")
        await pilot.pause(0.1)
        assert typed(pilot) == "oth", "an answer about another text is dropped"
        await pilot.press("escape", "p")
        await until(pilot, lambda: world.state == "paused")


async def test_enter_behind_the_path_leaves_the_priority_as_it_is(folder: Path) -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "a", *"other.jsonl", "enter", "enter")
        await until(pilot, lambda: added(world))
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, AddDialog))
        await pilot.press(*"part_a.jsonl")
        await go_to(pilot, "#level")
        await pilot.press("enter")  # what is chosen already
        await push(pilot, "#accept")
        await until(pilot, lambda: len(added(world)) == 2)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, AddDialog))
        await pilot.press(*"part_b.jsonl")
        await go_to(pilot, "#level")
        await pilot.press("down", "enter")
        await push(pilot, "#accept")
        await until(pilot, lambda: len(added(world)) == 3)
    names = (("other.jsonl", "normal"), ("part_a.jsonl", "normal"), ("part_b.jsonl", "low"))
    assert added(world) == [(str(folder / name), word) for name, word in names]
