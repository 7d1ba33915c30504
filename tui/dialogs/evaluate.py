"""Have a version asked the evaluation sets: which sets, and where; what is known of it already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textual.widget import Widget

from tui.dialogs.base import Choice, Choices, Dialog, Fact, label
from tui.evaluation import score_text, scores_of
from tui.frame import Record
from tui.safe import clip, content

SHOWN = 8
"""Most sets, and hosts, to choose from; `trainctl evaluate` takes any."""
FIRST = "the first that is idle"


class EvaluateDialog(Dialog):
    """`offered` is the engine's answer to `evaluation_sets`. Result: `sets` and `host` of the
    command `evaluate`, None where the engine chooses."""

    button = "Evaluate"

    def __init__(self, version: Record, offered: Record) -> None:
        super().__init__()
        self.title_text = f"Evaluate {version.get('name')}"
        self._version = version
        names = [str(name) for name in offered.get("wanted") or ()]
        sets = [str(name) for name in offered.get("sets") or ()]
        all_of: list[tuple[str, list[str] | None]] = [(", ".join(names), None)] if names else []
        single = [(name, [name]) for name in sets if [name] != names]
        self._sets = [*all_of, *single][:SHOWN]
        hosts = [str(name) for name in offered.get("places") or ()]
        places: list[tuple[str, str | None]] = [(FIRST, None)] if len(hosts) != 1 else []
        self._places = [*places, *((name, name) for name in hosts)][:SHOWN]

    def facts(self) -> Sequence[Fact]:
        facts: list[Fact] = [
            (f"{name} so far", score_text(one)) for name, one in scores_of(self._version).items()
        ]
        return [*facts, "What has an answer is not asked again. Training goes on meanwhile."]

    def fields(self) -> Iterable[Widget]:
        yield label("Sets")
        yield _choices("sets", [name for name, _ in self._sets])
        yield label("Where")
        yield _choices("place", [name for name, _ in self._places])

    def result(self, button: str) -> Mapping[str, Any]:
        return {
            "sets": self._sets[self.picked("#sets")][1],
            "host": self._places[self.picked("#place")][1],
        }


def _choices(id: str, names: Sequence[str]) -> Choices:
    made = [Choice(content(clip(name, 48)), value=not n) for n, name in enumerate(names)]
    return Choices(*made, id=id)


def no_set(folder: str) -> list[Fact]:
    """What to do where there is nothing to ask."""
    return [
        "There is no evaluation set yet: questions with their answers that never train.",
        ("folder", folder),
        ("a row", "a conversation whose last turn is the expected answer, one a line of *.jsonl"),
        (
            "or make one",
            f"trainctl data make syllo --level 2 --count 100 --seed 7 --held-out -o"
            f" {folder}/syllo.jsonl",
        ),
        "Without it nobody knows whether training helped: 100 rows are a good beginning.",
    ]
