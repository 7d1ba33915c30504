"""Thinking in a conversation: `<think>…</think>` at the start of an answer, and what becomes of it.

`data.thinking` decides, and the report says what it came to:
- "template": as the model's own template has it. Qwen3's drops the thinking of earlier turns and
  puts an empty block before a last answer without any; a plain ChatML keeps what stands there.
- "keep": every answer trains in the form that it has when it is the last one, with its thinking
  (or the template's empty block), so that earlier turns do not teach to answer without it.
- "drop": no answer has any; prompts are written with enable_thinking=False, so that where a
  template then ends them with an empty think block, that block is the prompt's and never trains.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from queue_store.rows import Message

TEMPLATE, KEEP, DROP = "template", "keep", "drop"
CHOICES = (TEMPLATE, KEEP, DROP)

_BLOCK = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_BLOCKS = re.compile(r"(\s*<think>.*?</think>\s*)+", re.DOTALL)


def thought(content: str) -> str | None:
    """The thinking that an answer opens with, None without a think block."""
    found = _BLOCK.match(content)
    return found.group(1).strip() if found else None


def without(content: str) -> str:
    """An answer without the think block (or several) that it opens with."""
    found = _BLOCKS.match(content)
    return content[found.end() :] if found else content


def dropped(messages: Sequence[Message]) -> list[Message]:
    """A conversation with no thinking in any answer."""
    return [
        dataclasses.replace(turn, content=without(turn.content))
        if turn.role == "assistant" and "</think>" in turn.content
        else turn
        for turn in messages
    ]


def last(content: str) -> str:
    """What Qwen's templates take for the answer of a turn: all after the last end of thinking."""
    return content.rpartition("</think>")[2]
