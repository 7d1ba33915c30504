"""What a home in memory answers about samples and prompts. Mixed into tests.tui_world.World."""

from __future__ import annotations

from typing import Any

from queue_store.errors import NotFound, Refused
from tests.tui_world_base import WorldState, unknown

ASKED_NOTHING = {"answering": False, "answer": "", "tokens": 0}


class SampleAnswers(WorldState):
    """In the shapes of engine.reading.views and of the engine's answer to a prompt."""

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
        self.asking.wait(120)
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
            "model": unknown("it trained on"),
            "digest": unknown("it trained on since checkpoint-100"),
        }

    def do_prompt_progress(self, key: str) -> dict[str, Any]:
        return self.growing.get(key.rpartition("-models")[1], ASKED_NOTHING)

    def do_ask(self, models: list[str], key: str = "", **words: Any) -> list[dict[str, Any]]:
        known = {"base", *(str(one["name"]) for one in self.versions_)}
        for name in models:
            if name not in known:
                raise NotFound(f"no model {name}", mend="trainctl models lists them")
        self.asking.wait(120)
        return [
            {
                **{"model": name, "step": 10 * n, "branch": 1, "digest": f"{n}" * 64},
                **{"answer": f"{self.said} says {name}", "stop": "end", "tokens": 7},
                **{"seconds": 0.5, "tokens_per_second": 14.0, "host": "local"},
            }
            for n, name in enumerate(models, 1)
            if key not in self.cancelled
        ]

    def do_cancel_generate(self, key: str) -> dict[str, Any]:
        self.cancelled.add(key)
        self.asking.set()
        return {}

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
