"""How an example went over the ticks: in words, as a strip of marks, and which kind it is."""

from __future__ import annotations

from tui.figures import count, real
from tui.frame import RIGHT, History, Record

MIXED = "/"
"""Stands for several ticks of which some were right and some not."""

KINDS = ("all", "wrong", "lost", "never right", "right")
"""What can be looked at alone. Lost: right at an earlier tick, and wrong now."""


def until(history: History, step: int) -> History:
    """The part that was known at `step`."""
    if not history or history[-1][0] <= step:
        return history
    return tuple(one for one in history if one[0] <= step)


def kinds_of(history: History) -> tuple[str, ...]:
    """Which of KINDS an example is, by the last tick of its history and those before it."""
    ever = any(mark == RIGHT for _, mark in history)
    if history and history[-1][1] == RIGHT:
        return ("all", "right")
    return ("all", "wrong", "lost") if ever else ("all", "wrong", "never right")


def changes(history: History) -> list[tuple[int, bool]]:
    """(step, right) of the ticks at which it became right, or wrong after it had been right."""
    found: list[tuple[int, bool]] = []
    now = False
    for step, mark in history:
        if (mark == RIGHT) is not now:
            now = not now
            found.append((step, now))
    return found


def told(history: History) -> str:
    """In words: when it was first right, when that was lost, since when it is right again."""
    if not history:
        return "not asked yet"
    turns = changes(history)
    if not turns:
        return f"never right in {_ticks(len(history))}"
    if len(turns) == 1 and turns[0][0] == history[0][0]:
        return f"always right, in {_ticks(len(history))}"
    first, last = turns[0][0], turns[-1]
    if len(turns) == 1:
        return f"right since step {count(first)}"
    lost = [step for step, right in turns if not right]
    words = [f"first right at step {count(first)}"]
    if len(lost) == 1:
        words.append(f"lost at {count(lost[0])}")
    else:
        words.append(f"lost {len(lost)} times, last at {count(lost[-1])}")
    if last[1]:
        words.append(f"right again since {count(last[0])}")
    return ", ".join(words)


def moved(changes: Record) -> str:
    """How many answers a tick made better and worse, each against its own tick before; "" at the
    first one."""
    told = {word: real(changes.get(word)) or 0 for word in ("improving", "regressing", "stable")}
    return (
        " ".join(f"{word} {number:.0f}" for word, number in told.items())
        if any(told.values())
        else ""
    )


def _ticks(number: int) -> str:
    return f"{number} tick" + ("" if number == 1 else "s")


def strip(history: History, width: int) -> str:
    """The marks, oldest first, in at most `width` columns; where there are more, each stands for
    several ticks: their mark, or MIXED."""
    marks = "".join(mark for _, mark in history)
    if len(marks) <= width:
        return marks
    per = -(-len(marks) // max(1, width))
    parts = [marks[at : at + per] for at in range(0, len(marks), per)]
    return "".join(_one(part) for part in parts)


def _one(marks: str) -> str:
    rights = marks.count(RIGHT)
    if 0 < rights < len(marks):
        return MIXED
    return marks[-1]


def axis(history: History, width: int, at: int) -> str:
    """The line under the strip: its first and last step, and ^ under the tick of step `at`, all
    within the strip's columns where they fit."""
    drawn = len(strip(history, width))
    if not drawn:
        return ""
    per = -(-len(history) // max(1, width)) if len(history) > width else 1
    place = min(drawn - 1, max(0, sum(step <= at for step, _ in history) - 1) // per)
    first, last = count(history[0][0]), count(history[-1][0])
    if len(history) == 1:
        return f"^ step {first}"
    line = list(" " * drawn)
    line[place] = "^"
    return f"{''.join(line).rstrip()}  steps {first} to {last}"
