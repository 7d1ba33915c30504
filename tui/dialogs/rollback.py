"""Go back to a version: what is lost, what is kept, and its name typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tui.dialogs.base import Fact
from tui.dialogs.typed import TypedDialog
from tui.evaluation import score_text, scores_of
from tui.figures import count, counted, duration, loss, real
from tui.frame import Record
from tui.safe import clip, squeeze

ITEMS_SHOWN = 4
SETS_SHOWN = 3
LINE = 120
"""Columns of what other people wrote: two lines in a dialog."""


def plan_facts(plan: Record) -> list[Fact]:
    """The plan in words, in the order in which a person asks. Its shape is that of the engine's
    `rollback_plan`."""
    now = plan.get("now") or {}
    facts: list[Fact] = [("now", _moment(now)), ("then", _moment(plan))]
    if plan.get("description"):
        facts.append(("", clip(plan.get("description"), LINE)))
    lost = [counted(plan.get("steps_lost"), "step")]
    hours = real(plan.get("hours_lost"))
    if hours is not None:
        lost.append(f"{duration(hours * 3600)} of training")
    for key, name in (("validations_lost", "validation"), ("samples_lost", "sample tick")):
        if real(plan.get(key)):
            lost.append(counted(plan.get(key), name))
    facts.append(("is lost", ", ".join(lost)))
    items = [item for item in plan.get("items") or () if isinstance(item, Mapping)]
    for number, item in enumerate(items[:ITEMS_SHOWN]):
        text = squeeze(f"{item.get('name')}: {item.get('becomes')}", LINE)
        facts.append(("files" if not number else "", text))
    if len(items) > ITEMS_SHOWN:
        facts.append(("", f"and {len(items) - ITEMS_SHOWN} more"))
    facts.append(("is kept", str(plan.get("keeps") or "the present state, as a version first")))
    return facts


def _moment(state: Record) -> str:
    """A step with what it scored: losses, the fixed examples that were right, the sets."""
    text = f"step {count(state.get('step'))}, loss {loss(state.get('loss'))}"
    text += f", val {loss(state.get('val_loss'))}"
    samples = state.get("samples")
    if isinstance(samples, Mapping) and real(samples.get("total")):
        text += f", exact {samples.get('exact')}/{samples.get('total')}"
    for name, score in list(scores_of(state).items())[:SETS_SHOWN]:
        text += f", {name} {score_text(score)}"
    return text


class RollbackDialog(TypedDialog):
    """Result: {"version", "plan"} once the version's name is typed."""

    def __init__(self, plan: Record, *, verb: str = "Roll back to", notice: str = "") -> None:
        super().__init__(notice)
        self._plan = plan
        self.word = str(plan.get("version"))
        self.title_text = self.button = f"{verb} {self.word}"

    def facts(self) -> Sequence[Fact]:
        return plan_facts(self._plan)

    def agreed(self) -> Any:
        return {"version": self.word, "plan": self._plan.get("plan")}
