"""Answers that must have a form: JSON where it is asked for, the emoji protocol where used."""

from __future__ import annotations

import json
import re
from typing import Any

from engine.checks.findings import Problem, RowChecker, after_thinking, answers, quoted
from queue_store.rows import Row

THINK = (2, 8)
STOP = (2, 4)
"""How often the emoji before and after an answer stand, both included (formats F16)."""

_ASKS = re.compile(
    r"\b(?:answer|respond|reply|output|return|write|give)\b[^.!?\n]{0,40}\b"
    r"(?:in|as|with|valid|only|a)\s+(?:valid\s+)?json(?:\s+(?:format|only|object|array))?"
    r"\s*(?:[.:!,;)]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_BEGINS = re.compile(r'\{\s*"|\[\s*[\[{"]')
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.DOTALL | re.IGNORECASE)
_EMOJI = (
    "[\U0001f300-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b\u23e9-\u23fa]"
    "[\ufe0f\U0001f3fb-\U0001f3ff]*"
)
_PREFIX = re.compile(rf"\s*({_EMOJI})(\s*\1)*")
_SUFFIX = re.compile(rf"({_EMOJI})(?:\s*\1)*\s*\Z")


def _json(row: Row) -> Problem | str | None:
    if row.messages is None or row.messages[-1].role != "assistant" or row.messages[-1].tool_calls:
        return None
    answer = after_thinking(row.messages[-1].content)
    if field := _demands(row.metadata):
        if not _has_json(answer):
            return Problem(f"metadata.{field} says JSON, and the answer has none", "error")
    elif any(_ASKS.search(turn.content) for turn in row.messages[-2:] if turn.role == "user"):
        if not _has_json(answer):
            return "the prompt asks for JSON, and the answer has none"
    elif _BEGINS.match(answer) and (reason := _broken(answer)):
        return f"the answer begins as JSON and is not: {reason}"
    return None


def _demands(metadata: dict[str, Any]) -> str | None:
    """The field of the metadata that says that the answer is JSON."""
    for field in ("output_format", "response_format", "format"):
        value = metadata.get(field)
        if isinstance(value, dict):
            value = value.get("type")
        if isinstance(value, str) and value.casefold().startswith("json"):
            return field
    # All variants of a SYLLO answer are payloads; its plain styles are named by solution_format.
    if metadata.get("output_variant") and "solution_format" not in metadata:
        return "output_variant"
    return None


def _has_json(answer: str) -> bool:
    """Whether an answer holds an object or a list, with or without words and fences around it."""
    tries = [answer, *_FENCE.findall(answer)]
    for opening, closing in ("{}", "[]"):
        start, end = answer.find(opening), answer.rfind(closing)
        if 0 <= start < end:
            tries.append(answer[start : end + 1])
    return any(_parses(text) for text in tries)


def _parses(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _broken(answer: str) -> str | None:
    """Why what an answer begins with is no JSON; words may follow it."""
    try:
        json.JSONDecoder().raw_decode(answer)
    except json.JSONDecodeError as error:
        return f"{error.msg[0].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        return "nested too deeply"
    return None


def _emoji(row: Row) -> str | None:
    for answer in answers(row):
        prefix, suffix = _PREFIX.match(answer), _SUFFIX.search(answer)
        before = _times(prefix)
        if before < 2 or prefix is None:
            continue
        line = answer[prefix.end() : prefix.end() + 1] == "\n"
        after = _times(suffix) if suffix is not None and suffix.start() >= prefix.end() else 0
        if not line and after < 2:
            continue  # an exclamation, not the protocol
        at = f"the emoji protocol ({quoted(prefix[1])} before the answer): "
        if not line:
            return at + "no line break after it"
        if not THINK[0] <= before <= THINK[1]:
            return at + f"{before} times, not {THINK[0]} to {THINK[1]}"
        if after == 0:
            return at + "no stop emoji behind the answer"
        if not STOP[0] <= after <= STOP[1]:
            return at + f"{after} stop emoji behind the answer, not {STOP[0]} to {STOP[1]}"
    return None


def _times(found: re.Match[str] | None) -> int:
    return 0 if found is None else found[0].count(found[1])


json_answer = RowChecker("json_answer", "1.0.0", "deep", _json)
emoji_protocol = RowChecker("emoji_protocol", "1.0.0", "deep", _emoji)
