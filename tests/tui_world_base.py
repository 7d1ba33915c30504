"""The state of the home in memory that tests of the console look at (tests.tui_world.World)."""

from __future__ import annotations

import threading
from typing import Any

from engine.hints.hint import Hint

T0 = 1_780_000_000.0  # 2026-05-28 20:26:40 UTC


def unknown(why: str) -> dict[str, str]:
    return {"unknown": why}


class WorldState:
    """All that a World knows; what it answers about it is in the classes that come from this."""

    def __init__(self, *, local: bool = False) -> None:
        self.local = local
        self.now = T0
        self.lost = ""
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.state = "training"
        self.phase, self.progress = "", None
        self.hint = ""
        self.hints: list[Hint] = []
        """What the engine has to say; `hint` alone is one of rule gap_grows."""
        self.step = 0
        self.branch = 1
        self.plan = "plan-1"
        self.no_samples = "no samples yet: the next comes at a step that 25 divides"
        self.said = '{"answer": "WINDOW"}'
        """What the model answers to a prompt."""
        self.asking = threading.Event()
        """While it is not set, an answer goes on (and can be cancelled)."""
        self.asking.set()
        self.cancelled: set[str] = set()
        self.growing: dict[str, dict[str, Any]] = {}
        """What `prompt_progress` tells: "" of the model that trains, "-models" of the others."""
        self.loss: list[float | None] = []
        self.val: dict[int, float] = {}
        self.answers: dict[int, list[dict[str, Any]]] = {}
        self.versions_: list[dict[str, Any]] = []
        self.events_: list[dict[str, Any]] = []
        self.items: list[dict[str, Any]] = []
        self.gpus: Any = []
        self.refuse: dict[str, str] = {}
        self._listed: list[Any] = []
        self.report: dict[str, Any] = {
            **{"lines": 3, "accepted": 3, "rejected_count": 0},
            "problems": [],
        }
        self.removed: dict[int, dict[str, Any]] = {}
        self.plans: dict[str, dict[str, Any]] = {}
        """What `removal_plan` says of a version beside the usual."""
        self.reading: list[dict[str, Any]] = []
        self.marks_: list[dict[str, Any]] = []
        """What is marked on the curves beside items and versions."""
        self.left_: list[dict[str, Any]] = []
        """Branches that a rollback left: branch, name, fork, tip and their losses."""
        self.hold: threading.Event | None = None
        """While it is not set, a verification or a copy goes on."""
        self.past: list[float | None] = []
        """What `meters` tells of every figure."""
        self.trash: list[dict[str, Any]] = []
        self.targets: list[dict[str, Any]] = []
        self.hostile = ""
        """A prompt that a comparison tells."""

    def event(self, kind: str, text: str) -> None:
        seq = len(self.events_) + 1
        self.events_.append({"seq": seq, "time": self.now, "kind": kind, "text": text, "data": {}})
