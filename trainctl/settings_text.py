"""config.toml as text: a new home's own, settings in words of the command line, and settings put
into one without losing a comment.

Nothing is written here, and no text is handed out whose content is not exactly what was asked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from queue_store import config
from queue_store.errors import Refused, UsageError

HEAD = """\
# This home's settings. Every key stands here with its default, switched off by a "#":
# take the "#" away to change it. `trainctl config show --origin` says what counts.
"""

_TABLE = re.compile(r"\s*\[([A-Za-z0-9_.-]+)\]\s*(#.*)?$")
_KEY = re.compile(r"(# ?)?([A-Za-z0-9_-]+)\s*=")


def own_config(default: str) -> str:
    """The commented default config.toml with every key switched off, as a new home's own."""
    lines = []
    for line in default.splitlines():
        if line and line[0] not in "#[" and "=" in line.split("#")[0]:
            line = f"# {line}"
        lines.append(line)
    start = next(place for place, line in enumerate(lines) if line.startswith("["))
    return HEAD + "\n" + "\n".join(lines[start:]) + "\n"


def toml_value(value: object) -> str:
    """A value as it stands in config.toml."""
    import tomli_w

    if isinstance(value, dict):
        inner = (f"{key} = {toml_value(value[key])}" for key in value)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(inner) for inner in value) + "]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"model.lora.r": 8} as {"model": {"lora": {"r": 8}}}."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        *tables, last = key.split(".")
        at = result
        for name in tables:
            at = at.setdefault(name, {})
        at[last] = value
    return result


def check_values(values: Mapping[str, Any], where: Path) -> None:
    """Raises ConfigError where config.toml does not take `values` (by dotted key)."""
    config.check(nested(values), where)


def parse_set(words: Sequence[str]) -> dict[str, Any]:
    """`--set KEY=VALUE` words as settings by dotted key, checked together as in config.toml. A
    text may stand without quotes. Raises UsageError, ConfigError."""
    known = config.flat(config.to_dict(config.default()))
    chosen: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key or not all(key.split(".")):
            raise UsageError(f"--set {word}: no KEY=VALUE", mend="--set training.max_length=2048")
        if key in chosen:
            raise UsageError(f"--set {key} is given twice", mend="once")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        if isinstance(known.get(key), str) and not isinstance(value, str):
            value = text
        chosen[key] = value
    check_values(chosen, Path("--set"))
    return chosen


def edited(text: str, values: Mapping[str, Any], path: Path) -> str:
    """`text`, a config.toml, with `values` (by dotted key) set, everything else as it was.

    A key takes the place of its own line, switched off or not, and keeps that line's comment.
    Raises Refused where the text is written in a way that this cannot change (`path` is named).
    """
    lines = text.splitlines()
    for key, value in values.items():
        lines = _set(lines, key, value)
    result = "\n".join(lines) + "\n"
    try:
        wanted = {**config.flat(tomllib.loads(text)), **values}
        same = config.flat(tomllib.loads(result)) == wanted
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        shown = ", ".join(f"{key} = {toml_value(value)}" for key, value in values.items())
        raise Refused(
            "cannot be changed here without losing how it is written",
            where=str(path),
            mend=f"write by hand: {shown}",
        )
    return result


def _set(lines: list[str], key: str, value: Any) -> list[str]:
    table, _, name = key.rpartition(".")
    at, header, switched_off, active = "", None, None, None
    for number, line in enumerate(lines):
        if match := _TABLE.match(line):
            at = match[1]
            header = number if at == table else header
        elif at == table and (match := _KEY.match(line)) and match[2] == name:
            if match[1] is None:
                active = number
            elif switched_off is None:
                switched_off = number
    place = switched_off if active is None else active
    new = f"{name} = {toml_value(value)}"
    if place is not None:
        comment, column = _comment(lines[place])
        if comment:
            column = min(column, 60)
            new = f"{new:<{column}}" if len(new) < column else f"{new}  "
        return [*lines[:place], (new + comment).rstrip(), *lines[place + 1 :]]
    if header is not None:
        return [*lines[: header + 1], new, *lines[header + 1 :]]
    return [*lines, "", f"[{table}]", new]


def _comment(line: str) -> tuple[str, int]:
    """The comment behind a line's value, and the column at which it stood; "" without one."""
    bare = line.removeprefix("#").removeprefix(" ")
    for match in re.finditer("#", bare):
        try:
            tomllib.loads(bare[: match.start()])
        except tomllib.TOMLDecodeError:
            continue
        return bare[match.start() :], match.start()
    return "", 0
