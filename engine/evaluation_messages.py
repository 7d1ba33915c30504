"""The commands about evaluation; engine.messages has them among the others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from engine.arguments import Command, Id, Kind, Name, Spec


class CompareAnswers(Command, frozen=True):
    first: Name
    second: Name | None = None
    set: Name | None = None
    """One evaluation set alone."""


class ComparedItem(Command, frozen=True):
    first: Id
    second: Id
    """Evaluations, as the sets of compare_answers name them."""
    item: Annotated[str, Meta(min_length=1, max_length=4000)]


COMMANDS: dict[str, Spec] = {
    "compare_answers": Spec(CompareAnswers, Kind.READ),
    "compared_item": Spec(ComparedItem, Kind.READ),
}
