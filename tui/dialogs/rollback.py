"""Go back to a version: what is lost, what is kept, and its name typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textual import on
from textual.widget import Widget
from textual.widgets import Button, Input

from tui.dialogs.base import Dialog, Fact, field, label
from tui.figures import count, counted, duration, loss, real
from tui.frame import Record

ITEMS_SHOWN = 4


def plan_facts(plan: Record) -> list[Fact]:
    """The plan in words, in the order in which a person asks. Its shape is that of the engine's
    `rollback_plan`."""
    now = plan.get("now") or {}
    facts: list[Fact] = [("now", _moment(now)), ("then", _moment(plan))]
    if plan.get("description"):
        facts.append(("", str(plan.get("description"))))
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
        facts.append(("files" if not number else "", f"{item.get('name')}: {item.get('becomes')}"))
    if len(items) > ITEMS_SHOWN:
        facts.append(("", f"and {len(items) - ITEMS_SHOWN} more"))
    facts.append(("is kept", str(plan.get("keeps") or "the present state, as a version first")))
    return facts


def _moment(state: Record) -> str:
    """A step with what it scored."""
    text = f"step {count(state.get('step'))}, loss {loss(state.get('loss'))}"
    return f"{text}, val {loss(state.get('val_loss'))}"


class RollbackDialog(Dialog):
    """Result: {"version", "plan"} once the version's name is typed."""

    def __init__(self, plan: Record, *, verb: str = "Roll back to", notice: str = "") -> None:
        super().__init__(notice)
        self._plan = plan
        self.version = str(plan.get("version"))
        self.title_text = f"{verb} {self.version}"
        self.button = f"{verb} {self.version}"

    def facts(self) -> Sequence[Fact]:
        return plan_facts(self._plan)

    def fields(self) -> Iterable[Widget]:
        yield label(f"Type {self.version} to go on")
        yield field("name", self.version)

    def buttons(self) -> Iterable[Button]:
        for button in super().buttons():
            button.disabled = True
            yield button

    @on(Input.Changed, "#name")
    def _typed(self, event: Input.Changed) -> None:
        self.query_one("#accept", Button).disabled = event.value.strip() != self.version

    def result(self, button: str) -> Any:
        if self.value("#name") != self.version:
            return None
        return {"version": self.version, "plan": self._plan.get("plan")}
