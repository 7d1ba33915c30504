"""An answer without its thinking: what every scorer judges.

`<think>…</think>` at the start of an answer is the model's own note and no part of the answer.
An answer whose thinking was never closed (it ran into the longest length) has no answer: "".
"""

from __future__ import annotations

import re

_BLOCKS = re.compile(r"(?:\s*<think>.*?</think>)+\s*", re.DOTALL)
_OPEN = re.compile(r"\s*<think>")
CLOSE = "</think>"


def answer_of(text: str) -> str:
    """`text` without the think blocks that it opens with. Where the prompt itself opened the
    block (templates that end with `<think>`), all up to the first `</think>` goes."""
    found = _BLOCKS.match(text)
    if found is not None:
        text = text[found.end() :]
    if _OPEN.match(text):
        return ""
    before, close, after = text.partition(CLOSE)
    # A </think> further on, in an answer that had its block or opens another, is plain text.
    return after.lstrip() if close and found is None and "<think>" not in before else text
