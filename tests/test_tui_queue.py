"""The queue pane: marks, what acts on several items, moves that add up, undo, what is shown."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from tests.test_tui_screen import trained
from tests.tui_pilot import NARROW, console_on, lines, running, screen, until
from tests.tui_world import World
from tui.console import Console
from tui.dialogs.base import Dialog
from tui.dialogs.confirm import TextDialog
from tui.dialogs.details import item_facts
from tui.dialogs.priority import PriorityDialog


def asked(world: World) -> list[tuple[str, dict[str, Any]]]:
    return [entry for entry in world.log if entry[0] != "close"]


def queued(world: World, *names: str, priority: str = "normal") -> None:
    for name in names:
        world.add_item(f"{name}.jsonl", priority, "queued")


def order(app: Console) -> list[str]:
    return [str(item["name"]).removesuffix(".jsonl") for item in app.queue_pane.items()]


async def opened(pilot: Any, kind: type[Any] = Dialog) -> Any:
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), f"{kind.__name__} opens")
    return pilot.app.screen


async def test_marks_are_seen_without_colour_and_escape_takes_them_off() -> None:
    world = trained()
    queued(world, "a", "b")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "down", "space", "space")
        await until(pilot, lambda: "2 marked" in screen(pilot))
        assert "high*train_binary" in screen(pilot) and "norm*gsm8k" in screen(pilot)
        assert "norm a " in screen(pilot), "the next is not"
        await pilot.press("up", "space")
        await until(pilot, lambda: "1 marked" in screen(pilot))
        assert "norm gsm8k" in screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "marked" not in screen(pilot))
        assert "high*" not in screen(pilot)


async def test_the_title_counts_the_rows_that_are_shown() -> None:
    world = trained()
    world.add_item("whole.jsonl", "normal", "trained")
    app = console_on(world)
    async with running(app) as pilot:
        # A file that waits for its checkpoint does not run any more.
        await until(pilot, lambda: "1 queue · 1 run 3 wait " in screen(pilot))
        # While the engine starts, its counts are none.
        frame = app.frame
        app.queue_pane.show(replace(frame, status={**frame.status, "queue": {"normal": 0}}))
        assert "3 wait" in app.queue_pane.title()
        for n in range(4):
            world.add_item(f"bad_{n}.jsonl", "normal", "rejected")
        for n in range(8):
            world.add_item(f"more_{n}.jsonl", "normal", "queued")
        # The title has all the room of its border.
        await until(pilot, lambda: "1 queue · 1 run 11 wait 4 failed " in screen(pilot))


async def test_mark_all_takes_what_the_filter_shows_and_one_dialog_removes_them() -> None:
    world = trained()
    queued(world, *(f"part_{n}" for n in range(12)), "other")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "/", *"part_", "enter", "A", "x")
        await opened(pilot)
        shown = screen(pilot)
        assert "Remove 12 items" in shown and "part_0.jsonl" in shown and "and 4 more" in shown
        assert "u takes this back" in shown
        await pilot.press("right", "enter")
        await until(pilot, lambda: "12 items are removed (u takes it back)" in screen(pilot))
        assert [c for c, _ in asked(world)] == ["remove"] * 12
        await pilot.press("escape")
        await until(pilot, lambda: "part_" not in screen(pilot) and "other" in screen(pilot))
        await pilot.press("u")
        await until(pilot, lambda: "12 items are back in the queue" in screen(pilot))
        await until(pilot, lambda: "part_3" in order(app))
        await pilot.press("u")
        await until(pilot, lambda: "nothing was removed here" in screen(pilot))


async def test_what_did_not_work_is_told_with_its_reason_and_stays_marked() -> None:
    world = trained()
    queued(world, "a", "b", "c", "d")
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.marks = {5, 6, 7, 8}
        await pilot.press("1", "x")
        await opened(pilot)
        for number in (6, 7, 8):
            world.items.remove(world._get(number))
        await pilot.press("right", "enter")
        await opened(pilot, TextDialog)
        assert "3 of 4 did not work" in screen(pilot) and "no item 7" in screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "1 of 4 are removed. Not: b.jsonl: no item 6" in screen(pilot))
        assert "and 1 more" in screen(pilot)


async def test_marked_items_that_cannot_are_named_and_none_that_can_opens_nothing() -> None:
    world = trained()
    world.add_item("bad.jsonl", "low", "failed", error="out of memory")
    world.add_item("worse.jsonl", "low", "failed", error="NaN")
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.marks = {3, 5, 6}
        await pilot.press("1", "r")
        await opened(pilot)
        shown = screen(pilot)
        assert "Retry 2 items" in shown and "1 marked item cannot: gsm8k.jsonl is queued" in shown
        await pilot.press("right", "enter")
        await until(pilot, lambda: "2 items are queued again" in screen(pilot))
        assert {entry[1]["id"] for entry in asked(world)} == {5, 6}
        assert app.queue_pane.marks == {3}, "what could not stays marked"
        app.queue_pane.marks = {2, 3}
        await pilot.press("r")
        await until(pilot, lambda: "none of the 2 marked items is failed or" in screen(pilot))


async def test_marks_are_raised_each_by_one_with_the_order_that_follows() -> None:
    world = trained()
    world.items[1]["priority"] = "low"
    queued(world, "a", "b")
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.marks = {3, 4, 6}
        await pilot.press("1", "+")
        dialog = await opened(pilot, PriorityDialog)
        shown = screen(pilot)
        assert "Set 3 items to their new priorities" in shown
        assert ">  1  high    gsm8k.jsonl" in shown and ">  2  high    b.jsonl" in shown
        assert "   3  normal  train_syllo" in shown, "it is paused, and first of its priority"
        assert "is paused at the next step" in shown and "gsm8k.jsonl trains first" in shown
        assert dialog.words == {3: "high", 6: "high", 4: "normal"}
        await pilot.press("right", "enter")
        await until(pilot, lambda: "3 items are changed" in screen(pilot))
        assert [world._get(n)["priority"] for n in (3, 4, 6)] == ["high", "normal", "high"]


async def test_lowering_what_trains_lets_another_go_first() -> None:
    world = trained()
    world.items[1]["priority"] = "normal"
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "-")
        await opened(pilot, PriorityDialog)
        shown = screen(pilot)
        assert "   1  normal  train_binary" in shown and ">  3  low     train_syllo" in shown
        assert "train_syllo_level1_2000.jsonl is paused at the next step" in shown


async def test_pressed_five_times_it_moves_five_places_while_the_engine_is_slow() -> None:
    world = trained()
    queued(world, *"abcdefgh")
    gate, entered = threading.Event(), threading.Event()
    shift = world.do_shift

    def slow(**arguments: Any) -> Any:
        entered.set()
        gate.wait(120)
        return shift(**arguments)

    world.do_shift = slow  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.chosen = 5
        await pilot.press("1", "J")
        await until(pilot, entered.is_set)
        await pilot.press("J", "J", "J", "J")
        gate.set()
        await until(pilot, lambda: order(app)[2:8] == ["gsm8k", "b", "c", "d", "e", "f"])
        assert app.queue_pane.chosen == 5, "the cursor goes along"
    moves = [arguments for command, arguments in asked(world) if command == "shift"]
    assert sum(move["by"] for move in moves) == 5 and len(moves) == 2


async def test_under_a_filter_it_moves_past_the_next_row_that_is_shown() -> None:
    world = trained()
    queued(world, "set1", "b", "c", "set2", "d", "e", "set3")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1")
        app.queue_pane.set_filter("set")
        app.queue_pane.chosen = 11
        await pilot.press("K")
        await until(pilot, lambda: "set3.jsonl moved 1 earlier" in screen(pilot))
        await until(pilot, lambda: order(app)[6] == "set3")
        assert order(app)[2:10] == ["gsm8k", "set1", "b", "c", "set3", "set2", "d", "e"]
        await pilot.press("K", "K")
        await until(pilot, lambda: "first already, within the priority and what" in screen(pilot))
        assert order(app)[3:5] == ["set3", "set1"]


async def test_a_marked_block_moves_as_one_and_the_end_says_so() -> None:
    world = trained()
    queued(world, *"abcd")
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.marks = {7, 8}
        await pilot.press("1", "K")
        await until(pilot, lambda: order(app)[2:7] == ["gsm8k", "a", "c", "d", "b"])
        await pilot.press("K", "K")
        await until(pilot, lambda: order(app)[2:7] == ["c", "d", "gsm8k", "a", "b"])
        await pilot.press("K")
        await until(pilot, lambda: "first already, within the priority" in screen(pilot))
        assert app.queue_pane.marks == {7, 8}, "marks stay for the next press"


async def test_only_goes_through_what_is_shown() -> None:
    world = trained()
    world.add_item("finished.jsonl", "low", "done")
    world.add_item("broken.jsonl", "low", "failed", error="NaN")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "o")
        await until(pilot, lambda: "only waiting" in screen(pilot))
        assert "gsm8k" in screen(pilot) and "finished" not in screen(pilot)
        await pilot.press("o")
        await until(pilot, lambda: "finished" in screen(pilot))
        assert "broken" in screen(pilot) and "gsm8k" not in screen(pilot)
        await pilot.press("o")
        await until(pilot, lambda: "finished" not in screen(pilot))
        assert "broken" in screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "gsm8k" in screen(pilot) and "only failed" not in screen(pilot))


async def test_nothing_to_show_says_what_shows_more() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("1", "o", "o")
        await until(pilot, lambda: "none of 4 items is ended" in screen(pilot))


async def test_the_cursor_goes_to_the_neighbour_of_an_item_that_has_gone() -> None:
    world = trained()
    queued(world, "a", "b", "c")
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.chosen = 6
        world.items.remove(world._get(6))
        world.event("item.removed", "b removed")
        await until(pilot, lambda: "b" not in order(app))
        chosen = app.queue_pane.selected()
        assert chosen is not None and chosen["name"] == "c.jsonl"


async def test_a_file_in_the_inbox_says_why_it_waits_at_both_sizes() -> None:
    world = trained()
    nothing = {"unknown": "waits in the inbox"}
    world.add_item("new.txt", "normal", "waiting", reason="not a .jsonl file", rows=nothing)
    world.items[-1]["id"] = nothing
    world.items[-1]["source"] = "/home/inbox/new.txt"
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "G")
        await until(pilot, lambda: any(">norm new.txt" in line for line in lines(pilot)))
        assert "not a .jsonl file" in screen(pilot), "in the line under the narrow list"
        for key in ("r", "x"):  # no action on items can mean it
            await pilot.press(key)
            said = "new.txt waits in the inbox (not a .jsonl file): move or delete the file there"
            await until(pilot, lambda said=said: said in screen(pilot))
            await pilot.press("escape")
        await pilot.resize_terminal(*NARROW)
        await until(pilot, lambda: "[1 queue]" in screen(pilot))
        row = next(line for line in lines(pilot) if "new.txt" in line)
        assert "inbox" in row and "not a .jsonl file" in row


async def test_thousands_of_items_are_all_within_reach() -> None:
    world = trained()
    queued(world, *(f"part_{n:05d}" for n in range(3_000)))
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: len(app.queue_pane.items()) == 3_004)
        await pilot.press("1", "G")
        await until(pilot, lambda: ">low  extra" in screen(pilot))
        await pilot.press("up")
        await until(pilot, lambda: ">norm part_02999" in screen(pilot))
        await pilot.press("/", *"part_01242", "enter")
        await until(pilot, lambda: "part_01242" in screen(pilot))
        assert len(app.queue_pane.shown()) == 1
        reads: list[object] = []
        app.queue_pane.record = lambda key, of=app.queue_pane.record: reads.append(key) or of(key)  # type: ignore[method-assign, func-returns-value, misc]
        await pilot.press("escape")
        await until(pilot, lambda: "part_01241" in screen(pilot))
        world.train(1)
        await until(pilot, lambda: "step 121" in screen(pilot))
        assert 0 < len(reads) < 500, "a paint reads the rows on the screen"


async def test_the_details_follow_the_item_while_it_trains_and_stay_where_they_are_read() -> None:
    world = trained()
    attempts = [
        {"n": n, "started": world.now, "ended": world.now + 5, "cause": "data", "error": f"e{n}"}
        for n in range(40)
    ]
    world.items[0] |= {"attempts": attempts, "error": "bad row", "reason": "data"}
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("1", "enter")
        await until(pilot, lambda: "step 120 of 250" in screen(pilot))
        shown = screen(pilot)
        assert "bad row" in shown and "class" in shown
        await pilot.press("j")
        world.train(5)
        await until(pilot, lambda: "step 125 of 250" in screen(pilot))
        assert "   2-" in screen(pilot), "it did not jump to the top"


async def test_lineage_stands_in_the_details() -> None:
    world = trained()
    world.items[0]["lineage"] = {
        "generator": {
            "generator_id": "syllo",
            "generator_version": "1.2",
            "generated_at": "2026-05-01",
            "example_count": 1900,
            "params": {"level": 1},
        },
        "validators": [
            {"name": "rows", "version": "1", "errors": 1, "warnings": 0},
            {"name": "masks", "version": "", "errors": 0, "warnings": 0},
        ],
        "notes": ["the sidecar counts 1900 rows, the file has 2000"],
    }
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "enter")
        await until(pilot, lambda: "syllo 1.2, 2026-05-01, 1 900 rows" in screen(pilot))
        shown = screen(pilot)
        assert "level 1" in shown and "the sidecar counts 1900 rows" in shown
        assert "rows 1: 1 error, 0 warnings" in shown and "1 checker found nothing" in shown
        assert "None" not in shown


def test_what_to_do_about_a_failure_is_said_once_where_it_came_again() -> None:
    tries = [
        {"n": n, "started": 1.0, "ended": 2.0, "cause": cause, "error": "e", "advice": advice}
        for n, (cause, advice) in enumerate([("hang", "A"), ("data", "B"), ("data", "B")], 1)
    ]
    item = {"state": "failed", "error": "e", "reason": "data", "attempts": tries}
    told = [fact[1] for fact in item_facts(item) if fact[1].startswith("what to do")]
    assert told == ["what to do: A", "what to do: B"]
    labels = [fact[0] for fact in item_facts(item)]
    assert labels.index("class") < labels.index("try 1")


async def test_marked_items_are_skipped_with_one_reason() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.marks = {1, 3, 4}
        await pilot.press("1", "k")
        await opened(pilot)
        shown = screen(pilot)
        assert "Skip 3 items" in shown and "gsm8k.jsonl" in shown and "extra.jsonl" in shown
        await pilot.press("enter", "enter")  # behind the reason, and Skip
        await until(pilot, lambda: "3 items are skipped" in screen(pilot))
    skips = [arguments["item"] for command, arguments in asked(world) if command == "skip"]
    assert skips == [1, 3, 4], "in the order of the queue"


async def test_an_engine_lost_in_the_middle_ends_it_and_the_rest_stays_marked() -> None:
    world = trained()
    for name in "abc":
        world.add_item(f"{name}.jsonl", "low", "failed", error="NaN")
    retry = world.do_retry

    def once(id: int) -> Any:
        world.lost = "the engine has ended"
        return retry(id)

    world.do_retry = once  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        app.queue_pane.marks = {5, 6, 7}
        await pilot.press("1", "r")
        await opened(pilot)
        await pilot.press("right", "enter")
        await until(pilot, lambda: len(app.queue_pane.marks) == 2)
        world.lost = ""
        await until(pilot, lambda: "1 of 3 are queued again. Not:" in screen(pilot))
    assert [command for command, _ in asked(world)].count("retry") == 1
