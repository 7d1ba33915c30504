"""The hint line and its dialog: the most important first, why, what to do, and hushing."""

from __future__ import annotations

from typing import Any

import pytest

from engine.hints import surroundings
from engine.hints.hint import RULES, Hint
from queue_store.failures import Cause
from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_world import T0, World
from tui.hints import figures, told

GAP = Hint(
    "gap_grows",
    "validation loss rises since step 17900: 0.231, best 0.151, gap to training 0.083",
    {"gap_nats": 0.083, "best_step": 17900, "validations": 20},
    "it learns by heart: end the item and keep what it taught (k)",
    since_step=17900,
    since_time=T0 - 7200,
)
LOW = surroundings.disk_low(2_000_000_000, 3_000_000_000, 1_000_000_000, "/home/me/store")
OOM = surroundings.failing(
    surroundings.Failed(
        2, "big.jsonl", Cause.CUDA_MEMORY, "tried to allocate 2.00 GiB (peak 23.1 GB)", T0, 3
    )
)


def world_with(*hints: Hint | None) -> World:
    world = World(steps=5)
    world.hints = [hint for hint in hints if hint is not None]
    return world


def line_of(pilot: Any) -> str:
    return lines(pilot)[-2]


def bare(pilot: Any) -> str:
    """The text of the dialog on top, on one line."""
    rows = [line.split("│") for line in lines(pilot)]
    return " ".join(" ".join(max(row, key=len) for row in rows if len(row) > 2).split())


async def test_the_most_important_hint_stands_there_with_its_key_and_how_many_more() -> None:
    app = console_on(world_with(GAP, OOM, surroundings.paused(5)))
    async with running(app, NARROW) as pilot:
        await until(pilot, lambda: "X big.jsonl: CUDA out of memory" in line_of(pilot))
        assert line_of(pilot).rstrip().endswith("(+2) [why: w]")
        assert "…" in line_of(pilot), "what is too long is cut before the key, not the key"


async def test_in_the_curves_the_line_names_the_other_key_and_both_open_the_dialog() -> None:
    app = console_on(world_with(GAP))
    async with running(app) as pilot:
        await until(pilot, lambda: "[why: w]" in line_of(pilot))
        await pilot.press("2")
        await until(pilot, lambda: "[why: W]" in line_of(pilot))
        await pilot.press("w")
        assert app.screen is app._base(), "w is the window there"
        await pilot.press("W")
        await until(pilot, lambda: "what to do" in screen(pilot))
        await pilot.press("escape", "1", "w")
        await until(pilot, lambda: "what to do" in screen(pilot))


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_the_dialog_tells_figures_since_reason_and_advice(size: tuple[int, int]) -> None:
    app = console_on(world_with(GAP, LOW, OOM))
    async with running(app, size) as pilot:
        await pilot.press("w")
        await until(pilot, lambda: "Hints: 3" in screen(pilot))
        shown = bare(pilot)
        assert "peak 23.1 GB" in shown and "gradient_checkpointing" in shown
        await pilot.press("down", "down")
        await until(pilot, lambda: "what to do it learns by heart" in bare(pilot))
        shown = bare(pilot)
        await pilot.press("pagedown")  # where there is little room, the reason is further down
        await until(pilot, lambda: "why it says so" in bare(pilot))
        shown += bare(pilot)
        for part in ("gap 0.083 nats", "best step 17 900", "validations 20", "since step 17 900"):
            assert part in shown
        assert RULES["gap_grows"].reason in shown and "Esc close" in shown


async def test_a_hushed_hint_is_away_here_until_its_condition_ended() -> None:
    world = world_with(GAP, LOW)
    app = console_on(world)
    other = console_on(world)
    async with running(app, NARROW) as pilot:
        await until(pilot, lambda: "GB are free" in line_of(pilot))
        await pilot.press("w", "h")
        await until(pilot, lambda: "hushed" in screen(pilot) and "show it again" in screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "validation loss rises" in line_of(pilot))
        assert "(+" not in line_of(pilot)
        world.hints = [GAP]
        world.train(1)
        await until(pilot, lambda: app.frame.step == 6)
        assert LOW is not None
        world.hints = [GAP, LOW]
        world.train(1)
        await until(pilot, lambda: "GB are free" in line_of(pilot), "it came again")
        await pilot.press("w", "h", "j", "h", "escape")
        await until(pilot, lambda: "GB are free" not in line_of(pilot))
        await until(pilot, lambda: "rises" not in line_of(pilot), "all are hushed")
        await pilot.press("w", "h", "escape")
        await until(pilot, lambda: "GB are free" in line_of(pilot), "and shown again")
    async with running(other, NARROW) as pilot:
        await until(pilot, lambda: "GB are free" in line_of(pilot), "another console's own")


async def test_what_stands_in_the_dialog_stays_while_the_engine_goes_on() -> None:
    world = world_with(GAP, LOW)
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("w")
        await until(pilot, lambda: "Hints: 2" in screen(pilot))
        before = screen(pilot)
        world.hints = []
        world.train(1)
        await until(pilot, lambda: app.frame.step == 6)
        after = screen(pilot)
        assert "Hints: 2" in after and [row[2:-2] for row in before.splitlines()[4:18]] == [
            row[2:-2] for row in after.splitlines()[4:18]
        ]
        await pilot.press("escape")
        await until(pilot, lambda: "GB are free" not in screen(pilot))


async def test_without_a_hint_the_key_says_so_and_the_line_is_quiet() -> None:
    app = console_on(World(steps=5))
    async with running(app, NARROW) as pilot:
        assert "[why" not in screen(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "no hint stands" in screen(pilot))


async def test_an_engine_that_tells_only_the_line_is_understood() -> None:
    world = World(steps=5)
    whole = world.do_snapshot()

    def older() -> dict[str, Any]:
        return {key: v for key, v in whole.items() if key != "hints"} | {"hint": "look here"}

    world.do_snapshot = older  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await until(pilot, lambda: "! look here" in line_of(pilot))
        await pilot.press("w")
        await until(pilot, lambda: "Hints: 1" in screen(pilot))


async def test_hostile_text_of_a_file_name_and_ascii() -> None:
    bad = surroundings.file_waits(
        [surroundings.Waits("a\x1b]52;c;aGk=\x07[/b].jsonl", "open elsewhere", 600.0)]
    )
    world = world_with(bad, GAP)
    world.now = T0
    app = console_on(world, configured(ascii=True))
    async with running(app, NARROW) as pilot:
        await pilot.press("w")
        await until(pilot, lambda: "Hints: 2" in screen(pilot))
        await pilot.press("down")
        assert "\x1b" not in screen(pilot) and "\x07" not in screen(pilot)
        await until(pilot, lambda: "[/b]" in screen(pilot), "readable, not markup")
        await pilot.press("up", "h", "escape")
        await until(pilot, lambda: "waits in the inbox" in line_of(pilot))


def test_figures_are_said_with_the_unit_at_the_end_of_their_name() -> None:
    hint = {
        "figures": {
            "free_bytes": 2e9,
            "eta_seconds": 90,
            "slow_percent": 80.0,
            "temperature_celsius": 91.0,
            "times_usual": 4.25,
            "cause": "data",
            "loss_nats": float("nan"),
        }
    }
    assert figures(hint) == [
        ("free", "2.0 GB"),
        ("eta", "1m30s"),
        ("slow", "80%"),
        ("temperature", "91 °C"),
        ("times usual", "4.25"),
        ("cause", "data"),
        ("loss nats", "nan"),
    ]
    assert figures({}) == [] and told({}) == [] and told({"hint": ""}) == []
