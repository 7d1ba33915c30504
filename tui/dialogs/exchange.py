"""What was asked in the prompt box and what came of it, and how that is drawn.

An answer grows while it is given. Every whole one says who gave it: version or checkpoint, step
and digest. Several models' answers stand beside each other where they have room.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len

from tui.figures import count, counted, known, real, why
from tui.panes.samples import labelled, wrap_spans
from tui.safe import Line, fit, line_text

NOW = "now"
"""The model that trains, among the names of models."""
STOPS = {
    "end": "ended by itself",
    "limit": "ended at the limit of tokens",
    "time": "ended at the limit of time",
    "cancelled": "cancelled",
    "interrupted": "broken off for another command: ask again",
}
BESIDE = 34
"""Columns that an answer needs to stand beside another."""
GAP = " | "
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Said:
    """One model's answer: `text` as far as it is and what is `doing`, then `result`, or
    `problem`."""

    model: str
    text: str = ""
    doing: str = ""
    result: Mapping[str, Any] | None = None
    problem: str = ""

    @property
    def open(self) -> bool:
        return self.result is None and not self.problem

    @staticmethod
    def whole(result: Mapping[str, Any]) -> Said:
        """An answer as `ask` and `generate` give it."""
        name = result.get("model")
        called = str(name) if known(name) else NOW
        if "error" in result:
            return Said(called, problem=str(result["error"]))
        return Said(called, result=result)


@dataclass
class Exchange:
    """A prompt and what came of it, from each of `models` (NOW, and names of others)."""

    prompt: str
    system: str
    max_tokens: int
    temperature: float
    models: tuple[str, ...] = (NOW,)
    key: str = field(default_factory=lambda: f"console-{os.getpid()}-{next(_numbers)}")

    def __post_init__(self) -> None:
        self.now = Said(NOW) if NOW in self.models else None
        """The answer of the model that trains, which the engine thread gives."""
        self.others = [Said(name) for name in self.models if name != NOW]
        """Those that a worker gives, one after another."""

    @property
    def said(self) -> list[Said]:
        return [*([self.now] if self.now else []), *self.others]

    @property
    def open(self) -> bool:
        return any(one.open for one in self.said)

    @property
    def others_key(self) -> str:
        """By which the engine knows the part that a worker answers."""
        return f"{self.key}-models"

    def take_now(self, result: Mapping[str, Any]) -> None:
        self.now = Said(NOW, result=result)

    def take_others(self, results: Sequence[Mapping[str, Any]]) -> None:
        """All there will be: fewer than were asked for where it was cancelled, or where two names
        were one model's."""
        self.others = [Said.whole(one) for one in results]

    def fail(self, problem: str, *, now: bool) -> None:
        """Nobody answers, for this reason."""
        if now:
            self.now = Said(NOW, problem=problem)
        else:
            self.others = [Said(" ".join(one.model for one in self.others), problem=problem)]

    def grow(self, told: Mapping[str, Any], *, now: bool) -> None:
        """What `prompt_progress` answered."""
        if told.get("answering") is not True:
            return
        text, doing = str(told.get("answer", "")), str(told.get("doing", ""))
        if now:
            if self.now is not None and self.now.open:
                self.now = Said(NOW, text)
            return
        whole = [Said.whole(one) for one in told.get("said", ())][: len(self.others)]
        self.others[: len(whole)] = whole
        if len(whole) < len(self.others) and told.get("model") and self.others[len(whole)].open:
            self.others[len(whole)] = Said(str(told["model"]), text, doing)


# -- drawing ------------------------------------------------------------------------------------


def transcript(asked: Sequence[Exchange], width: int) -> list[Line]:
    """What was asked and answered, oldest first."""
    if not asked:
        text = "Prompts go to the model in the form in which rows train, without their profile."
        return labelled("", [(text, "dim")], width)
    lines: list[Line] = []
    for exchange in asked:
        lines += labelled("asked", [(exchange.prompt, "dim")], width)
        said = exchange.said
        each = (width - len(GAP) * (len(said) - 1)) // max(1, len(said))
        if len(said) == 1 and said[0].model == NOW:
            lines += _alone(said[0], width)
        elif len(said) > 1 and each >= BESIDE:
            lines += _beside([_block(one, each) for one in said], each)
        else:
            for one in said:
                lines += _block(one, width)
        lines.append(())
    return lines


def _alone(one: Said, width: int) -> list[Line]:
    """The one answer of the model that trains."""
    if one.problem:
        return labelled("refused", [(one.problem, "bad")], width)
    if one.result is None:
        return labelled("answer" if one.text else "", [(_growing(one), "dim")], width)
    answer = str(one.result.get("answer", ""))
    lines = labelled("answer", [(answer or "(nothing)", "")], width)
    return lines + labelled("", [(told(one.result), "dim")], width)


def _block(one: Said, width: int) -> list[Line]:
    """An answer under the name of its model."""
    lines: list[Line] = [fit(((one.model, "accent"),), width)]
    if one.problem:
        return lines + wrap_spans([(one.problem, "bad")], width)
    if one.result is None:
        return lines + wrap_spans([(_growing(one), "dim")], width)
    answer = str(one.result.get("answer", ""))
    lines += wrap_spans([(answer or "(nothing)", "")], width)
    return lines + wrap_spans([(told(one.result), "dim")], width)


def _growing(one: Said) -> str:
    # Half a character may come as one that is none; the next look has it whole.
    text = one.text.rstrip("\ufffd")
    return f"{text}…" if text else f"{one.doing}…" if one.doing else "…"


def _beside(blocks: Sequence[list[Line]], each: int) -> list[Line]:
    lines: list[Line] = []
    for row in itertools.zip_longest(*blocks, fillvalue=()):
        spans: list[tuple[str, str]] = []
        for number, line in enumerate(row):
            if number:
                spans.append((GAP, "dim"))
            shown = fit(line, each)
            spans += [*shown, (" " * (each - cell_len(line_text(shown))), "")]
        lines.append(tuple(spans))
    return lines


def told(result: Mapping[str, Any]) -> str:
    """Who answered, at which step and with which weights, and what that took."""
    seconds, rate = real(result.get("seconds")) or 0.0, real(result.get("tokens_per_second"))
    name, digest = result.get("model"), result.get("digest")
    parts = [
        str(name) if isinstance(name, str) else "",
        f"step {count(result.get('step'))}",
        digest[:12] if isinstance(digest, str) else "no digest" if why(digest) else "",
        f"{counted(result.get('tokens'), 'token')} in {seconds:.1f} s",
        f"{rate:.0f} tokens/s" if rate else "",
        str(result.get("host", "")),
        STOPS.get(str(result.get("stop")), ""),
    ]
    return " · ".join(part for part in parts if part)
