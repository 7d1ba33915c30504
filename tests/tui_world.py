"""A home in memory for tests of the console: a session and views that hold state and behave.
What it answers about the queue, curves, samples and versions is in tests/tui_world_*.py.

It answers in the shapes of engine.reading (status, views). Time stands still until a test
moves it. `log` keeps every command that changed something.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from engine.hints.hint import Hint, fields
from queue_store.errors import NoEngine, Refused
from queue_store.kinds import belongs
from tests.tui_world_base import T0, unknown
from tests.tui_world_copies import CopyAnswers
from tests.tui_world_curves import CurveAnswers
from tests.tui_world_evaluation import EvaluationAnswers
from tests.tui_world_memory import MemoryAnswers
from tests.tui_world_queue import QueueAnswers
from tests.tui_world_samples import SampleAnswers
from tests.tui_world_versions import VersionAnswers
from tui.frame import PRIORITIES

READING = (
    *("snapshot", "meters", "rollback_plan", "verifying", "version", "removal_plan", "row"),
    *("compare", "compare_answers", "compared_item", "backup_targets", "trash", "jobs"),
    *("evaluation_sets", "host_look", "host_key", "prompt_progress"),
)


class World(
    QueueAnswers,
    CurveAnswers,
    SampleAnswers,
    VersionAnswers,
    CopyAnswers,
    EvaluationAnswers,
    MemoryAnswers,
):
    """One engine that trains an item a step at a time, when `train` says so."""

    def __init__(self, *, local: bool = False, steps: int = 0) -> None:
        super().__init__(local=local)
        for name, priority, state in (
            ("train_syllo_level1_2000.jsonl", "normal", "training"),
            ("train_binary_level2_500.jsonl", "high", "queued"),
            ("gsm8k.jsonl", "normal", "queued"),
            ("extra.jsonl", "low", "queued"),
        ):
            self.add_item(name, priority, state)
        self.train(steps)

    # -- what happens in it

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            self.now += 1.0
            fall = 2.5 * math.exp(-self.step / 60) + 0.15
            self.loss.append(round(fall * (1 + 0.15 * math.sin(self.step * 1.7)), 4))
            for item in self.items:
                if item["state"] == "training":
                    item["step"] += 1
                    item["cursor"] += 8
            if self.step % 25 == 0:
                self.val[self.step] = round(fall * 1.05, 4)
                self.sample()

    # -- the session

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        if self.lost:
            raise NoEngine(self.lost)
        if command in self.refuse:
            raise Refused(self.refuse[command])
        if command not in READING:
            self.log.append((command, arguments))
        return getattr(self, f"do_{command}")(**arguments)

    def close(self) -> None:
        self.log.append(("close", {}))

    def do_snapshot(self) -> dict[str, Any]:
        item = next((i for i in self.items if i["state"] in ("training", "preparing")), None)
        shown = ("id", "name", "priority", "step", "steps", "rows", "cursor")
        waits = [i["priority"] for i in self.items if i["state"] in ("queued", "paused")]
        return {
            "state": self.state,
            "branch": self.branch,
            "global_step": self.step,
            "loss": self.loss[-1] if self.loss else unknown("no step yet"),
            "val_loss": self.val[max(self.val)] if self.val else unknown("no validation yet"),
            "learning_rate": 2e-4,
            "tokens_per_second": 8200.0 if self.loss else unknown("no step yet"),
            "eta_seconds": 451.0,
            "item": {key: item[key] for key in shown} if item else None,
            "queue": {word: waits.count(word) for word in PRIORITIES},
            "head": {"checkpoint": "checkpoint-0", "version": unknown("the head is no version")},
            "model": {"name": "tiny", "method": "full", "dtype": "fp32", "device": "cpu"},
            "gpus": self.gpus,
            "ram": {
                "used": 6.1e9,
                "total": 61.8e9,
                "process": 912e6,
                "swap_used": 0,
                "swap_total": 8e9,
            },
            "cpu": {"utilization": 23.0, "process": 96.0, "cores": 16},
            "process": {
                "memory": 912e6,
                "cpu": 96.0,
                "threads": 43,
                "read_per_second": 0.0,
                "written_per_second": 1.2e6,
            },
            "disk": {"free": 412e9, "total": 980e9, "snapshots_left": 33000},
            "engine": {"pid": 4242, "supervisor_pid": 4241, "mode": "daemon", "started": T0},
            **fields([Hint("gap_grows", self.hint)] * bool(self.hint) + self.hints, self.step, T0),
            "phase": self.phase,
            "progress": unknown("nothing") if self.progress is None else self.progress,
            "paused": self.state == "paused",
            "requests": [],
            "events_seq": len(self.events_),
            "samples_step": max(self.answers) if self.answers else unknown("no samples yet"),
            "monitoring_share": 0.031,
            "hosts": copy.deepcopy(self.hosts),
            "evaluation": {"waiting": self.waiting, "running": self.at_work()},
        }

    def do_pause(self, park: bool = False) -> dict[str, Any]:
        self.state = "paused"
        self.event("pause", f"paused at step {self.step}")
        return {"requested_step": self.step, "step": self.step}

    def do_resume(self) -> dict[str, Any]:
        self.state = "training"
        self.event("resume", "training goes on")
        return {}

    # -- the views

    def events(
        self, after: int = 0, limit: int = 500, *, group: str = "", text: str = ""
    ) -> dict[str, Any]:
        found = self._wanted(self.events_[after:], group, text)
        return {"events": found[:limit], "last": len(self.events_)}

    def latest_events(
        self, count: int = 200, before: int | None = None, group: str = "", text: str = ""
    ) -> dict[str, Any]:
        older = self.events_ if before is None else self.events_[: before - 1]
        return {
            "events": self._wanted(older, group, text)[-count:],
            "last": len(self.events_),
        }

    @staticmethod
    def _wanted(events: list[dict[str, Any]], group: str, text: str) -> list[dict[str, Any]]:
        """As journal.events chooses."""
        return [
            event
            for event in events
            if belongs(event["kind"], group)
            and text.lower() in f"{event['kind']} {event['text']}".lower()
        ]


__all__ = ["READING", "T0", "World", "unknown"]
