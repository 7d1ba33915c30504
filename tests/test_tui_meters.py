"""The meters: figures, their last minutes as bars, what warns, and what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from engine.machine.meters import SAMPLES
from tests.test_tui_screen import trained
from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_world import World, unknown
from tui import levels
from tui.meterrows import strip_line
from tui.safe import line_text
from tui.spark import ASCII, BLOCKS, SPAN, bins, spark
from tui.steady import Steady

CARD: dict[str, Any] = {
    "name": "NVIDIA H200",
    "utilization": 91,
    "memory_used": 100e9,
    "memory_total": 140e9,
    "temperature": 63,
    "power": 281.0,
    "power_limit": 700.0,
    "throttle": [],
    "others": [],
}
LOST = {key: unknown("NVML: GPU is lost") for key in CARD}


def machine(*gpus: dict[str, Any], **status: Any) -> World:
    world = trained()
    world.gpus = list(gpus)
    world.past = [float(n % 100) for n in range(150)]
    told = world.do_snapshot

    def snapshot() -> dict[str, Any]:
        return {**told(), **status}

    world.do_snapshot = snapshot  # type: ignore[method-assign]
    return world


async def pane(world: World, size: tuple[int, int] = WIDE, *keys: str, **config: Any) -> str:
    """What the meters pane shows, line by line."""
    app = console_on(world, configured(**config))
    async with running(app, size) as pilot:
        await pilot.press("3", *keys)
        await until(pilot, lambda: app.frame.meters, "the last minutes")
        region = app.panes["meters"].region
        shown = [line[region.x : region.right] for line in lines(pilot)]
        return "\n".join(shown[region.y : region.bottom])


# -- small bars


def test_bars_are_filled_from_the_right_and_do_not_move_within_a_bin() -> None:
    values = [float(n) for n in range(100)]
    assert spark(values, 100, 10, span=100) == "▁▂▂▃▄▅▆▆▇█"
    assert spark([0.0, 100.0], 2, 5, span=5) == "   ▁█"
    assert spark([0.0, 100.0], 2, 5, ascii=True, span=5) == f"   {ASCII[0]}{ASCII[-1]}"
    assert spark([None, None], 2, 2, span=2) == "  ", "nothing known is blank, not zero"
    assert spark([], 0, 4) == "    "
    # Ten samples later in a ring of a hundred the same bins stand one column further left.
    before = bins(values, 100, 10, 100)
    after = bins([*values[10:], *([5.0] * 10)], 110, 10, 100)
    assert after[:-1] == before[1:]
    # A sample later all bins but the first and the last are what they were.
    assert bins([*values[1:], 5.0], 101, 10, 100)[1:-1] == before[2:]


def test_bars_show_a_level_each() -> None:
    assert spark([n * 12.5 for n in range(8)], 8, 8, span=8) == BLOCKS


def test_a_column_is_the_same_time_while_the_history_grows() -> None:
    values = [float(n % 100) for n in range(2 * SPAN)]
    changed = 0
    for number in range(1, SPAN + 1):
        before = bins(values[: number - 1], number - 1, 10)
        changed += bins(values[:number], number, 10)[: len(before) - 1] != before[:-1]
    assert changed == 0, "a bin that is over changes no more"
    assert len(bins(values[:SPAN], SPAN, 10)) == 10


def test_the_history_of_the_engine_is_as_long_as_the_bars_take_it_to_be() -> None:
    assert SPAN == SAMPLES


def test_a_figure_stands_still_until_it_is_off_by_enough() -> None:
    shown = Steady()
    assert [shown("cpu", value, 2.0) for value in (23, 24, 25, 21.5, 26)] == [23, 23, 23, 23, 26]
    assert [shown("ram", value, share=0.1) for value in (100, 109, 111, 101)] == [
        100,
        100,
        111,
        111,
    ]
    assert shown("cpu", None, 2.0) is None, "what is not known any more is shown at once"
    assert shown("cpu", 27, 2.0) == 27
    assert shown("cpu", 100, 2.0) == 100


async def test_small_moves_of_the_machine_write_nothing_and_large_ones_do() -> None:
    world = trained()
    app = console_on(world)
    real, moved = world.do_snapshot, {"cpu": 23.0, "used": 6.10e9}

    def snapshot() -> dict[str, Any]:
        found = real()
        found["cpu"] |= {"utilization": moved["cpu"]}
        found["ram"] |= {"used": moved["used"]}
        return found

    world.do_snapshot = snapshot  # type: ignore[method-assign]
    async with running(app) as pilot:
        meters = app.panes["meters"]
        await until(pilot, lambda: "23% of 16 cores" in screen(pilot))
        drawn = list(meters._drawn)
        moved |= {"cpu": 24.4, "used": 6.17e9}
        await until(pilot, lambda: app.frame.status["cpu"]["utilization"] == 24.4)
        assert meters._drawn == drawn
        moved |= {"cpu": 31.0, "used": 6.4e9}
        await until(pilot, lambda: "31% of 16 cores" in screen(pilot))
        assert "6.4 GB of" in screen(pilot)


# -- what warns


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        ({}, ""),
        ({"memory_used": 134e9}, "!"),
        ({"memory_used": 139e9}, "!!"),
        ({"temperature": 83}, "!"),
        ({"temperature": 91}, "!!"),
        ({"throttle": ["sw_power_cap"]}, ""),
        ({"throttle": ["sw_thermal_slowdown"]}, "!"),
        ({"throttle": ["sw_power_cap", "hw_slowdown"]}, "!!"),
        ({"throttle": unknown("old driver"), "temperature": unknown("no")}, ""),
    ],
)
def test_a_card_warns_by_memory_heat_and_what_slows_it(change: dict[str, Any], mark: str) -> None:
    assert levels.gpu_level({**CARD, **change}) == mark


def test_a_disk_warns_by_the_snapshots_that_still_fit() -> None:
    disk = {"free": 400e9, "total": 900e9}
    for left, mark in ((33, ""), (4, "!"), (1, "!!"), (0, "!!")):
        assert levels.disk_level({**disk, "snapshots_left": left}) == mark
    nothing = unknown("no checkpoint yet")
    assert levels.disk_level({**disk, "snapshots_left": nothing}) == ""
    assert levels.disk_level({**disk, "free": 30e9, "snapshots_left": nothing}) == "!"


async def test_a_warning_stands_behind_the_figure_that_warns_without_colour() -> None:
    ram = {"used": 60e9, "total": 62e9, "process": 9e9, "swap_used": 7e9, "swap_total": 8e9}
    disk = {"free": 20e9, "total": 980e9, "snapshots_left": 1}
    hot = {**CARD, "temperature": 91, "throttle": ["hw_thermal_slowdown"]}
    shown = await pane(machine(hot, ram=ram, disk=disk), NARROW)
    for part in (
        "91C!!",
        "slowed: hw thermal slowdown!!",
        "60 GB of 62 GB!!",
        "7.0 GB of 8.0 GB!!",
    ):
        assert part in shown, shown
    assert (
        "20 GB free!!" in shown and "room for 1 more snapshot" in shown and "snapshots" not in shown
    )


# -- the pane


async def test_everything_of_the_machine_is_there_with_its_last_minutes() -> None:
    other = {"pid": 812, "name": "python3", "memory": 4.1e9}
    world = machine({**CARD, "others": [other], "throttle": ["sw_power_cap"]})
    shown = await pane(world, (120, 36), "z")
    for part in (
        *("GPU0", "91% 100/140G", "NVIDIA H200 63C 281/700W", "at its sw power cap"),
        *("also: python3 4.1 GB", "RAM", "6.1 GB of 62 GB", "23% of 16 cores"),
        *("912 MB 96% 43 threads", "412 GB free", "room for 33 000", "1.2 MB/s", "8.2k tok/s"),
        "daemon, pid 4242",
    ):
        assert part in shown, shown
    assert "SWAP" not in shown, "none is used"
    assert shown.count(BLOCKS[-1]) >= 2 and BLOCKS[0] in shown
    assert "None" not in shown


@pytest.mark.parametrize("size", [(60, 16), NARROW, WIDE, (200, 60)])
async def test_ascii_draws_the_same_with_ascii_alone(size: tuple[int, int]) -> None:
    shown = await pane(machine(CARD, LOST), size, ascii=True)
    assert shown.isascii(), shown
    assert ASCII[-1] in shown and "GPU is lost" in shown


async def test_eight_gpus_fold_and_the_rest_stays_on_the_screen() -> None:
    cards = [{**CARD, "utilization": 80 + n} for n in range(8)]
    cards[3] = LOST
    shown = await pane(machine(*cards))
    assert "0 80% 100G 63C" in shown and "7 87% 100G 63C" in shown and "3 lost!!" in shown
    for part in ("RAM", "CPU", "PROC", "DISK"):
        assert part in shown, shown
    folded = await pane(machine(*cards), (120, 36), "z")
    assert "GPU7" in folded and "GPU3  ? NVML: GPU is lost" in folded


async def test_no_driver_no_card_and_no_figures_are_told_apart() -> None:
    assert "CPU only" in await pane(machine())
    world = machine()
    world.gpus = unknown("NVML: driver/library version mismatch")
    assert "? NVML: driver/library" in await pane(world)
    gone = unknown("psutil: permission denied")
    world = machine(ram=gone, cpu=gone, process=gone, disk={**{"free": gone}, "total": gone})
    shown = await pane(world, NARROW)
    assert shown.count("psutil: permission denied") == 3, shown


async def test_an_engine_without_a_history_is_shown_with_bars_of_now() -> None:
    world = machine(CARD)
    world.refuse["meters"] = "unknown command meters"
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "##" in screen(pilot))
        assert "unknown command" not in screen(pilot)


async def test_hostile_names_of_cards_and_processes_stay_text() -> None:
    name = "[red]x[/] \x1b]52;c;eA==\x07"
    world = machine({**CARD, "name": name, "others": [{"pid": 1, "name": name, "memory": 1e9}]})
    shown = await pane(world, (120, 36), "z")
    assert "also: [red]x[/]" in shown and "\x1b" not in shown


# -- the strip


@pytest.mark.parametrize("width", [56, 78, 116])
def test_the_strip_keeps_what_warns_and_drops_the_least_needed(width: int) -> None:
    world = machine({**CARD, "temperature": 91})
    status = world.do_snapshot()
    text = line_text(strip_line(status, width))
    assert len(text) <= width and text.startswith("GPU0 91% 100/140G 91C!!")
    assert "disk 412 GB free" in text
    assert ("CPU 23%" in text) == (width > 100)


def test_the_strip_puts_many_gpus_together() -> None:
    cards = [{**CARD, "utilization": 80 + n} for n in range(7)]
    text = line_text(strip_line(machine(*cards, LOST).do_snapshot(), 78))
    assert text.startswith("8 GPUs 80-86% 63C 1 lost!!")
