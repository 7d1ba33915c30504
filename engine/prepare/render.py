"""Rows and prompts to text, as one item's settings have them: the one way for both.

Training renders rows here and generation its prompts, so that a model is asked in the words that
it was trained on: the same template, profile, system prompt and choice about thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.prepare import thinking
from engine.prepare.masks import Masker
from engine.prepare.profiles import Profile, transformed
from engine.prepare.template import ChatTemplate, ModelText, Span
from queue_store.errors import DataError
from queue_store.rows import Message, Row


@dataclass(frozen=True)
class Rendered:
    """A row as text. `spans` are the characters that train, `messages` the turns that the template
    was given (empty for a text row)."""

    text: str
    spans: list[Span]
    messages: Sequence[Message] = ()


class Renderer:
    """Text of rows and prompts for one model, profile, system prompt and choice about thinking."""

    def __init__(
        self,
        model: ModelText,
        system_prompt: str = "",
        how: str = thinking.TEMPLATE,
        profile: Profile | None = None,
    ) -> None:
        self._system = Message("system", system_prompt) if system_prompt else None
        self._how = how
        self._profile = profile
        self.model = model
        self._masker: Masker | None = None
        if model.chat_template is not None:
            added = model.tokenizer.get_added_tokens_decoder().values()
            special = {token.content for token in added if token.special}
            special.update(filter(None, [model.special.get("eos_token")]))
            template = ChatTemplate(model.chat_template, model.special)
            self._masker = Masker(template, sorted(special), how)

    @property
    def ways(self) -> dict[str, int]:
        """How many rows each way of telling what trains has served (see masks.py)."""
        return dict(self._masker.used) if self._masker else {}

    def row(self, row: Row) -> Rendered:
        """Raises RowRefused, and DataError where the model has no template."""
        if self._profile is not None:
            row = transformed(self._profile, row)
        if row.messages is None:
            text = row.text or ""
            return Rendered(text, [(0, len(text))])
        messages = self._turns(row.messages)
        text, spans = self._template().render(messages, row.tools)
        return Rendered(text, spans, messages)

    def prompt(self, row: Row, asked: int) -> str:
        """What the model is asked with by the first `asked` turns of a row, an answer of which it
        is to give; the profile sees the whole row. Raises as `row`."""
        if self._profile is not None:
            row = transformed(self._profile, row)
        if row.messages is None:
            return row.text or ""
        messages = self._turns(row.messages[:asked])
        return self._template().prompt(messages, row.tools)

    def _turns(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self._system is not None and messages[0].role != "system":
            messages = (self._system, *messages)
        return thinking.dropped(messages) if self._how == thinking.DROP else messages

    def _template(self) -> Masker:
        if self._masker is None:
            raise DataError(
                "the model has no chat template, and the file has conversations",
                where=str(self.model.folder),
                mend="put a chat_template.jinja there",
            )
        return self._masker
