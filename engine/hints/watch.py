"""Who watches: looks every few seconds, on a thread of the keeper, and keeps what stands.

Must never be called on the engine thread: it reads the databases. What the engine itself has to
say (not saved, held …) is told to the board at once and needs no look.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from engine.hints import hosts, loss, rest, surroundings, tail
from engine.hints.hint import Hint
from engine.hints.surroundings import Clock, Failed
from engine.lines import segments
from engine.messages import EngineState
from queue_store import config, journal, records
from queue_store.database import State, now, open_metrics
from queue_store.errors import TrainctlError
from queue_store.home import Home

SECONDS = 5.0
"""Between two looks."""
LOSS_RULES = ("gap_grows", "plateau", "spike", "early_stop")


class Watch:
    """What stands, from one look to the next. One thread at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.stands: dict[str, Hint] = {}
        self._looks: deque[list[Clock]] = deque(maxlen=surroundings.THROTTLE_LOOKS)
        self._seen: tuple[int, int] = (0, 0)
        self._unasked: tuple[int, hosts.Unasked] | None = None

    def look(self, state: State, status: Mapping[str, Any]) -> tuple[Hint, ...]:
        """All hints that stand now. `status` is that of the engine (engine.reading.status)."""
        of = status["state"]
        item = status.get("item")
        time = now()
        self._looks.append(surroundings.clocks(status.get("gpus")))
        found: dict[str, Hint | None] = {
            "file_waits": surroundings.file_waits(rest.waits(state, time)),
            "item_fails": surroundings.item_fails(self._failed(state), time),
            "gpu_throttles": surroundings.gpu_throttles(
                self._looks, held="gpu_throttles" in self.stands
            ),
            "queue_nearly_empty": None,
            **rest.judged_now(state, live=True),
            "host_idle": self._hosts(state, status, time),
        }
        if of == EngineState.TRAINING and isinstance(item, Mapping):
            eta = status.get("eta_seconds")
            found["queue_nearly_empty"] = surroundings.queue_nearly_empty(
                sum(status["queue"].values()),
                eta if isinstance(eta, int | float) else None,
                str(item["name"]),
                held="queue_nearly_empty" in self.stands,
            )
        if of == EngineState.TRAINING:
            found |= self._losses(state)
        elif of == EngineState.IDLE:  # nothing trains that could go wrong
            found |= dict.fromkeys(LOSS_RULES)
            self._seen = (0, 0)
        self._keep(found, time, int(status["global_step"]))
        return tuple(self.stands.values())

    def _hosts(self, state: State, status: Mapping[str, Any], time: float) -> Hint | None:
        """The rule over hosts; the store is read where one is idle for long, after an event."""
        idle = hosts.idle(status.get("hosts"))
        if not any(time - one.since >= hosts.IDLE_SECONDS for one in idle):
            return None
        seq = journal.last_seq(state)
        if self._unasked is None or self._unasked[0] != seq:
            try:
                settings = config.load(self.home.config)
            except TrainctlError:
                return self.stands.get("host_idle")  # a key is being edited
            self._unasked = seq, hosts.figures(state, settings)
        return hosts.host_idle(idle, self._unasked[1], time, held="host_idle" in self.stands)

    def _failed(self, state: State) -> list[Failed]:
        """The failed items; of the newest, where memory failed, with what its steps took."""
        found = rest.failed(state)
        if found and found[0].cause in surroundings.MEMORY_CAUSES:
            with closing(open_metrics(self.home)) as db:
                peak = tail.peak(db, found[0].id)
            found[0] = dataclasses.replace(found[0], peak_bytes=peak)
        return found

    def _losses(self, state: State) -> dict[str, Hint | None]:
        """The rules over losses, where there are new steps on record."""
        line = segments(records.line(state, live=True))
        with closing(open_metrics(self.home)) as db:
            newest = tail.newest_step(db, line)
            if newest == self._seen or newest[1] == 0:
                return {}
            if newest[0] != self._seen[0] or newest[1] < self._seen[1]:
                # Another line: what was true of the steps left is not of these.
                for rule in LOSS_RULES:
                    self.stands.pop(rule, None)
            self._seen = newest
            steps, ticks = tail.steps(db, line), tail.ticks(db, line)
        stands = self.stands.get
        return {
            "gap_grows": loss.gap_grows(ticks, stands("gap_grows")),
            "plateau": loss.plateau(steps, ticks, stands("plateau")),
            "spike": loss.spike(steps, stands("spike"), _names(state, steps)),
            "early_stop": loss.early_stop(ticks),
        }

    def _keep(self, found: Mapping[str, Hint | None], time: float, step: int) -> None:
        """Take in what a look found: a hint that stood keeps since when; None is over."""
        for rule, hint in found.items():
            before = self.stands.pop(rule, None)
            if hint is None:
                continue
            if hint.since_time is None:
                hint = dataclasses.replace(hint, since_time=before.since_time if before else time)
            if hint.since_step is None:
                hint = dataclasses.replace(hint, since_step=before.since_step if before else step)
            self.stands[rule] = hint


def _names(state: State, steps: list[loss.Step]) -> dict[int, str]:
    if not steps:
        return {}
    rows = state.db.execute("SELECT id, name FROM items WHERE id = ?", (steps[-1].item,))
    return {int(row[0]): str(row[1]) for row in rows}
