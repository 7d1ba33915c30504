"""What a home in memory answers about evaluation: what the sets say of two versions. Mixed into
tests.tui_world.World."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from evaluation import paired
from evaluation.paired import Pair
from queue_store.errors import NotFound
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
        self.texts = {"prompt": "Clue {n}: tiles GLA SS WIN", "answer": '{{"answer": "WORD{n}"}}'}

    def evaluate(self, **right: Callable[[int], bool]) -> None:
        """Have versions evaluated."""
        self.right |= right

    def do_compare_answers(
        self, first: str, second: str | None = None, set: str | None = None
    ) -> dict[str, Any]:
        if self.reads is not None:
            self.reads.wait(20)
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
            self.reads.wait(20)
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
