"""Which characters of a rendered conversation train: the assistant's text and its end token.

Three ways, each certain or refused, never by searching the text for role markers (content may
imitate them):
- the template's own `{% generation %}` markers, where it has them;
- structure: the template is rendered once per sequence of roles with stand-in contents, which
  shows its literal pieces; a row is those pieces with the row's contents between them, and that
  must equal, character by character, what jinja renders for this very row;
- prefixes, for rows whose content the template rewrites (trimmed, thinking dropped): a turn
  starts where the rendered prompt before it ends, and ends where the conversation rendered up to
  it does, or before the literal text after it.
With `data.thinking = "keep"` a template that drops the thinking of earlier turns is rendered turn
by turn (see kept.py); prompts come from here too, so that who generates asks as training did.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.prepare import kept, thinking
from engine.prepare.template import ChatTemplate, RowRefused, Span, Tools
from queue_store.rows import Message

MARKERS, STRUCTURE, PREFIXES = "generation markers", "structure", "prefixes"
KEPT = "thinking kept"

_OPENED = re.compile(r"<think>\s*(</think>\s*)?$")

_SHAPES = 4096
"""Shapes that are remembered: rows with tools have one each."""


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

    def __init__(
        self, template: ChatTemplate, special_tokens: Sequence[str], how: str = thinking.TEMPLATE
    ) -> None:
        """`special_tokens`: every special token of the tokenizer, by its text. `how`: what becomes
        of thinking, one of thinking.CHOICES."""
        self._template = template
        self._special = sorted(filter(None, special_tokens), key=len, reverse=True)
        self._how = how
        self._shapes: dict[object, _Shape | str] = {}
        self._turn_by_turn: bool | None = None
        self.used: dict[str, int] = {}
        """How many rows each of the ways has served."""

    def render(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[str, list[Span]]:
        """(text, spans that train). Raises RowRefused with the reason."""
        if self._how == thinking.DROP:
            messages = thinking.dropped(messages)
        if self._template.has_generation_markers:
            text, spans = self._template.render_marked(messages, tools)
            self._refuse_lost(messages, tools, text)
            return self._checked(text, spans, MARKERS, messages)
        if self._keeps(messages):
            text, spans = kept.render(self._template, self._special, messages, tools)
            self._refuse_lost(messages, tools, text)
            return self._checked(text, spans, KEPT, messages)
        text = self._template.render(messages, tools)
        shape = self._shape(messages, tools)
        contents = [message.content for message in messages]
        for variant in (contents, [content.strip() for content in contents]):
            if shape.text(variant) == text:
                return self._checked(text, shape.spans(variant), STRUCTURE)
        spans = self._by_prefixes(messages, tools, text, shape)
        return self._checked(text, spans, PREFIXES, messages)

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """What the model is asked with after these turns, the turns as `render` has them. Raises
        RowRefused."""
        if self._how == thinking.DROP:
            messages = thinking.dropped(messages)
        asked = self._prompts(messages, tools)[0]
        if self._template.has_generation_markers or not self._keeps(messages, last=False):
            return asked
        text = self._template.render(messages, tools)
        if not asked.startswith(text):
            raise RowRefused("the chat template's prompt does not begin with its conversation")
        before, _ = kept.render(self._template, self._special, messages, tools)
        return before + asked[len(text) :]

    def _prompts(self, messages: Sequence[Message], tools: Tools) -> list[str]:
        """The prompt after these turns; where thinking is dropped also that of a template which
        puts no empty think block into the answers of earlier turns."""
        render = self._template.render
        asked = [render(messages, tools, add_generation_prompt=True)]
        if self._how == thinking.DROP:
            asked.insert(0, render(messages, tools, add_generation_prompt=True, thinking=False))
        return asked

    def _starts(self, messages: Sequence[Message], tools: Tools, text: str) -> int | None:
        """Where the turn after `messages` starts in `text`; None where no prompt tells it.

        A prompt may open a think block (Qwen3.5's does) that the text has no more of an earlier
        turn.
        """
        prompts = self._prompts(messages, tools)
        prompts += [_OPENED.sub("", prompt) for prompt in prompts]
        return max((len(p) for p in prompts if text.startswith(p)), default=None)

    def _keeps(self, messages: Sequence[Message], *, last: bool = True) -> bool:
        """Whether the row needs rendering turn by turn: an answer that is not the last turn, under
        a template that has thinking in the last one only."""
        if self._how != thinking.KEEP:
            return False
        earlier = messages[:-1] if last else messages
        if not any(turn.role == "assistant" for turn in earlier):
            return False
        if self._turn_by_turn is None:
            contents = ["qzStandIn1zq", "<think>\nqzT1zq\n</think>\n\nqzStandIn2zq"] * 2
            turns = [
                Message(("user", "assistant")[place % 2], text)
                for place, text in enumerate(contents)
            ]
            shape = self._shape(turns, ())
            self._turn_by_turn = self._template.render(turns) != shape.text(contents)
        return self._turn_by_turn

    def _checked(
        self, text: str, spans: list[Span], way: str, messages: Sequence[Message] = ()
    ) -> tuple[str, list[Span]]:
        """`messages`: the turns, where the way does not itself compare their contents."""
        if not any(end > start for start, end in spans):
            raise RowRefused("no assistant segment: the chat template marks none in this row")
        mine = [index for index, turn in enumerate(messages) if turn.role == "assistant"]
        pairs = zip(mine, spans, strict=True) if len(mine) == len(spans) else ()
        for index, (start, end) in pairs:
            answer = "".join(thinking.last(messages[index].content).split())
            if start < end and answer not in "".join(text[start:end].split()):
                why = f"the chat template cuts or rewrites the answer of turn {index + 1}"
                raise RowRefused(why)
        self.used[way] = self.used.get(way, 0) + 1
        return text, spans

    def _refuse_lost(self, messages: Sequence[Message], tools: Tools, text: str) -> None:
        """What a row declares must be in its text: a template that knows no tools leaves them out
        without a word, and one with markers may drop the thinking that is to be kept."""
        for index, turn in enumerate(messages):
            for call in turn.tool_calls:
                if called(call) not in text:
                    raise RowRefused(
                        f"the chat template leaves out the tool calls of turn {index + 1}"
                    )
            if self._how == thinking.KEEP and turn.role == "assistant":
                thought = thinking.thought(turn.content)
                if thought and thought not in text:
                    raise RowRefused(
                        f"the chat template drops the thinking of turn {index + 1}, which"
                        ' data.thinking = "keep" keeps'
                    )
        if tools and self._template.render(messages) == text:
            raise RowRefused("the chat template leaves out the tools that the row declares")

    def _shape(self, messages: Sequence[Message], tools: Tools) -> _Shape:
        key: object = tuple(message.role for message in messages)
        if tools or any(turn.tool_calls or turn.name for turn in messages):
            calls = [(turn.tool_calls, turn.name, not turn.content) for turn in messages]
            try:
                key = key, orjson.dumps([calls, tools], default=str)
            except orjson.JSONEncodeError:  # it writes 254 levels and reads 1024
                raise RowRefused("tools or tool calls are nested too deeply") from None
        shape = self._shapes.get(key)
        if shape is None:
            try:
                shape = self._find_shape(messages, tools)
            except RowRefused as refusal:
                shape = str(refusal)  # the next row of these roles is refused as fast
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            self._shapes[key] = shape
        if isinstance(shape, str):
            raise RowRefused(shape)
        return shape

    def _find_shape(self, messages: Sequence[Message], tools: Tools) -> _Shape:
        # Letters and digits only: nothing that a template trims, splits at, or looks for. A turn
        # that only calls tools stays empty: templates write it differently then.
        contents = [
            "" if turn.tool_calls and not turn.content else f"q{index}zStandIn{index}zq"
            for index, turn in enumerate(messages)
        ]
        turns = [
            Message(turn.role, text, turn.tool_calls, turn.name)
            for turn, text in zip(messages, contents, strict=True)
        ]
        text = self._template.render(turns, tools)
        self._refuse_lost(turns, tools, text)
        places = []
        for index, content in enumerate(contents):
            if not content:
                start = self._starts(turns[:index], tools, text)
                if start is None:
                    raise RowRefused(
                        f"where turn {index + 1} (tool calls alone) starts cannot be told"
                    )
                places.append(start)
                continue
            if text.count(content) != 1:
                how = "leaves out" if content not in text else "repeats"
                part = "the content of turn" if turns[index].tool_calls else "turn"
                raise RowRefused(
                    f"no assistant segment: the chat template {how} {part} {index + 1}"
                    f" ({turns[index].role}) of {len(turns)}"
                )
            places.append(text.index(content))
        order = tuple(sorted(range(len(turns)), key=places.__getitem__))
        pieces, spoken, ended = [], [], []
        at = 0
        for index in order:
            pieces.append(text[at : places[index]])
            literal = len(pieces[-1])
            at = places[index] + len(contents[index])
            turn = turns[index]
            if turn.role != "assistant":
                spoken.append(-1)
                ended.append(-1)
                continue
            # A prompt that ends before the literal text prompts for nothing.
            spoken.append(min(literal, self._spoken(turns[:index], tools, text, places[index])))
            if turn.tool_calls:
                ended.append(self._called(turns[: index + 1], tools, text, at))
            else:
                ended.append(self._ended(turns[: index + 1], tools, text[at:]))
        return _Shape(order, (*pieces, text[at:]), tuple(spoken), tuple(ended))

    def _spoken(self, before: Sequence[Message], tools: Tools, text: str, start: int) -> int:
        """Characters between the generation prompt and the content: the model writes them too."""
        try:
            prompt = self._starts(before, tools, text[:start])
        except RowRefused:
            return 0  # a template may refuse a conversation that opens with the assistant
        return start - prompt if prompt else 0

    def _ended(self, upto: Sequence[Message], tools: Tools, after: str) -> int:
        """The length of the end token that follows the content, white space before it included.

        Of several tokens in a row (Cohere ends the response and then the turn) all count that are
        there both when the conversation ends here and when a user's turn follows.
        """
        first = self._specials(after, len(after), most=1)
        if not first:
            raise RowRefused(_no_end(len(upto) - 1))
        word = upto[-1].content
        try:
            closing = self._template.render(upto, tools).rpartition(word)[2]
            more = self._template.render([*upto, Message("user", "qzNextzq")], tools)
        except RowRefused:
            return first
        following = more.rpartition(word)[2]
        same = (len(set(letters)) == 1 for letters in zip(closing, following, after, strict=False))
        common = sum(itertools.takewhile(bool, same))
        return max(first, self._specials(after, common))

    def _specials(self, text: str, bound: int, most: int = 9) -> int:
        """Where the special tokens (and white space between) at the start of `text` end, within
        `bound` characters; 0 without any."""
        end = 0
        for _ in range(most):
            start = end + len(text[end:]) - len(text[end:].lstrip())
            token = next((t for t in self._special if text.startswith(t, start)), None)
            if token is None or start + len(token) > bound:
                break
            end = start + len(token)
        return end

    def _called(self, upto: Sequence[Message], tools: Tools, text: str, at: int) -> int:
        """The length of the tool calls and the end token that follow the content, which ends `at`.

        The calls may hold any text, so the end is that of the conversation rendered up to here.
        """
        whole = self._template.render(upto, tools).rstrip()
        if not any(whole.endswith(token) for token in self._special):
            raise RowRefused(_no_end(len(upto) - 1))
        content = upto[-1].content
        start = whole.rfind(content) + len(content) if content else None
        if start is None:
            start = self._starts(upto[:-1], tools, whole)
        if start is not None and text.startswith(whole[start:], at):
            return len(whole) - start
        # As the last one a turn may open with an empty think block: its calls then are what
        # follows a content.
        word = "qzStandInzq"
        spoken = dataclasses.replace(upto[-1], content=word)
        _, found, after = self._template.render([*upto[:-1], spoken], tools).rpartition(word)
        space = len(text[at:]) - len(text[at:].lstrip())
        if not found or not text.startswith(after.strip(), at + space):
            raise RowRefused(f"where the tool calls of turn {len(upto)} end cannot be told")
        return space + len(after.strip())

    def _by_prefixes(
        self, messages: Sequence[Message], tools: Tools, text: str, shape: _Shape
    ) -> list[Span]:
        """Spans of a row whose contents the template rewrites.

        A turn starts where the prompt rendered from the turns before it ends, and ends where the
        conversation up to it does; where that is rewritten too (thinking that only a last turn
        keeps), before its literal text up to the next such prompt (or the end of the text).
        """
        mine = [index for index, turn in enumerate(messages) if turn.role == "assistant"]
        starts = []
        for index in mine:
            start = self._starts(messages[:index], tools, text)
            if start is None:
                raise RowRefused(
                    f"the chat template rewrites turns before turn {index + 1}, so its prompt"
                    " is no prefix of the row and what trains cannot be told"
                )
            starts.append(start)
        spans: list[Span] = []
        for index, start, bound in zip(mine, starts, [*starts[1:], len(text)], strict=True):
            upto = self._template.render(messages[: index + 1], tools).rstrip()
            ends = any(upto.endswith(token) for token in self._special)
            if ends and text.startswith(upto) and start < len(upto) <= bound:
                spans.append((start, len(upto)))
                continue
            if shape.order != tuple(range(len(messages))):
                raise RowRefused("the chat template rewrites the content and reorders the turns")
            following = itertools.takewhile(
                lambda turn: turn.role != "assistant", messages[index + 1 :]
            )
            end = self._end_of_turn(text[start:bound], index, list(following), shape)
            spans.append((start, start + end))
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


def called(call: Any) -> str:
    """The name of the function that a tool call calls."""
    function = call.get("function")
    return str((function if isinstance(function, dict) else call).get("name", ""))


def _no_end(index: int) -> str:
    return (
        f"the chat template ends turn {index + 1} (assistant) with no special token,"
        " so a model trained on it would not learn to stop"
    )
