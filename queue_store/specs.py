"""What a row of each spec must have (formats F1, F3, F6), and the turns of one that fits.

Strict by default: a value of a kind that its field does not allow is a fault, and so is a turn's
field that would be lost in silence. Says which field is wrong, never repairs it. Columns that no
spec knows are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHAT, SYLLO, COMPLETION = "chat_sft_v1", "syllo_v1", "completion_v1"
SPECS = (CHAT, SYLLO, COMPLETION)
"""Known values of `schema_id`; anything else is refused."""

ROLES = ("system", "user", "assistant", "tool")

PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("user_prompt", "assistant_response"),
)
"""Keys of rows that older tools wrote: (user's turn, assistant's turn)."""

SPARRING = "sparring_"
"""How the `type` of rows begins that were made of a model's wrong answers (formats F6)."""

UNREAD = {
    "weight": "turns have no weights here; leave out the row, or the weight",
    "reasoning_content": "write the thinking into content, as <think>…</think>",
    "reasoning": "write the thinking into content, as <think>…</think>",
    "thinking": "write the thinking into content, as <think>…</think>",
    "function_call": "write it as tool_calls",
}
"""Keys of a turn that other tools give a meaning that would be lost here, and what to do."""

EXACT = 2.0**64
"""From here on a whole number is read as a float, and its last digits are lost."""

Turn = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `role` is one of ROLES. `tool_calls` (as the file has them) are an assistant's,
    `name` is the tool's that answered ("" where the file does not say)."""

    role: str
    content: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    name: str = ""


def is_header(value: Any) -> bool:
    """Whether the value of line 1 declares the file's spec instead of being a row."""
    if not isinstance(value, dict) or "schema_id" not in value:
        return False
    return "messages" not in value and "text" not in value and _pair(value) is None


def header_fault(header: dict[str, Any]) -> str | None:
    """Why a header declares no spec that is known; None where it does."""
    return _schema_fault(header["schema_id"])


def row_fault(row: Any, declared: str = "", nul: bool = True) -> str | None:
    """Why `row`, a JSON value, fits no spec, or not that of the file's header (`declared`, ""
    without one); None where it can train. `nul`: whether it may have NUL characters.
    """
    if not isinstance(row, dict):
        return "not a JSON object"
    spec = declared
    own = row.get("schema_id")
    if own is not None:
        if reason := _schema_fault(own):
            return reason
        if declared and own != declared:
            return f"schema_id is {own}, but the file's header says {declared}"
        spec = own
    if spec and (reason := _not_of(row, spec)):
        return reason
    if "messages" in row:
        reason = _messages_fault(row["messages"], nul)
    elif pair := _pair(row):
        reason = _pair_fault(row, pair, nul)
    elif "text" in row:
        reason = _text_fault("text", row["text"], nul)
        if reason is None and not row["text"]:
            reason = "text is empty"
    else:
        half = next((pair for pair in PAIRS if pair[0] in row), None)
        if half is not None:
            return f"{half[0]} without {half[1]}"
        return "has no messages, no prompt and response, and no text"
    # Most rows have no other column.
    return reason if reason or len(row) == 1 else _optional_fault(row, spec, nul)


def spec_of(row: dict[str, Any], declared: str) -> str:
    """The spec of a row without a fault."""
    named: str | None = row.get("schema_id")
    if named or declared:
        return named or declared
    return CHAT if "messages" in row or _pair(row) else COMPLETION


def turns_of(row: dict[str, Any]) -> tuple[Message, ...] | None:
    """The turns of a row without a fault; None where it is a text to be completed."""
    given = row.get("messages")
    if given is not None:
        turns = [
            Message(turn["role"], turn["content"])
            if len(turn) == 2 and "content" in turn
            else _message(turn, given)
            for turn in given
        ]
    elif pair := _pair(row):
        asked = row[pair[0]]
        if pair[0] == "instruction" and row.get("input"):
            asked = f"{asked}\n\n{row['input']}"
        turns = [Message("user", asked), Message("assistant", row[pair[1]])]
    else:
        return None
    system = row.get("system_prompt")
    if system and turns[0].role != "system":
        turns.insert(0, Message("system", system))
    return tuple(turns)


