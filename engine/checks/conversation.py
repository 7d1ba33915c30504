"""How the turns of a row belong together: their order, and answers that the prompt gives away."""

from __future__ import annotations

from engine.checks.findings import RowChecker, after_thinking, quoted
from queue_store.rows import Row
from queue_store.specs import SPARRING

LEAK, FIRST_LINE = 20, 25
"""Characters from which on an answer, or its first line, is looked for in the prompt. Shorter
ones (a name, a number, a given fact said again) stand in many a prompt for good reasons."""


def _turn_order(row: Row) -> str | None:
    turns = row.messages or ()
    calls = before = ""
    for number, turn in enumerate(turns, 1):
        role = turn.role
        if role == "system" and number > 1:
            return f"turn {number} is a system turn: those stand first"
        if role == "assistant" and number == 1:
            return "the assistant speaks first"
        if role == before and role in ("user", "assistant"):
            return f"turns {number - 1} and {number} are both the {role}'s"
        if role == "tool" and not calls:
            return f"turn {number} is a tool's answer, and no tool was called"
        if role == "user" and before == "tool":
            return f"turn {number}: the user speaks before the assistant took up the tool's answer"
        if role != "tool":
            calls = "called" if turn.tool_calls else ""
        before = role
    if turns and turns[-1].role != "assistant":
        return f"the last turn is the {turns[-1].role}'s: it has no answer and never trains"
    return None


def _leak(row: Row) -> str | None:
    asked = ""
    kind = row.metadata.get("type")
    # These rows quote an answer on purpose, and a right one may begin as the wrong one did.
    whole_only = isinstance(kind, str) and kind.startswith(SPARRING)
    for turn in row.messages or ():
        if turn.role in ("system", "user"):
            asked += " ".join(turn.content.split()) + "\n"
        elif turn.role == "assistant":
            answer = after_thinking(turn.content)
            whole = " ".join(answer.split())
            if len(whole) >= LEAK and whole in asked:
                return f"the prompt has the whole answer: {quoted(whole)}"
            first = " ".join(answer.partition("\n")[0].split())
            if len(first) >= FIRST_LINE and first in asked and not whole_only:
                return f"the prompt has the first line of the answer: {quoted(first)}"
    return None


turn_order = RowChecker("turn_order", "1.0.0", "deep", _turn_order)
answer_leak = RowChecker("answer_leak", "1.0.0", "deep", _leak)
