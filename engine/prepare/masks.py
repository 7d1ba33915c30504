"""Which characters of a rendered conversation train: the assistant's text and its end token.

Three ways, each certain or refused, never by searching the text for role markers (content may
imitate them):
- the template's own `{% generation %}` markers, where it has them;
- structure: the template is rendered once per sequence of roles with stand-in contents, which
  shows its literal pieces; a row is those pieces with the row's contents between them, and that
  must equal, character by character, what jinja renders for this very row;
- prefixes, for rows whose content the template rewrites (trimmed, thinking dropped): a turn
  starts where the rendered prompt before it ends, and ends before the literal text after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from engine.prepare.template import ChatTemplate, RowRefused, Span
from queue_store.rows import Message

MARKERS, STRUCTURE, PREFIXES = "generation markers", "structure", "prefixes"


@dataclass(frozen=True)
class _Shape:
    """The literal text of a template for one sequence of roles.

    `order` lists the turns as they stand in the text; `pieces` has one more entry: the text
    before, between and after their contents. `spoken[k]` is how many last characters of
    `pieces[k]` the model itself must write before its content (an empty think block), and
    `ended[k]` how many first characters of `pieces[k + 1]` end its turn; -1 where the turn at
    place k is not the assistant's.
    """

    order: tuple[int, ...]
    pieces: tuple[str, ...]
    spoken: tuple[int, ...]
    ended: tuple[int, ...]

    def text(self, contents: Sequence[str]) -> str:
        turns = [contents[index] for index in self.order]
        return "".join(itertools.chain(*zip(self.pieces, turns, strict=False), self.pieces[-1:]))

    def spans(self, contents: Sequence[str]) -> list[Span]:
        spans = []
        at = 0
        for place, index in enumerate(self.order):
            at += len(self.pieces[place])
            end = at + len(contents[index])
            if self.ended[place] >= 0:
                spans.append((at - self.spoken[place], end + self.ended[place]))
            at = end
        return spans


class Masker:
    """Renders conversations of one template and tells what trains in each."""

    def __init__(self, template: ChatTemplate, special_tokens: Sequence[str]) -> None:
        """`special_tokens`: every special token of the tokenizer, by its text."""
        self._template = template
        self._special = sorted(filter(None, special_tokens), key=len, reverse=True)
        self._shapes: dict[tuple[str, ...], _Shape | str] = {}
        self.used: dict[str, int] = {}
        """How many rows each of the three ways has served."""

    def render(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """(text, spans that train). Raises RowRefused with the reason."""
        if self._template.has_generation_markers:
            text, spans = self._template.render_marked(messages)
            return self._checked(text, spans, MARKERS)
        text = self._template.render(messages)
        shape = self._shape(messages)
        contents = [message.content for message in messages]
        for variant in (contents, [content.strip() for content in contents]):
            if shape.text(variant) == text:
                return self._checked(text, shape.spans(variant), STRUCTURE)
        return self._checked(text, self._by_prefixes(messages, text, shape), PREFIXES)

    def _checked(self, text: str, spans: list[Span], way: str) -> tuple[str, list[Span]]:
        if not any(end > start for start, end in spans):
            raise RowRefused("no assistant segment: the chat template marks none in this row")
        self.used[way] = self.used.get(way, 0) + 1
        return text, spans

    def _shape(self, messages: Sequence[Message]) -> _Shape:
        roles = tuple(message.role for message in messages)
        shape = self._shapes.get(roles)
        if shape is None:
            try:
                shape = self._find_shape(roles)
            except RowRefused as refusal:
                shape = str(refusal)  # the next row of these roles is refused as fast
            self._shapes[roles] = shape
        if isinstance(shape, str):
            raise RowRefused(shape)
        return shape

    def _find_shape(self, roles: tuple[str, ...]) -> _Shape:
        # Letters and digits only: nothing that a template trims, splits at, or looks for.
        contents = [f"q{index}zStandIn{index}zq" for index in range(len(roles))]
        turns = [Message(role, text) for role, text in zip(roles, contents, strict=True)]
        text = self._template.render(turns)
        places = []
        for index, content in enumerate(contents):
            if text.count(content) != 1:
                how = "leaves out" if content not in text else "repeats"
                raise RowRefused(
                    f"no assistant segment: the chat template {how} turn {index + 1}"
                    f" ({roles[index]}) of {len(roles)}"
                )
            places.append(text.index(content))
        order = tuple(sorted(range(len(roles)), key=places.__getitem__))
        pieces, spoken, ended = [], [], []
        at = 0
        for index in order:
            pieces.append(text[at : places[index]])
            at = places[index] + len(contents[index])
            mine = roles[index] == "assistant"
            spoken.append(self._spoken(turns[:index], text, places[index]) if mine else -1)
            ended.append(self._ended(text[at:], index) if mine else -1)
        return _Shape(order, (*pieces, text[at:]), tuple(spoken), tuple(ended))

    def _spoken(self, before: Sequence[Message], text: str, start: int) -> int:
        """Characters between the generation prompt and the content: the model writes them too."""
        try:
            prompt = self._template.render(before, add_generation_prompt=True)
        except RowRefused:
            return 0  # a template may refuse a conversation that opens with the assistant
        if len(prompt) <= start and text.startswith(prompt) and prompt:
            return min(start - len(prompt), self._literal_before(text, start))
        return 0

    def _literal_before(self, text: str, start: int) -> int:
        """Characters since the last stand-in: a prompt that ends before it prompts for nothing."""
        at = text.rfind("zq", 0, start)
        return start - (at + 2 if at >= 0 else 0)

    def _ended(self, after: str, index: int) -> int:
        """The length of the end token that follows the content, white space before it included."""
        space = len(after) - len(after.lstrip())
        for token in self._special:
            if after.startswith(token, space):
                return space + len(token)
        raise RowRefused(
            f"the chat template ends turn {index + 1} (assistant) with no special token,"
            " so a model trained on it would not learn to stop"
        )

    def _by_prefixes(self, messages: Sequence[Message], text: str, shape: _Shape) -> list[Span]:
        """Spans of a row whose contents the template rewrites.

        A turn starts where the prompt rendered from the turns before it ends, and ends before
        its literal text up to the next such prompt (or the end of the text).
        """
        if shape.order != tuple(range(len(messages))):
            raise RowRefused("the chat template rewrites the content and reorders the turns")
        mine = [index for index, turn in enumerate(messages) if turn.role == "assistant"]
        prompts = [
            self._template.render(messages[:index], add_generation_prompt=True) for index in mine
        ]
        spans: list[Span] = []
        bounds = [len(prompt) for prompt in prompts[1:]] + [len(text)]
        for index, prompt, bound in zip(mine, prompts, bounds, strict=True):
            if not text.startswith(prompt):
                raise RowRefused(
                    f"the chat template rewrites turns before turn {index + 1}, so its prompt"
                    " is no prefix of the row and what trains cannot be told"
                )
            following = itertools.takewhile(
                lambda turn: turn.role != "assistant", messages[index + 1 :]
            )
            end = self._end_of_turn(text[len(prompt) : bound], index, list(following), shape)
            spans.append((len(prompt), len(prompt) + end))
        return spans

    def _end_of_turn(
        self, region: str, index: int, following: Sequence[Message], shape: _Shape
    ) -> int:
        """Where the turn's end token ends in `region`: the turn and all up to the next prompt."""
        last = index + len(following)
        for strip in (False, True):
            after = shape.pieces[index + 1]
            for place, turn in enumerate(following, start=index + 1):
                after += turn.content.strip() if strip else turn.content
                piece = shape.pieces[place + 1]
                if place == last and last + 1 < len(shape.order):
                    piece = piece[: len(piece) - max(0, shape.spoken[last + 1])]
                after += piece
            if not following and last + 1 < len(shape.order):
                after = after[: len(after) - max(0, shape.spoken[last + 1])]
            if region.endswith(after):
                return len(region) - len(after) + shape.ended[index]
        raise RowRefused(
            f"the chat template rewrites turn {index + 1} so that its end cannot be told"
        )
