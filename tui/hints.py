"""Hints as the console shows them: which stand, and which this console was told to hush."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tui.figures import clock_time, count, duration, loss, real, size
from tui.frame import Frame, Record

SIGNS = {"bad": ("X", "bad"), "warn": ("!", "warn"), "info": ("i", "accent")}
"""How grave a hint is, told apart without colour too."""


def told(status: Record) -> list[Record]:
    """The hints of a status, the most important first. An engine that has only the one line
    (another release) tells that."""
    hints = status.get("hints")
    if isinstance(hints, Sequence) and not isinstance(hints, str):
        return [hint for hint in hints if isinstance(hint, Mapping)]
    text = status.get("hint")
    return [{"rule": "hint", "level": "warn", "text": str(text)}] if text else []


def sign_of(hint: Record) -> tuple[str, str]:
    """(sign, tone) of a hint's level."""
    return SIGNS.get(str(hint.get("level")), SIGNS["warn"])


class Hushed:
    """The rules that this console does not show in its hint line, each until it is over."""

    def __init__(self) -> None:
        self._rules: set[str] = set()
        self._seen: Frame | None = None

    def __contains__(self, rule: object) -> bool:
        return rule in self._rules

    def toggle(self, rule: str) -> None:
        """Hush a rule, or show it again."""
        self._rules ^= {rule}

    def shown(self, frame: Frame) -> list[Record]:
        """The hints of a frame that are not hushed; what is over is hushed no longer."""
        hints = told(frame.status)
        if frame.status and frame is not self._seen:
            self._seen = frame
            self._rules &= {str(hint.get("rule")) for hint in hints}
        return [hint for hint in hints if hint.get("rule") not in self._rules]


def figures(hint: Record) -> list[tuple[str, str]]:
    """(name, value with its unit) of each figure: the unit stands at the end of its name."""
    found = hint.get("figures")
    return (
        [_figure(str(name), value) for name, value in found.items()]
        if (isinstance(found, Mapping))
        else []
    )


def _figure(name: str, value: object) -> tuple[str, str]:
    words = name.split("_")
    label = " ".join(words[:-1])
    number = real(value)
    if number is None:
        return " ".join(words), str(value)
    match words[-1]:
        case "nats":
            return label, f"{loss(value)} nats"
        case "bytes":
            return label, size(value)
        case "seconds":
            return label, duration(value)
        case "percent":
            return label, f"{number:.0f}%"
        case "celsius":
            return label, f"{number:.0f} °C"
    return " ".join(words), count(value) if number == int(number) else f"{number:.3g}"


def since(hint: Record) -> str:
    """Since which step and time a hint stands, "" where it does not tell."""
    at = hint.get("since")
    if not isinstance(at, Mapping):
        return ""
    return f"step {count(at.get('step'))}, {clock_time(at.get('time'), date=True)}"