def metadata_of(row: dict[str, Any]) -> dict[str, Any]:
    """The row's metadata; `skill`, `level` and `type` may also stand beside it, and what older
    rows say of themselves stands only there (formats F1)."""
    if len(row) == 1:
        return {}
    metadata = dict(row.get("metadata") or {})
    beside: tuple[str, ...] = ("skill", "level", "type")
    if "user_prompt" in row:
        beside += ("id", "scenario", "rubric", "tags")
    for key in beside:
        if key in row:
            metadata.setdefault(key, row[key])
    return metadata


def tools_of(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The tools that a row without a fault declares."""
    return tuple(row.get("tools") or ())


# -- whole rows -----------------------------------------------------------------------------------


def _schema_fault(spec: Any) -> str | None:
    if spec in SPECS:
        return None
    return f"schema_id {str(spec)[:40]!r} is unknown; known: {', '.join(SPECS)}"


def _pair(row: dict[str, Any]) -> tuple[str, str] | None:
    for pair in PAIRS:
        if pair[0] in row and pair[1] in row:
            return pair
    return None


def _not_of(row: dict[str, Any], spec: str) -> str | None:
    """Why a row has not the columns of the spec that it, or its file, declares."""
    if spec == COMPLETION:
        if "messages" in row:
            return f"has messages, but its spec is {spec}, which trains on text"
        return None if "text" in row else f"has no text, which {spec} needs"
    if "messages" in row:
        return None
    pair = _pair(row)
    instead = " and ".join(pair) if pair else "text" if "text" in row else ""
    return f"has {instead or 'no messages'}, but its spec is {spec}, which needs messages"


def _pair_fault(row: dict[str, Any], pair: tuple[str, str], nul: bool) -> str | None:
    for name in pair:
        if reason := _text_fault(name, row[name], nul):
            return reason
    if row.get("input") is not None and pair[0] == "instruction":
        return _text_fault("input", row["input"], nul)
    return None


def _optional_fault(row: dict[str, Any], spec: str, nul: bool) -> str | None:
    """What is wrong with the fields that a row may have beside what trains."""
    metadata = row.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        return f"metadata is {_kind(metadata)}, not an object"
    system = row.get("system_prompt")
    if system is not None and (reason := _text_fault("system_prompt", system, nul)):
        return reason
    if row.get("tools") is not None and (reason := _tools_fault(row["tools"])):
        return reason
    if row.get("tools") and (reason := _values_fault(row["tools"], nul)):
        return f"tools {reason}"
    if spec == SYLLO:
        for name in ("difficulty", "category", "variant"):
            if row.get(name) is not None and (reason := _text_fault(name, row[name], nul)):
                return reason
    if spec == CHAT:
        if not isinstance(row.get("difficulty"), (str, int, float, type(None))):
            return f"difficulty is {_kind(row['difficulty'])}, not a string or a number"
        tags = row.get("tags")
        if tags is not None and not (isinstance(tags, list) and set(map(type, tags)) <= {str}):
            return "tags is not a list of strings"
    kind = row.get("type")
    if isinstance(kind, str) and kind.startswith(SPARRING):
        return _sparring_fault(row)
    return None


def _sparring_fault(row: dict[str, Any]) -> str | None:
    metadata = row.get("metadata") or {}
    for name in ("skill", "level"):
        if name not in row and name not in metadata:
            return f"a sparring row ({row['type'][:40]}) has no {name}"
    skill, level = row.get("skill", metadata.get("skill")), row.get("level", metadata.get("level"))
    if not isinstance(skill, str):
        return f"skill is {_kind(skill)}, not a string"
    if type(level) is not int:
        return f"level is {_kind(level)}, not a whole number"
    digest = metadata.get("checkpoint_digest", "")
    if not isinstance(digest, str):
        return f"metadata.checkpoint_digest is {_kind(digest)}, not a string"
    return None


# -- turns ----------------------------------------------------------------------------------------


def _messages_fault(value: Any, nul: bool) -> str | None:
    """Why the value of `messages` is no conversation with something to train."""
    if not isinstance(value, list):
        return "messages is not a list"
    if not value:
        return "messages is empty"
    asked = answered = False
    for index, turn in enumerate(value):
        if not isinstance(turn, dict):
            return f"messages[{index}] is not an object"
        role = turn.get("role")
        if role == "user":
            asked = True
        elif role == "assistant":
            answered = True
        elif role not in ROLES:
            return _role_fault(index, role)
        # Most turns are a role and a text, and nothing else.
        if len(turn) == 2 and not nul and type(turn.get("content")) is str:
            continue
        if reason := _turn_fault(turn, role, nul):
            return f"messages[{index}]{reason}"
    if not asked:
        return "messages has no user turn"
    return None if answered else "messages has no assistant turn"


def _role_fault(index: int, role: Any) -> str:
    if role is None:
        return f"messages[{index}] has no role"
    shown = role[:40] if isinstance(role, str) else role.__class__.__name__
    return f"messages[{index}].role is {shown!r}; known: {', '.join(ROLES)}"


def _turn_fault(turn: Turn, role: str, nul: bool) -> str | None:
    for key, mend in UNREAD.items():
        if turn.get(key) not in (None, "", 1):
            return f".{key} is not read: {mend}"
    calls = turn.get("tool_calls")
    if calls:
        if role != "assistant":
            return f".tool_calls stands in a turn of {role}; only the assistant calls tools"
        if reason := _calls_fault(calls):
            return reason
        if reason := _values_fault(calls, nul):
            return f".tool_calls {reason}"
    name = turn.get("name")
    if name is not None and not isinstance(name, str):
        return f".name is {_kind(name)}, not a string"
    content = turn.get("content")
    if content is None and calls:
        return None
    if content is None and "content" not in turn:
        return " has no content"
    return _text_fault(".content", content, nul)


def _calls_fault(calls: Any) -> str | None:
    """OpenAI's form, {"type": "function", "function": {"name", "arguments"}}, or the function
    alone; templates read both."""
    if not isinstance(calls, list):
        return f".tool_calls is {_kind(calls)}, not a list"
    for index, call in enumerate(calls):
        at = f".tool_calls[{index}]"
        if not isinstance(call, dict):
            return f"{at} is {_kind(call)}, not an object"
        function = call.get("function", call)
        if not isinstance(function, dict):
            return f"{at}.function is {_kind(function)}, not an object"
        if not isinstance(function.get("name"), str) or not function["name"]:
            return f"{at} has no name of a function"
        arguments = function.get("arguments")
        if not isinstance(arguments, (str, dict, type(None))):
            return f"{at}.arguments is {_kind(arguments)}, not an object or a string"
    return None


def _tools_fault(tools: Any) -> str | None:
    if not isinstance(tools, list):
        return f"tools is {_kind(tools)}, not a list"
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            return f"tools[{index}] is {_kind(tool)}, not an object"
    return None


def _message(turn: Turn, turns: list[Turn]) -> Message:
    """A turn with more than a role and a text; the tool that answers is named by its call's id."""
    name = turn.get("name") or ""
    if turn["role"] == "tool" and not name:
        for call in (call for other in turns for call in other.get("tool_calls") or ()):
            if call.get("id") == turn.get("tool_call_id", ""):
                name = call.get("function", call)["name"]
    return Message(
        turn["role"], turn.get("content") or "", tuple(turn.get("tool_calls") or ()), name
    )


# -- values ---------------------------------------------------------------------------------------

_NAMES: dict[type, str] = {
    type(None): "null",
    dict: "an object",
    list: "a list",
    bool: "a boolean",
    str: "a string",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), "a number")


def _text_fault(name: str, value: Any, nul: bool) -> str | None:
    """Why `value` of field `name` is no text; None where it is one."""
    if not isinstance(value, str):
        return f"{name} is {_kind(value)}, not a string"
    if nul and "\x00" in value:
        return f"{name} contains a NUL character"
    return None


def _values_fault(value: Any, nul: bool) -> str | None:
    """What of a JSON value, at any depth, would not train as it stands in the file. `nul`: whether
    the line may have NUL characters."""
    left: list[Any] = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if nul and "\x00" in one:
                return "contains a NUL character"
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
        elif isinstance(one, float) and abs(one) >= EXACT:
            return f"has a number of which only {one!r} is kept; write it as a string"
    return None
