"""The chores of an engine's keeper: one table of what is looked after, and how often.

A chore's work is a function of the floor below; here stands only when it runs and with what.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.hints import surroundings
from engine.hints.rest import MEND_HOST, MEND_TARGET
from engine.hints.watch import SECONDS
from engine.judging import deploying
from engine.loop import evaluations
from engine.loop.keeper import Chore
from engine.memory import cards, fitting
from engine.memory import records as peaks
from engine.memory.asking import Estimator
from engine.memory.estimate import Ranks
from engine.reading.status import free_limit
from queue_store import config, daily_copy, durable, journal, records, reserve
from queue_store.database import State, now
from queue_store.errors import NotFound, VerificationFailed
from snapshots import backup, daily, retention, trash, versions
from snapshots.retention import Rules

if TYPE_CHECKING:
    from engine.loop.thread import Engine

MORNING = "03:00"
NICE = 10
"""The priority of measuring a model: a tenth of a core that trains."""
"""When a day begins for pruning, where no daily version says otherwise."""


def verify_pending(engine: Engine, state: State) -> None:
    """Verify the versions that no process has read back yet, oldest first: a kill or an end came
    between making them and reading them."""
    for version in versions.versions(state):
        if engine.keeper.stopping.is_set():
            return
        if version.state == "unverified":
            try:
                versions.verify(state, version.name, stop=engine.keeper.stopping)
            except (VerificationFailed, NotFound):
                continue  # marked, journaled and shown as damaged; or broken off; or deleted


def daily_version(engine: Engine, state: State) -> None:
    """A version a day of what trained since the last one; caught up after a downtime. The engine
    thread makes it, at a step boundary."""
    at = engine.config_now().snapshots.daily
    board = engine.board
    last = daily.last(state)
    if board.branch is None or not daily.due(now(), at, last.get("day")):
        return
    if not last:  # a new home: its first day is the next one
        daily.done(state, at, 0, 0)
        return
    branch, step = board.branch, board.global_step
    if daily.moved(state, branch, step):
        arguments = {"description": f"daily, {daily.scheduled_day(now(), at)}", "kind": "daily"}
        made = engine.submit("snapshot_version", arguments)
        while not engine.keeper.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                branch, step = made.result(1.0)["branch"], made.result()["step"]
                break
        else:
            return
    daily.done(state, at, branch, step)
    engine.keeper.soon("prune")


def prune(engine: Engine, state: State) -> None:
    """Once a day, after the daily version: what no rule keeps goes to the trash."""
    settings = engine.config_now().snapshots
    today = daily.scheduled_day(now(), settings.daily or MORNING)
    if state.meta_get("pruned.day") == today:
        return
    if settings.daily and daily.last(state).get("day") != today:
        return  # the version of the day comes first
    if settings.prune:
        retention.prune(state, Rules.of(settings), stop=engine.keeper.stopping)
    with state.transaction():
        state.meta_set("pruned.day", today)


def empty_expired(engine: Engine, state: State) -> None:
    """What was long enough in the trash goes for good."""
    trash.empty(state, expired_only=True)


def watch_disk(engine: Engine, state: State) -> None:
    """Say it while there is still room; an event when that begins and when it is over."""
    head = records.head(state)
    size = head.checkpoint.size_bytes if head else 0
    limit = free_limit(engine.config_now().snapshots.warn_free, size) if size else 0
    free = durable.free_bytes(engine.home.store)
    was = bool(state.meta_get("disk.low", False))
    before = engine.board.disk_low
    hint = surroundings.disk_low(free, limit, size, str(engine.home.store), held=was)
    if hint is not None:
        hint = replace(hint, since_time=before.since_time if before else now())
    engine.board.disk_low = hint
    low = hint is not None
    if was != low:
        with state.transaction():
            state.meta_set("disk.low", low)
            text = f"{hint.text}: {hint.advice}" if hint else f"{free / 1e9:.1f} GB are free again"
            journal.record(state, "disk.low" if low else "disk.room", text)


def look_for_hints(engine: Engine, state: State) -> None:
    """What a person should know of losses, queue and machine."""
    engine.board.watched = engine.hints.look(state, engine.snapshot())


def back_up_versions(engine: Engine, state: State) -> None:
    """What is due at the targets of config.toml as it is now; what keeps one from being used is the
    status's hint."""
    settings = config.load(engine.home.config)
    stopping = engine.keeper.stopping.is_set
    hints = backup.look_after(state, settings, stopping) if settings.backups else []
    if hints:
        engine.board.tell("backup", hints[0], MEND_TARGET, targets=len(hints))
    else:
        engine.board.untell("backup")


