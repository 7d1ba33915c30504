"""A person's prompt in the form in which rows of the home train, without their profile."""

from __future__ import annotations

from engine.prepare.render import Renderer
from engine.prepare.template import RowRefused
from queue_store.errors import Refused
from queue_store.rows import Row
from queue_store.specs import Message


def question(renderer: Renderer, text: str, system: str) -> str:
    """The text up to where the answer begins. `renderer` has the system prompt of rows, `system`
    says whether there is one. Raises Refused."""
    if renderer.model.chat_template is None:
        if system:
            raise Refused(
                "the model has no chat template, and so no place for a system prompt",
                mend="ask without one",
            )
        return text
    try:
        return renderer.prompt(Row(1, (Message("user", text),), None), 1)
    except RowRefused as refusal:
        raise Refused(str(refusal)) from None
