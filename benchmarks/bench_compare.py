"""Comparing two models by stored results: 10,000 items each, right or wrong and graded."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import at_most, figure
from benchmarks.kit import made_home
from engine.reading import judged
from engine.reading.views import Views
from evaluation.compare import Model, compare
from queue_store.results import Result, Results, Scored, SetItem

ITEMS = 10_000
TARGET_SECONDS = 1.0
TIERS = ("easy", "medium", "hard")
SETTINGS = {"temperature": 0.0, "max_tokens": 256}


def items() -> list[SetItem]:
    """Items of two skills, ten levels and three tiers, with a prompt of a real one's length."""
    return [
        SetItem(
            id=f"item-{n}",
            position=n,
            prompt=[{"role": "user", "content": f"{n}: " + "which word is it? " * 10}],
            expected="x" * 60,
            skill=("syllo", "own")[n % 2],
            level=n % 10 + 1,
            tier=TIERS[n % 3],
            metadata={"syllable_bank": ["win", "dow"] * 8},
        )
        for n in range(ITEMS)
    ]


def results(seed: int, share: float) -> list[Result]:
    """Answers of 400 characters, half of them judged by a graded scorer with five parts."""
    draw = random.Random(seed)
    made = []
    for n in range(ITEMS):
        right = draw.random() < share
        if n % 2:
            # A score of any size, which cannot be counted in groups: the slow case.
            score = Scored("token_f1", "1.0.0", right, {"f1": draw.random()})
        else:
            acc = draw.randrange(8) / 7
            parts = {"word_acc": acc, "word_em": float(right), "tile_legal": 1.0, "strict": 0.0}
            score = Scored("syllo", "2.0.0", right, {**parts, "json_valid": 1.0})
        made.append(
            Result(f"item-{n}", "a" * 400, "stop", 100, 900.0, 8, "plain", "box", scores=(score,))
        )
    return made


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rounds = 3 if quick else 10
    models = [Model(f"v{n:03}", f"{n:x}" * 64, 1.0) for n in range(1, 1 + (3 if quick else 8))]
    with made_home() as home, Results(home) as store:
        writing = []
        for number, model in enumerate(models):
            evaluation = store.begin(model.digest, "5" * 64, "bench", items(), SETTINGS)
            made = results(number, 0.6 + number / 100)
            writing.append(seconds(functools.partial(store.put, evaluation, made)))
        again = seconds(lambda: store.put(evaluation, made))
        compared = functools.partial(compare, store, models[0], models[1])
        first = seconds(compared)
        comparing, busy = [], []
        for _ in range(rounds):
            before = time.process_time()
            comparing.append(seconds(compared))
            busy.append(time.process_time() - before)
        with Views(home) as views:
            a, b = models[0].digest, models[1].digest
            asked = [seconds(lambda: judged.answer(views, a, b, None)) for _ in range(rounds)]
    what = f"{ITEMS:,} items"
    return {
        "rows": [
            at_most(
                f"compare two of {len(models)} models on {what}", comparing, "s", TARGET_SECONDS
            ),
            figure(f"processor time of it, {what}", busy, "s"),
            figure(f"as the console asks for it, in a child, {what}", asked, "s"),
            figure(f"the first time, with the import of numpy, {what}", [first], "s"),
            figure(f"keep the results of {what}", writing, "s"),
            figure(f"the same sent again, {what}", [again], "s"),
        ]
    }