def deploy_best(engine: Engine, state: State) -> None:
    """The best version on the hosts that ask for it, soon after the tag moved."""
    settings = config.load(engine.home.config)
    hints = deploying.look_after(state, settings, engine.keeper.stopping.is_set)
    if hints:
        engine.board.tell("deploy", hints[0], MEND_HOST, hosts=len(hints))
    else:
        engine.board.untell("deploy")


def back_up_databases(engine: Engine, state: State) -> None:
    """A checked copy of state.db and metrics.db, once a day."""
    if daily_copy.due(state):
        daily_copy.back_up(state, engine.keeper.stopping.is_set)


def keep_reserve(engine: Engine, state: State) -> None:
    """Disk set aside, made anew once there is room after it was dropped."""
    if not reserve.keep(engine.home):
        return
    with state.transaction():
        size = reserve.size(engine.home)
        text = f"{size / 1e6:.0f} MB are set aside for a disk that fills up"
        journal.record(state, "reserve.made", text, data={"bytes": size})
    board = engine.board
    if board.paused and not board.told.keys().isdisjoint(("not_saved", "disk_full")):
        text = "there is room on the disk again: resume goes on"
        board.tell("room_again", text, "p (trainctl resume) goes on")
        board.untell("not_saved")
        board.untell("disk_full")


def prepare_ahead(engine: Engine, state: State) -> None:
    """The item that trains next, made ready while this one trains."""
    if engine.worker is not None:
        engine.worker.ahead.look(engine, state)


def compare_memory(engine: Engine, state: State) -> None:
    """What the item takes of the device's memory, beside what was estimated."""
    worker, item = engine.worker, engine.board.item
    measured = engine.board.memory
    live = worker.live if worker is not None else None
    if worker is None or live is None or item is None or not measured:
        return  # nothing trains, or no step was measured so far
    together = live.processes()
    ranks = Ranks(together["size"], together["kind"] == "fsdp")
    device = cards.here()
    # Not the lowest priority, at which it never ends beside training on every core.
    estimated = Estimator(
        *(engine.home, live.loaded.folder, device), stop=engine.keeper.stopping, nice=NICE
    )
    peaks.record(
        *(state, device.name, int(item["id"])),
        predicted=estimated(worker.config, ranks).total,
        measured=measured,
        settings=fitting.words(worker.config),
    )


def evaluate(engine: Engine, state: State) -> None:
    """Evaluation jobs: what came is asked for, and each idle host has its next one."""
    engine.evaluations.look(engine, state)


CHORES = (
    Chore("verify", 60.0, verify_pending, delay=5.0),
    Chore("disk", 15.0, watch_disk),
    Chore("hints", SECONDS, look_for_hints, delay=2.0),
    Chore("ahead", 2.0, prepare_ahead),
    Chore("jobs", evaluations.SECONDS, evaluate, delay=1.0),
    Chore("daily", 30.0, daily_version, delay=10.0),
    Chore("prune", 300.0, prune, delay=60.0),
    Chore("trash", 3600.0, empty_expired, delay=120.0),
    Chore("reserve", 30.0, keep_reserve, delay=0.0),
    Chore("backup", 60.0, back_up_versions, delay=10.0),
    Chore("memory", 60.0, compare_memory, delay=60.0),
    Chore("deploy", 60.0, deploy_best, delay=15.0),
    Chore("databases", 600.0, back_up_databases, delay=30.0),
)
