"""The console before a queue of 10,000 items: what it costs while nothing moves, while items do,
and to look for a change.

A console runs on a pseudo-terminal of 120x36, attached over the socket to an engine that writes
20 steps a second; 7,000 of the items wait and 3,000 have ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from benchmarks.bench_console import KIB_PER_SECOND, STILL_KIB, STILL_SECONDS, trained_home
from benchmarks.bench_queue import fill
from benchmarks.figures import at_most, figure
from benchmarks.screen import Screen
from engine.reading.queuelist import QueueList
from queue_store import queue
from queue_store.database import State, open_state
from tui.frame import Frame, QueueRows
from tui.panes.queue import QueuePane

ITEMS = 10_000
ENDED = 3_000
CHANGES_PER_SECOND = 2.0
IDLE_PERCENT = 5.0
UNCHANGED_MS = 1.0
PAINT_MS = 5.0


def filled(state: State) -> None:
    """The items, with names that differ."""
    fill(state, ITEMS)
    with state.transaction() as db:
        db.execute("UPDATE items SET name = printf('part_%05d.jsonl', id)")
        db.execute("UPDATE items SET state = 'done' WHERE id > ?", (ITEMS - ENDED,))


def cpu(process: psutil.Process, seconds: float, meanwhile: Callable[[], None]) -> float:
    """Percent of a core that a process used for `seconds`."""
    before, ends = process.cpu_times(), time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < ends:
        meanwhile()
        pause.wait(1 / CHANGES_PER_SECOND)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds * 100


def spent(act: Callable[[], object], repeats: int) -> list[float]:
    """CPU milliseconds of this thread, call by call."""
    taken = []
    for _ in range(repeats):
        started = time.thread_time()
        act()
        taken.append((time.thread_time() - started) * 1000)
    return taken


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    seconds, repeats = (5.0, 20) if quick else (30.0, 100)
    what = f"{ITEMS:,} items"
    rows = []
    with trained_home() as (home, trainer), open_state(home) as state:
        filled(state)
        turn = iter(range(2, ENDED))

        def change() -> None:
            queue.move_first(state, next(turn))

        def prioritized() -> None:
            queue.set_priority(state, next(turn), queue.Priority.NORMAL)

        screen = Screen(["benchmarks.console_process", str(home.root)], b"6 events")
        screen.wait()
        threading.Event().wait(4)
        process = psutil.Process(screen.process.pid)
        for label, meanwhile in (
            (f"the console while training, {what}", lambda: None),
            (f"the console while training, {what}, 2 of them change a second", prioritized),
        ):
            wrote = screen.bytes
            rows.append(figure(label, [cpu(process, seconds, meanwhile)], "% of a core"))
            kib = (screen.bytes - wrote) / seconds / 1024
            rows.append(at_most("  written meanwhile", [kib], "KiB/s", KIB_PER_SECOND))
        trainer.pause()
        threading.Event().wait(3)
        wrote, still = screen.bytes, max(seconds, STILL_SECONDS)
        used = cpu(process, still, lambda: None)
        kib = (screen.bytes - wrote) / still / 1024
        rows.append(
            at_most(f"the console while paused, {what}", [used], "% of a core", IDLE_PERCENT)
        )
        rows.append(at_most("  written meanwhile", [kib], "KiB/s", STILL_KIB))
        screen.close()

        with open_state(home) as own:
            listing = QueueList(own)
            whole = spent(lambda: QueueList(own).read(), 5)
            listing.read()
            rows.append(figure(f"to read {what} for the first time, CPU", whole, "ms"))
            same = spent(listing.read, repeats)
            rows.append(
                at_most(f"to see that none of {what} changed, CPU", same, "ms", UNCHANGED_MS)
            )
            for label, act in (("changed", prioritized), ("moved", change)):
                taken = []
                for _ in range(repeats):
                    act()
                    taken += spent(listing.read, 1)
                rows.append(figure(f"to read that one of {what} {label}, CPU", taken, "ms"))
            rows += painted(QueueRows(listing.read()), repeats)
    return {"rows": rows}


def painted(items: QueueRows, repeats: int) -> list[dict[str, Any]]:
    """What drawing the pane's lines costs with the cursor on the last item."""
    rows = []
    for label, words in (("", ""), (" under a filter", "part_0")):
        pane = QueuePane()
        pane.take(Frame(queue=items))
        pane.filter = words
        pane.chosen = pane.shown()[-1]
        pane.lines(60, 30)
        taken = spent(lambda pane=pane: pane.lines(60, 30), repeats)
        what = f"to draw the pane of {len(items):,} items{label}, CPU"
        rows.append(at_most(what, taken, "ms", PAINT_MS))
    return rows
