"""A home in memory for tests of the console: a session and views that hold state and behave.

It answers in the shapes of engine.status and engine.views. Time stands still until a test
moves it. `log` keeps every command that changed something.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from engine.hints.hint import Hint, fields
from queue_store.errors import NoEngine, NotFound, Refused
from queue_store.kinds import belongs
from queue_store.queue import shifted
from tests.tui_world_versions import VersionAnswers, unknown
from tui.frame import PRIORITIES, in_order

T0 = 1_780_000_000.0  # 2026-05-28 20:26:40 UTC
READING = (
    *("snapshot", "meters", "rollback_plan", "verifying", "version", "removal_plan", "row"),
    *("compare", "backup_targets", "trash"),
)


class World(VersionAnswers):
    """One engine that trains an item a step at a time, when `train` says so."""

    def __init__(self, *, local: bool = False, steps: int = 0) -> None:
        super().__init__()
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
        self.loss: list[float | None] = []
        self.val: dict[int, float] = {}
        self.answers: dict[int, list[dict[str, Any]]] = {}
        self.versions_: list[dict[str, Any]] = []
        self.events_: list[dict[str, Any]] = []
        self.items: list[dict[str, Any]] = []
        self.gpus: Any = []
        self.refuse: dict[str, str] = {}
        self._listed: list[Any] = []
        self.report: dict[str, Any] = {"lines": 3, "accepted": 3, "problems": []}
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
        for name, priority, state in (
            ("train_syllo_level1_2000.jsonl", "normal", "training"),
            ("train_binary_level2_500.jsonl", "high", "queued"),
            ("gsm8k.jsonl", "normal", "queued"),
            ("extra.jsonl", "low", "queued"),
        ):
            self.add_item(name, priority, state)
        self.train(steps)

    # -- what happens in it

    def add_item(self, name: str, priority: str, state: str, **more: Any) -> dict[str, Any]:
        number = len(self.items) + 1
        prepared = state not in ("queued", "rejected")
        item = {
            "id": number,
            "name": name,
            "state": state,
            "priority": priority,
            "position": float(number),
            "lines": 2000,
            "accepted": 2000,
            "rejected": [],
            "rows": 1960 if prepared else unknown("not prepared yet"),
            "held_out": 40 if prepared else unknown("not prepared yet"),
            "epochs": 1 if prepared else unknown("not prepared yet"),
            "step": 0,
            "steps": 250 if prepared else unknown("not prepared yet"),
            "cursor": 0,
            "attempts": [],
            "reason": "",
            "error": "",
            "size": 850_000,
            "source": f"inbox/{name}",
            "created": T0,
            "updated": T0 + number,
            **more,
        }
        self.items.append(item)
        return item

    def event(self, kind: str, text: str) -> None:
        seq = len(self.events_) + 1
        self.events_.append({"seq": seq, "time": self.now, "kind": kind, "text": text, "data": {}})

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

    def sample(self) -> None:
        share = min(1.0, self.step / 200)
        answers = []
        for n in range(6):
            right = n / 6 < share
            answers.append(
                {
                    "branch": self.branch,
                    "step": self.step,
                    "example": f"e{n}",
                    "set": "syllo",
                    "position": n,
                    "prompt": f"Clue {n + 1}: glass in a wall (2 syllables). Tiles: dow win",
                    "expected": '{"answer": "WINDOW"}',
                    "answer": '{"answer": "WINDOW"}' if right else '{"answer": "DOWWIN"}',
                    "exact": right,
                    "similarity": 1.0 if right else 0.2 + share,
                    "expected_loss": round(2.5 - 2 * share + n / 10, 3),
                    "skill": "syllo",
                    "level": 1,
                    "tokens": 9,
                    "seconds": 0.02,
                    "time": self.now,
                }
            )
        self.answers[self.step] = answers

    def version(self, description: str, *, pinned: bool = False) -> dict[str, Any]:
        name = f"v{len(self.versions_) + 1:03d}"
        made = {
            "name": name,
            "branch": self.branch,
            "step": self.step,
            "created": self.now,
            "description": description,
            "size_bytes": 12_400_000,
            "verified_at": self.now,
            "state": "verified",
            "kind": "manual",
            "scope": "whole",
            "parent": self.versions_[-1]["name"] if self.versions_ else unknown("the first"),
            "rolled_back": False,
            "deep_verified_at": unknown("never verified deep"),
            "pinned": pinned,
            "tags": [],
            "kept_because": ["latest 2 verified"],
            "loss": self.loss[-1] if self.loss else unknown("no step yet"),
            "val_loss": self.val[max(self.val)] if self.val else unknown("no validation yet"),
            "scores": {},
            "samples": self.tally(),
            "copies": [],
            "weights_digest": "00",
        }
        self.versions_.append(made)
        self.event("version", f"version {name} at step {self.step}: {description}")
        return made

    def tally(self, at: int | None = None) -> dict[str, Any]:
        """{step, exact, total} of the newest sample tick at or before a step."""
        steps = [step for step in self.answers if at is None or step <= at]
        if not steps:
            return unknown("no sample tick before it")
        found = self.answers[max(steps)]
        return {
            "step": max(steps),
            "exact": sum(answer["exact"] for answer in found),
            "total": len(found),
        }

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
        }

    def do_pause(self, park: bool = False) -> dict[str, Any]:
        self.state = "paused"
        self.event("pause", f"paused at step {self.step}")
        return {"requested_step": self.step, "step": self.step}

    def do_resume(self) -> dict[str, Any]:
        self.state = "training"
        self.event("resume", "training goes on")
        return {}

    def do_snapshot_version(self, description: str, weights_only: bool, pin: bool) -> Any:
        return self.version(description, pinned=pin)

    def do_rollback_plan(self, version: str | None = None) -> dict[str, Any]:
        name = version or self.versions_[-1]["name"]
        to = next(v for v in self.versions_ if v["name"] == name)
        return {
            "version": name,
            "branch": to["branch"],
            "step": to["step"],
            "created": to["created"],
            "description": to["description"],
            "loss": to["loss"],
            "val_loss": to["val_loss"],
            "scores": {},
            "samples": to["samples"],
            "now": {
                "branch": self.branch,
                "step": self.step,
                "loss": self.loss[-1],
                "val_loss": self.val[max(self.val)] if self.val else unknown("no validation yet"),
                "samples": self.tally(),
            },
            "steps_lost": self.step - to["step"],
            "hours_lost": (self.step - to["step"]) / 3600,
            "samples_lost": 2,
            "validations_lost": 2,
            "items": [
                {
                    "id": 1,
                    "name": self.items[0]["name"],
                    "becomes": f"goes on from row {to['step']}",
                }
            ],
            "keeps": f"the state at step {self.step} is saved as a version first",
            "plan": self.plan,
        }

    def do_rollback(self, version: str, plan: str) -> dict[str, Any]:
        if plan != self.plan:
            raise Refused(f"the plan for {version} is stale: training has moved on")
        to = next(v for v in self.versions_ if v["name"] == version)
        saved = self.version(f"before going back to {version}")
        fork, tip = to["step"], self.step
        losses = dict(enumerate(self.loss[fork:], fork + 1))
        left = {"branch": self.branch, "name": saved["name"], "fork": fork, "tip": tip}
        self.left_.insert(0, {**left, "losses": losses})
        why = f"rolled back to {version} (step {fork})"
        self.marks_ = [mark for mark in self.marks_ if mark["step"] <= fork]
        self.marks_.append({"kind": "rollback", "step": fork, "name": "", "text": why})
        self.step = to["step"]
        self.branch += 1
        del self.loss[self.step :]
        self.val = {step: value for step, value in self.val.items() if step <= self.step}
        self.answers = {step: value for step, value in self.answers.items() if step <= self.step}
        return {"version": saved["name"], "branch": self.branch, "step": self.step}

    def do_skip(self, item: int, undo: bool, reason: str) -> dict[str, Any]:
        chosen = self._get(item)
        chosen["state"], chosen["reason"] = "skipped", reason
        self.event("skip", f"{chosen['name']} skipped: {reason}")
        return {}

    def do_priority(self, id: int, priority: str) -> dict[str, Any]:
        self._get(id)["priority"] = priority
        self.event("priority", f"{self._get(id)['name']} is {priority}")
        return {}

    def do_shift(self, items: list[int], by: int) -> dict[str, Any]:
        first = self._get(items[0])
        same = ("priority", "state")
        peers = [i for i in self.items if all(i[key] == first[key] for key in same)]
        order = sorted(peers, key=lambda i: i["position"])
        before = [i["id"] for i in order]
        places = [i["position"] for i in order]
        after = shifted(before, set(items), by)
        if after == before:
            edge = "first" if by < 0 else "last"
            raise Refused(f"{first['name']} is {edge} already, within the priority")
        for number, place in zip(after, places, strict=True):
            self._get(number)["position"] = place
        self.event("item.moved", f"{first['name']} moved")
        return {"moved": items}

    def do_retry(self, id: int) -> dict[str, Any]:
        self._get(id)["state"] = "queued"
        return self._get(id)

    def do_remove(self, id: int) -> dict[str, Any]:
        item = self._get(id)
        self.items.remove(item)
        self.removed[id] = item
        return item

    def do_unremove(self, id: int) -> dict[str, Any]:
        if id not in self.removed:
            raise NotFound(f"item {id} is not in the trash", mend="trainctl trash lists what is")
        self.items.append(self.removed.pop(id))
        return self.items[-1]

    def do_add(self, path: str, priority: str) -> Any:
        return [self.add_item(path.rsplit("/", 1)[-1], priority, "queued")]

    def do_generate(
        self,
        prompt: str,
        system: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        key: str = "",
    ) -> dict[str, Any]:
        if self.state == "parked":
            raise Refused("no model is loaded: training is parked", mend="resume")
        self.asking.wait(20)
        cancelled = key in self.cancelled
        return {
            "answer": "" if cancelled else self.said,
            "stop": "cancelled" if cancelled else "end",
            "tokens": 0 if cancelled else 9,
            "prompt_tokens": 20,
            "max_tokens": max_tokens,
            "seconds": 0.2,
            "branch": self.branch,
            "step": self.step,
        }

    def do_cancel_generate(self, key: str) -> dict[str, Any]:
        self.cancelled.add(key)
        self.asking.set()
        return {}

    def do_pin(self, version: str, pinned: bool) -> dict[str, Any]:
        next(v for v in self.versions_ if v["name"] == version)["pinned"] = pinned
        self.event("pin", f"{version} pinned {pinned}")
        return {}

    def do_tag(self, version: str, name: str, on: bool) -> dict[str, Any]:
        tags = self._version(version)["tags"]
        if on:
            tags.append(name)
        else:
            tags.remove(name)
        self.event("tag", f"{version} {name} {on}")
        return {}

    def do_describe(self, version: str, text: str) -> dict[str, Any]:
        self._version(version)["description"] = text
        self.event("describe", f"{version} {text}")
        return {}

    def do_verify(self, version: str, deep: bool = False) -> dict[str, Any]:
        found = self._version(version)
        if self.hold is not None:
            self.reading = [{"version": version, "read_bytes": 3_100_000, "size_bytes": 12_400_000}]
            self.hold.wait(20)
            self.reading = []
        ok = found["state"] != "corrupt"
        return {"name": version, "ok": ok, "problem": "" if ok else f"{version} is damaged"}

    def do_verifying(self) -> list[dict[str, Any]]:
        return list(self.reading)

    def do_version(self, version: str) -> dict[str, Any]:
        found = self._version(version)
        names = [v["name"] for v in self.versions_]
        return {
            **found,
            "checkpoint_name": "checkpoint-120-20260528-2029",
            "line": names[: names.index(version) + 1],
            "files": [
                {
                    "name": "model.safetensors",
                    "size_bytes": 12_000_000,
                    "blake3": "ab" * 32,
                    "links": 2,
                    "shared_with": ["checkpoint-120-20260528-2029"],
                },
                {
                    "name": "version.json",
                    "size_bytes": 500,
                    "blake3": "cd" * 32,
                    "links": 1,
                    "shared_with": [],
                },
            ],
            "own_bytes": 4096,
            "shared_bytes": 12_000_000,
            "items": [{"id": 1, "name": self.items[0]["name"], "rows": 960, "whole": False}],
        }

    def do_removal_plan(self, version: str) -> dict[str, Any]:
        return {
            "version": version,
            "size_bytes": 12_400_000,
            "freed_bytes": 4096,
            "shares": ["checkpoint-120-20260528-2029"],
            "copies": [],
            "goes": [f"{version}: step {self._version(version)['step']}"],
            "refused": "",
            **self.plans.get(version, {}),
        }

    def do_delete(self, version: str, confirm: str) -> dict[str, Any]:
        if confirm != version:
            raise Refused(f"{confirm} is not {version}")
        self.versions_.remove(self._version(version))
        self.event("delete", f"{version} deleted")
        return {"version": version, "freed_bytes": 4096}

    def _version(self, name: str) -> dict[str, Any]:
        for version in self.versions_:
            if version["name"] == name:
                return version
        raise NotFound(f"no version {name}")

    def _get(self, id: int) -> dict[str, Any]:
        for item in self.items:
            if item["id"] == id:
                return item
        raise NotFound(f"no item {id}")

    # -- the views

    def queue_list(self) -> list[dict[str, Any]]:
        """In order, and the same object where nothing changed, as engine.queuelist."""
        fresh = in_order([dict(item) for item in self.items])
        if fresh != self._listed:
            self._listed = fresh
        return self._listed

    def versions(self) -> list[dict[str, Any]]:
        return [dict(version) for version in self.versions_]

    def checkpoints(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "branch": 1,
                "step": step,
                "size_bytes": 12_400_000,
                "created": T0,
                "loss": 0.5,
                "val_loss": unknown("no validation before it"),
                "complete": True,
            }
            for name, step in (("checkpoint-0", 0), ("checkpoint-100", 100))
        ]

    def item(self, item: int) -> dict[str, Any]:
        nothing = unknown("no sidecar came with the file")
        lineage = {"generator": nothing, "validators": [], "notes": []}
        return {
            "report": unknown("not prepared yet"),
            "settings": unknown("not prepared yet"),
            "lineage": lineage,
            **self._get(item),
        }

    def file_of(self, item: int) -> str:
        return f"/home/store/items/{self._get(item)['name']}"

    def validate(self, file: str, stop: threading.Event, progress: Any) -> dict[str, Any]:
        """Waits in the middle where a test holds it, as a long validation does."""
        self.log.append(("validate", {"file": file}))
        progress(0, 1000)
        if self.hold is not None:
            progress(400, 1000)
            while not self.hold.wait(0.02):
                if stop.is_set():
                    raise Refused("the validation did not finish: broken off")
        return dict(self.report)

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

    def series(
        self,
        metric: str,
        width: int = 1000,
        start: int | None = None,
        end: int | None = None,
        version: str | None = None,
    ) -> dict[str, Any]:
        values: dict[int, float | None] = dict(enumerate(self.loss, 1))
        last = self.step
        if metric == "val_loss":
            values = dict(self.val)
        elif version is not None:
            last = int(self._version(version)["step"])
            for left in self.left_:
                if left["branch"] == self._version(version)["branch"]:
                    values |= left["losses"]
        steps = [step for step in values if step <= last]
        reduced = _reduced(metric, {s: values[s] for s in steps}, width, start, end)
        return {**reduced, "branch": self.branch}

    def left_branches(
        self, metric: str, width: int = 1000, start: int | None = None, end: int | None = None
    ) -> list[dict[str, Any]]:
        return [
            {**_reduced(metric, left["losses"], width, start, end), **left} for left in self.left_
        ]

    def marks(self) -> list[dict[str, Any]]:
        found = [dict(mark) for mark in self.marks_]
        forks = [left["fork"] for left in self.left_]
        for version in self.versions_:
            if version["branch"] == self.branch or version["step"] <= min(forks, default=-1):
                text = f"version {version['name']}: {version['description']}"
                mark = {"kind": "version", "step": version["step"], "name": version["name"]}
                found.append({**mark, "text": text})
        if self.loss and self.items:
            item = self.items[0]
            mark = {"kind": "item", "step": 1, "name": item["name"], "item": item["id"]}
            found.append({**mark, "text": f"{item['name']} begins"})
        return sorted(found, key=lambda mark: int(mark["step"]))

    def step_facts(self, step: int) -> dict[str, Any]:
        at = min(step, self.step)
        if at < 1:
            return unknown("no step before this one")
        ticks = [tick for tick in self.val if tick <= at]
        validation: dict[str, Any] = unknown("no validation before this step")
        if ticks:
            loss = self.val[ticks[-1]]
            validation = {"step": ticks[-1], "loss": loss, "sets": {"syllo": loss}}
        loss_at = self.loss[at - 1]
        return {
            "branch": self.branch,
            "step": at,
            "item": self.items[0]["id"],
            "name": self.items[0]["name"],
            "loss": unknown("not a number") if loss_at is None else loss_at,
            "time": T0 + at,
            "validation": validation,
        }

    def samples(
        self, step: int | None = None, example: str | None = None, limit: int = 500
    ) -> dict[str, Any]:
        steps = sorted(self.answers)
        if example is not None:
            found = [a for s in steps for a in self.answers[s] if a["example"] == example]
        else:
            at = [s for s in steps if step is None or s <= step]
            found = self.answers[at[-1]] if at else []
        exact = sum(a["exact"] for a in found)
        at = found[-1]["step"] if found else unknown(self.no_samples)
        return {"step": at, "steps": steps, "samples": found, "exact": exact, "total": len(found)}

    def sample_marks(self, after: int = -1) -> list[tuple[int, str, bool, float]]:
        return [
            (step, a["example"], a["exact"], a["similarity"])
            for step in sorted(self.answers)
            for a in self.answers[step]
            if step > after
        ]


def _reduced(
    metric: str, values: dict[int, float | None], width: int, start: int | None, end: int | None
) -> dict[str, Any]:
    """As engine.lines.series answers."""
    steps = [s for s in sorted(values) if (start or 0) <= s and (end is None or s <= end)]
    size = max(1, -(-len(steps) // width))
    points: list[list[float | None]] = []
    for at in range(0, len(steps), size):
        chunk = [values[step] for step in steps[at : at + size]]
        numbers = [value for value in chunk if value is not None]
        mean = sum(numbers) / len(numbers) if len(numbers) == len(chunk) else None
        low, high = min(numbers, default=None), max(numbers, default=None)
        points.append([steps[min(at + size, len(steps)) - 1], low, high, mean, chunk[-1]])
    return {"metric": metric, "points": points, "total": len(steps)}
