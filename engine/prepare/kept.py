"""A conversation rendered so that every answer keeps its thinking, whatever the template drops.

Templates of thinking models (Qwen3) have the thinking of the last answer only. Here each answer
is taken from the conversation rendered up to it, where it is the last, and what stands between
two answers from the conversation with stand-ins in their place, which no template rewrites. Of
Qwen3's template this gives what TRL's training template for it gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from engine.prepare.template import ChatTemplate, RowRefused, Span, Tools
from queue_store.rows import Message


def render(
    template: ChatTemplate, special: Sequence[str], messages: Sequence[Message], tools: Tools
) -> tuple[str, list[Span]]:
    """(text, spans that train). `special`: the special tokens by their text, longest first.

    Raises RowRefused where an answer's form as the last turn cannot be told.
    """
    word = _stand_in(messages)
    plain = [
        dataclasses.replace(turn, content=word) if turn.role == "assistant" else turn
        for turn in messages
    ]
    mine = [index for index, turn in enumerate(messages) if turn.role == "assistant"]
    if not mine:
        return template.render(messages, tools), []
    text = template.render(messages[: mine[0]], tools, add_generation_prompt=True)
    spans: list[Span] = []
    for index, following in zip(mine, [*mine[1:], None], strict=True):
        prompt = template.render(messages[:index], tools, add_generation_prompt=True)
        whole = template.render(messages[: index + 1], tools)
        closing = _after(template.render(plain[: index + 1], tools), word)
        said = len(whole) - len(closing)
        if not whole.startswith(prompt) or not whole.endswith(closing) or said < len(prompt):
            raise RowRefused(f"the form of turn {index + 1} as the last one cannot be told")
        if following is None:
            after = _after(template.render(plain, tools), word)
        else:
            asked = template.render(plain[:following], tools, add_generation_prompt=True)
            after = _after(asked, word)
        end = closing.rstrip()
        if not any(end.endswith(token) for token in special) or not after.startswith(end):
            raise RowRefused(f"where turn {index + 1} (assistant) ends cannot be told")
        start = len(text)
        text += whole[len(prompt) : said]
        spans.append((start, len(text) + len(end)))
        text += after
    return text, spans


def _stand_in(messages: Sequence[Message]) -> str:
    """A word of letters and digits that is in no turn."""
    number = 0
    while any(f"q{number}zKept" in turn.content for turn in messages):
        number += 1
    return f"q{number}zKept"


def _after(text: str, word: str) -> str:
    """What follows the last stand-in."""
    at = text.rfind(word)
    if at < 0:
        raise RowRefused("the chat template leaves out an assistant turn")
    return text[at + len(word) :]
