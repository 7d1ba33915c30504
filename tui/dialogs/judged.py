"""What the evaluation sets say of two versions, as lines: accuracy with its interval and the paired
test, by set, tier and level; scores by part, errors, speed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tui.figures import count, counted, percent, real, why
from tui.frame import Record
from tui.safe import Line, clip, pad, wrap

ALPHA = 0.05
"""An adjusted p of this or less is marked (evaluation.statistics.ALPHA)."""
NARROW = 72
"""Columns below which p has no room beside the adjusted one."""
RATE = 11
"""Columns of a share with its interval."""
LEVELS = 60
"""Most levels that are listed."""
INTERVAL = "95% intervals (Wilson); + gained, - lost; p of McNemar's exact test,"


def judged_lines(found: Record, names: tuple[str, str], width: int) -> Iterator[Line]:
    """The engine's answer to `compare_answers`."""
    sets = [one for one in found.get("sets") or () if isinstance(one, Mapping)]
    for one in sets:
        yield from _set(one, names, width)
        yield ()
    for one in found.get("refused") or ():
        mend = f" ({one.get('mend')})" if one.get("mend") else ""
        yield from _wrapped(f"not compared: {one.get('why')}{mend}", width, "warn")
    about = f"{INTERVAL} adjusted for the number of groups; * where it is 0.05 or less"
    yield from _wrapped(about, width, "dim")


def shares(found: Record) -> Iterator[tuple[str, str, str, str]]:
    """(set, accuracy of the first, of the second with the verdict, tone) of every set, in short."""
    for one in found.get("sets") or ():
        result = str((one.get("verdict") or {}).get("result"))
        tone = {"better": "good", "worse": "bad"}.get(result, "")
        whole = one.get("accuracy") or {}
        rates = [_rate(whole.get(side)).strip() for side in "ab"]
        yield str(one.get("set")), rates[0], f"{rates[1]} {result if tone else ''}".strip(), tone


def _set(one: Record, names: tuple[str, str], width: int) -> Iterator[Line]:
    name = str(one.get("set"))
    yield ((clip(name, width), "bold"),)
    yield _heading(names, width)
    yield _row("all", one.get("accuracy"), width)
    verdict = one.get("verdict")
    if isinstance(verdict, Mapping):
        tone = {"better": "good", "worse": "bad"}.get(str(verdict.get("result")), "")
        yield from _wrapped(str(verdict.get("text")), width, tone)
    for side, called in zip("ab", names, strict=True):
        errors = (one.get("errors") or {}).get(side)
        if errors:
            told = ", ".join(f"{kind} {count(n)}" for kind, n in sorted(errors.items()))
            number = count(sum(errors.values()))
            yield from _wrapped(f"{called} has no answer that counts to {number}: {told}", width)
    yield from _speed(one, names, width)
    for family, key in (("tiers", "tier"), ("skills", "skill"), ("levels", "level")):
        groups = [group for group in one.get(family) or () if isinstance(group, Mapping)]
        if len(groups) > 1:  # one group is the whole set
            yield ((family, "bold"),)
            skills = {group.get("skill") for group in groups}
            for group in groups[:LEVELS]:
                of = f"{group.get('skill')} " if key == "level" and len(skills) > 1 else ""
                yield _row(f"{of}{group.get(key)}", group, width)
            if len(groups) > LEVELS:
                yield ((f"and {counted(len(groups) - LEVELS, 'more level')}", "dim"),)
    yield from _parts(one, width)


def _heading(names: tuple[str, str], width: int) -> Line:
    a, b = (pad(called, RATE) for called in names)
    ps = f"{'p':>5} {'adjusted':>8}" if width >= NARROW else "adj p"
    return ((f"{'':{_left(width)}} {'n':>6} {a} {b} {'+':>4} {'-':>4} {ps}", "dim"),)


def _left(width: int) -> int:
    """Columns of a group's name: what the figures leave."""
    figures = 6 + 2 * RATE + 2 * 4 + (15 if width >= NARROW else 6)
    return max(6, min(24, width - figures - 6))


def _row(name: str, group: Any, width: int) -> Line:
    if not isinstance(group, Mapping):
        return ((name, "dim"),)
    adjusted = real(group.get("p_adjusted"))
    shown = adjusted is not None and adjusted <= ALPHA
    gained, lost = real(group.get("gained")) or 0, real(group.get("lost")) or 0
    tone = ("good" if gained > lost else "bad") if shown else ""
    sign = "*" if shown else " "
    a, b = (pad(_rate(group.get(side)), RATE) for side in "ab")
    ps = f"{_p(adjusted):>5}{sign}"
    if width >= NARROW:
        ps = f"{_p(group.get('p')):>5} {_p(adjusted):>8}{sign}"
    text = f" {count(group.get('n')):>6} {a} {b} {count(gained):>4} {count(lost):>4} {ps}"
    return ((pad(name, _left(width)), ""), (text, tone))


def _rate(rate: Any) -> str:
    """ "71% 61-79": a share with its interval."""
    if not isinstance(rate, Mapping) or real(rate.get("share")) is None:
        return "–"
    low, high = (round(100 * (real(rate.get(key)) or 0.0)) for key in ("low", "high"))
    return f"{percent(rate.get('share')):>4} {low}-{high}"


def _p(value: Any) -> str:
    number = real(value)
    if number is None:
        return "–"
    if number < 0.001:
        return "<.001"
    return f"{number:.3f}" if number < 0.01 else f"{number:.2g}"


def _parts(one: Record, width: int) -> Iterator[Line]:
    """The mean of every part of a score; of the one that is graded, how sure the change is."""
    parts = [part for part in one.get("parts") or () if isinstance(part, Mapping)]
    if len(parts) < 2:  # one part is the verdict itself
        return
    tests = {(test.get("scorer"), test.get("part")): test for test in one.get("graded") or ()}
    yield (("parts of the score, means", "bold"),)
    for part in parts:
        test = tests.get((part.get("scorer"), part.get("part")))
        moved: list[str] = []
        if test is not None:
            low, high = real(test.get("low")) or 0.0, real(test.get("high")) or 0.0
            change = real(test.get("difference")) or 0.0
            moved = [f"{change:+.3f} ({low:+.3f} to {high:+.3f}, p {_p(test.get('p'))})"]
        means = (f"{real(part.get(side)) or 0.0:.3f}" for side in "ab")
        name = pad(str(part.get("part")), 16)
        text = f"{name} {next(means)} -> {next(means)}"
        if width >= NARROW:
            yield (("  ".join([text, *moved]), ""),)
        else:
            yield ((clip(text, width), ""),)
            yield from ((("  " + clip(line, width - 2), ""),) for line in moved)


def _speed(one: Record, names: tuple[str, str], width: int) -> Iterator[Line]:
    for side, called in zip("ab", names, strict=True):
        for rate in (one.get("speed") or {}).get(side) or ():
            hosts = ", ".join(map(str, rate.get("hosts") or ()))
            by = [str(rate.get("backend") or "an unnamed backend"), *([hosts] if hosts else [])]
            if not why(rate.get("batch")):
                by.append(f"batch {count(rate.get('batch'))}")
            fast = count(rate.get("tokens_per_second"))
            yield from _wrapped(f"{called}: {fast} tokens/s ({', '.join(by)})", width, "dim")


def _wrapped(text: str, width: int, tone: str = "") -> Iterator[Line]:
    for part in wrap(text, width):
        yield ((part, tone),)
