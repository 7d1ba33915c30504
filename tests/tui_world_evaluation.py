"""What a home in memory answers about evaluation: what the sets say of two versions. Mixed into
tests.tui_world.World."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from evaluation import paired
from evaluation.paired import Pair
from queue_store.errors import NotFound, Refused
from queue_store.results import Scored
from tests.tui_world_base import WorldState, unknown

TIERS = ("easy", "medium", "hard")


def score(right: bool) -> Scored:
    parts = {"word_em": float(right), "tile_legal": 1.0}
    return Scored("syllo", "1.2.0", right, parts)


class EvaluationAnswers(WorldState):
    """In the shapes of engine.reading.judged; the statistics are the real ones."""

    def __init__(self, *, local: bool = False) -> None:
        super().__init__(local=local)
        self.items_asked = 40
        self.right: dict[str, Callable[[int], bool]] = {}
        """By a version's name, whether it answers item n right; one that is not here was never
        evaluated."""
        self.reads: threading.Event | None = None
        """While it is not set, answers are being read."""
        self.reading_answers = False
        self.sets = ["syllo", "gsm8k"]
        self.wanted = ["syllo"]
        self.jobs: list[dict[str, Any]] = []
        self.hosts: Any = [self.host("local")]
        self.keys: dict[str, dict[str, Any]] = {}
        """By a host's name, what `host_key` says beside the usual."""
        self.looks: dict[str, str] = {}
        """By a host's name, why it cannot be asked."""
        self.trusted: list[tuple[str, str]] = []
        self.texts = {"prompt": "Clue {n}: tiles GLA SS WIN", "answer": '{{"answer": "WORD{n}"}}'}

    def evaluate(self, **right: Callable[[int], bool]) -> None:
        """Have versions evaluated."""
        self.right |= right

    def do_compare_answers(
        self, first: str, second: str | None = None, set: str | None = None
    ) -> dict[str, Any]:
        if self.reads is not None:
            self.reading_answers = True
            self.reads.wait(120)
            self.reading_answers = False
        called = second or "the present state"
        for name in (first, called):
            if name not in self.right:
                raise NotFound(
                    f"{name} has no results", mend=f"it was never evaluated: evaluate {name}"
                )
        a, b = self.right[first], self.right[called]
        pairs = [
            Pair(f"q{n}", "syllo", n % 4 + 1, TIERS[n % 3], score(a(n)), score(b(n)))
            for n in range(self.items_asked)
        ]
        groups = paired.groups(pairs)
        accuracy = paired.accuracy(pairs)
        for family in (*groups.values(), [accuracy]):
            paired.adjust(family)
        gained = [pair.item for pair in pairs if pair.side > 0]
        lost = [pair.item for pair in pairs if pair.side < 0]
        fast = {"backend": "plain", "hosts": ["titan"], "batch": 8, "answers": self.items_asked}
        fast |= {"tokens": 400}
        one = {
            **{"set": "syllo", "digest": "5" * 64, "settings": {}, "config": "c" * 64},
            **{"evaluations": {"a": 1, "b": 2}, "items": self.items_asked + 2},
            "scorers": ["syllo 1.2.0"],
            "accuracy": accuracy,
            "graded": paired.graded(pairs, {"syllo": "word_em"}),
            "parts": paired.part_means(pairs),
            **groups,
            "errors": {"a": {}, "b": {"timeout": 2}},
            "speed": {
                "a": [{**fast, "tokens_per_second": 412.4}],
                "b": [{**fast, "tokens_per_second": 398.0}],
            },
            "gained": gained,
            "lost": lost,
            "changed": [
                {**self._asked(item), "gained": turned}
                for turned, items in ((True, gained), (False, lost))
                for item in items
            ],
            "verdict": paired.verdict(accuracy, first, called, accuracy["p_adjusted"]),
        }
        names = ((first, "a"), (called, "b"))
        told = {
            side: {"name": name, "digest": side * 64, "val_loss": unknown("no validation before")}
            for name, side in names
        }
        refused = {"set": "gsm8k", "why": f"{first} has no results on set gsm8k"}
        refused |= {"mend": f"trainctl evaluate {first} --set gsm8k"}
        return {**told, "sets": [one], "refused": [refused]}

    def _asked(self, item: str) -> dict[str, Any]:
        n = item[1:]
        return {
            "item": item,
            "prompt": self.texts["prompt"].format(n=n),
            "expected": self.texts["answer"].format(n=n),
        }

    def do_compared_item(self, first: int, second: int, item: str) -> dict[str, Any]:
        if self.reads is not None:
            self.reads.wait(120)
        n = int(item[1:])
        one = self._asked(item)

        def answer(right: bool) -> dict[str, Any]:
            said = score(right)
            text = one["expected"] if right else "no idea " * 30
            return {
                **{"answer": text, "finish": "stop", "tokens": 10, "ms": 500.0},
                **{"backend": "plain", "host": "titan", "error_kind": "", "error": ""},
                "scores": [
                    {
                        **{"scorer": said.scorer, "version": said.version, "exact": said.exact},
                        **{"parts": dict(said.parts), "error": said.error},
                    }
                ],
            }

        names = list(self.right)
        a, b = (self.right[name](n) for name in (names[0], names[-1]))
        return {
            **{"item": item, "skill": "syllo", "level": n % 4 + 1, "tier": TIERS[n % 3]},
            "messages": [
                {"role": "system", "content": "Answer with JSON."},
                {"role": "user", "content": one["prompt"]},
            ],
            "expected": one["expected"],
            "a": answer(a),
            "b": answer(b),
        }

    # -- jobs

    def job(self, model: str, state: str = "waiting", **more: Any) -> dict[str, Any]:
        """A job in the shape of engine.reading.jobrows, added."""
        began = self.now - 60 if state != "waiting" else unknown("not begun yet")
        ended = self.now if state in ("done", "failed") else unknown("it has not ended")
        made = {
            **{"id": len(self.jobs) + 1, "model": model, "digest": "a" * 64, "step": 120},
            **{"branch": 1, "sets": ["syllo"], "reason": "version", "priority": "normal"},
            **{"state": state, "wanted": "", "host": unknown("no host has had it yet")},
            **{"items": unknown("not counted yet"), "answered": 0, "errors": 0},
            **{"created": self.now - 90, "started": began, "ended": ended, "tries": 0},
            **{"next_try": unknown("as soon as a host is idle"), "deadline": self.now + 86_400},
            **{"error": "", **more},
        }
        self.jobs.append(made)
        return made

    @property
    def waiting(self) -> int:
        return sum(job["state"] == "waiting" for job in self.jobs)

    def at_work(self) -> list[dict[str, Any]]:
        """`evaluation.running` of the status."""
        nothing = unknown("nothing is being sent")
        return [
            {
                **{key: job[key] for key in ("id", "model", "host", "state", "items", "answered")},
                **{"sent": nothing, "of": nothing},
            }
            for job in self.jobs
            if job["state"] in ("shipping", "running")
        ]

    def do_jobs(self, ended: int = 50) -> dict[str, Any]:
        order = ("running", "shipping", "waiting")
        rows = sorted(
            (dict(job) for job in self.jobs),
            key=lambda job: order.index(job["state"]) if job["state"] in order else len(order),
        )
        return {"jobs": rows, "hosts": self.hosts}

    def do_evaluation_sets(self) -> dict[str, Any]:
        places = [host["name"] for host in self.hosts]
        told = {"sets": self.sets, "wanted": self.wanted if self.sets else []}
        return {**told, "places": places, "folder": "/home/me/train/evaluation"}

    def do_evaluate(
        self, model: str, sets: list[str] | None = None, host: str | None = None
    ) -> dict[str, Any]:
        asked = {"sets": sets or self.wanted, "wanted": host or "", "reason": "demand"}
        self.event("evaluation.waiting", f"evaluation {len(self.jobs) + 1} of {model} waits")
        return self.job(model, priority="high", **asked)

    def _job(self, job: int) -> dict[str, Any]:
        return next(one for one in self.jobs if one["id"] == job)

    def do_cancel_job(self, job: int) -> dict[str, Any]:
        found = self._job(job)
        found |= {"state": "cancelled", "ended": self.now}
        return found

    def do_job_priority(self, job: int, priority: str) -> dict[str, Any]:
        found = self._job(job)
        found["priority"] = priority
        return found

    # -- hosts

    def host(self, name: str, state: str = "idle", **more: Any) -> dict[str, Any]:
        """A host in the shape of engine.loop.hostboard."""
        card = {"name": "RTX 3090", "utilization": 3.0, "memory_used": 0.4e9}
        card |= {"memory_total": 24e9, "temperature": 41.0, "power": 31.0}
        here = name == "local"
        return {
            **{"name": name, "state": state, "error": ""},
            "seen": self.now - 20,
            "idle_since": self.now - 300 if state == "idle" else unknown(f"it is {state}"),
            "job": unknown("no job of this home runs there"),
            "gpus": unknown("not asked yet") if here else [card],
            "ram": unknown("not asked yet") if here else {"used": 4e9, "total": 32e9},
            **more,
        }

    def do_host_look(self, host: str) -> dict[str, Any]:
        if self.reads is not None:
            self.reads.wait(120)
        if host in self.looks:
            raise Refused(self.looks[host])
        return {
            **{
                "name": host,
                "ssh": f"me@{host}",
                "state": "idle",
                "why": "",
                "gpus": [],
                "ram": {},
            },
            "disk": {"free": 410e9, "total": 980e9, "store": f"/home/me/{host}-store"},
            "models": [
                {
                    "digest": "ab" * 32,
                    "bytes": 12_000_000,
                    "used": self.now - 3600,
                    "version": "v001",
                }
            ],
            "python": "3.11.9",
            "packages": {"torch": "2.4.0", "transformers": "4.44.0"},
            "backends": ["plain"],
        }

    def do_host_key(self, host: str) -> dict[str, Any]:
        return {
            **{"host": host, "ssh": f"me@{host}", "fingerprint": "SHA256:" + "Ab9+" * 10 + "xyz"},
            **{"type": "ED25519", "known": False, "changed": False},
            **{"file": "/home/me/train/store/known_hosts", **self.keys.get(host, {})},
        }

    def do_host_trust(self, host: str, fingerprint: str) -> dict[str, Any]:
        told = self.do_host_key(host)
        if told["fingerprint"] != fingerprint:
            raise Refused(f"the host now shows the key {told['fingerprint']}, not {fingerprint}")
        self.trusted.append((host, fingerprint))
        return {**told, "written": True}
