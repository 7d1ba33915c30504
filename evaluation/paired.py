"""Two models on the same items: what the numbers say, and what they cannot say.

Pure: pairs of scores in, plain data out. An item counts where both models have an answer and the
same version of a scorer judged both; whoever pairs them counts the others apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation import statistics
from evaluation.rates import rate
from evaluation.skills import TIERS
from queue_store.results import Scored

Json = dict[str, Any]
POINTS = 0.05
"""The difference in accuracy of which a comparison says how many items would show it."""


@dataclass(frozen=True)
class Pair:
    """An item that both models answered, with the score of each by the same scorer."""

    item: str
    skill: str
    level: int | None
    tier: str
    a: Scored
    b: Scored

    @property
    def side(self) -> int:
        """1 where `b` turned it right, -1 where it turned it wrong, 0 where both agree."""
        return int(bool(self.b.exact)) - int(bool(self.a.exact))


def accuracy(pairs: Sequence[Pair]) -> Json:
    """{n, a RATE, b RATE, difference, gained, lost, p}: the share right of each with its Wilson
    interval, the items that `b` gained and lost, and the exact p of McNemar's test."""
    return _accuracy(Counter((bool(pair.a.exact), bool(pair.b.exact)) for pair in pairs))


def _accuracy(cells: Mapping[tuple[bool, bool], int]) -> Json:
    """Of the table of (a right, b right)."""
    both, lost = cells.get((True, True), 0), cells.get((True, False), 0)
    gained = cells.get((False, True), 0)
    n = both + lost + gained + cells.get((False, False), 0)
    return {
        "n": n,
        "a": rate(both + lost, n),
        "b": rate(both + gained, n),
        "difference": (gained - lost) / n if n else {"unknown": "no item was answered by both"},
        "gained": gained,
        "lost": lost,
        "p": statistics.mcnemar(gained, lost),
    }


def verdict(found: Mapping[str, Any], a: str, b: str, p: float | None = None) -> Json:
    """{result, text, needed, detectable} of what `accuracy` found: result is better, worse (of
    `b`) or no difference shown. `needed` items would show POINTS with 80 % power, `detectable` is
    the difference that these n show, both from how many items changed sides here. `p`: the one to
    judge by, where it was adjusted."""
    n, gained, lost = found["n"], found["gained"], found["lost"]
    named = "p" if p is None or p == found["p"] else "adjusted p"
    p = found["p"] if p is None else p
    if not n:
        none = {"unknown": "no item was answered by both"}
        text = "nothing to compare: no item was answered by both"
        return {"result": "unknown", "text": text, "needed": none, "detectable": none}
    # Of few items that changed sides the share is hardly known: Laplace's rule, never 0.
    discordant = (gained + lost + 1) / (n + 2)
    needed = statistics.needed(POINTS, discordant)
    least = statistics.detectable(n, discordant)
    more = {
        "needed": needed,
        "detectable": {"unknown": "so few items show no difference"} if least is None else least,
    }
    right = f"{found['b']['hits']} of {n} right, {a} {found['a']['hits']} ({named} {p:.2g})"
    if p <= statistics.ALPHA:
        word = "better" if gained > lost else "worse"
        return {"result": word, "text": f"{b} is {word} than {a}: {right}", **more}
    points = f"{100 * POINTS:g} points"
    if needed > n:
        rest = f"{_round(needed)} would be needed to see {points}"
    else:
        rest = f"so many would have shown {points} four times in five"
    text = f"no difference shown with n = {n}: {b} {right}; {rest}"
    return {"result": "no difference shown", "text": text, **more}


def _round(n: int) -> int:
    """Two digits that count, upwards: nobody needs 156 items rather than 160."""
    digits = 10 ** max(0, len(str(n)) - 2)
    return -(-n // digits) * digits


def groups(pairs: Sequence[Pair]) -> dict[str, list[Json]]:
    """`accuracy` by skill, tier and level: {skills[], tiers[], levels[]}, each with its key (and
    a level with its skill). Items that name none are in no group. `p_adjusted` is still to come
    (`adjust`), as a family of tests may reach over several sets."""
    kinds = Counter(
        (pair.skill, pair.tier, pair.level, bool(pair.a.exact), bool(pair.b.exact))
        for pair in pairs
    )
    skills, tiers, levels = (defaultdict[Any, Counter[tuple[bool, bool]]](Counter) for _ in "123")
    for (skill, tier, level, a, b), number in kinds.items():
        if skill:
            skills[skill][a, b] += number
        if tier:
            tiers[tier][a, b] += number
        if level is not None:
            levels[skill, level][a, b] += number
    return {
        "skills": [{"skill": name, **_accuracy(skills[name])} for name in sorted(skills)],
        "tiers": [{"tier": name, **_accuracy(tiers[name])} for name in sorted(tiers, key=_tier)],
        "levels": [
            {"skill": skill, "level": level, **_accuracy(levels[skill, level])}
            for skill, level in sorted(levels)
        ],
    }


def _tier(name: str) -> tuple[int, str]:
    return (TIERS.index(name) if name in TIERS else len(TIERS)), name


def adjust(family: Sequence[Json]) -> None:
    """Give every test of a family its `p_adjusted` (false discoveries, Benjamini-Hochberg)."""
    adjusted = statistics.benjamini_hochberg([one["p"] for one in family])
    for one, p in zip(family, adjusted, strict=True):
        one["p_adjusted"] = p


def graded(pairs: Sequence[Pair], parts: Mapping[str, str], *, seed: int = 0) -> list[Json]:
    """Graded scores, a scorer each: [{scorer, version, part, n, a, b, difference, low, high, p}],
    means of the part that `parts` names for it, 95 % interval by bootstrap, p by permutation."""
    found: list[Json] = []
    for (scorer, version), mine in sorted(_by_scorer(pairs).items()):
        part = parts.get(scorer, "")
        held = [pair for pair in mine if part in pair.a.parts and part in pair.b.parts]
        if not held:
            continue
        test = statistics.paired([p.b.parts[part] - p.a.parts[part] for p in held], seed=seed)
        found.append(
            {
                **{"scorer": scorer, "version": version, "part": part, "n": test.n},
                "a": sum(pair.a.parts[part] for pair in held) / test.n,
                "b": sum(pair.b.parts[part] for pair in held) / test.n,
                **{"difference": test.mean, "low": test.low, "high": test.high, "p": test.p},
            }
        )
    return found


def part_means(pairs: Sequence[Pair]) -> list[Json]:
    """The mean of every part of every scorer: [{scorer, version, part, n, a, b}]."""
    found: list[Json] = []
    for (scorer, version), mine in sorted(_by_scorer(pairs).items()):
        for part in dict.fromkeys(part for pair in mine for part in pair.a.parts):
            held = [p for p in mine if part in p.a.parts and part in p.b.parts]
            if held:
                a, b = (
                    sum(side.parts[part] for side in sides) / len(held)
                    for sides in ([p.a for p in held], [p.b for p in held])
                )
                names: Json = {"scorer": scorer, "version": version, "part": part}
                found.append({**names, "n": len(held), "a": a, "b": b})
    return found


def _by_scorer(pairs: Iterable[Pair]) -> dict[tuple[str, str], list[Pair]]:
    found: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        found[pair.a.scorer, pair.a.version].append(pair)
    return found
