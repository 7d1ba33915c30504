"""What is wrong with config.toml, in the words of somebody who edits that file: the line, the key
as it stands there, and what it can be instead."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, get_args, get_origin

import msgspec
from msgspec import inspect, structs

from queue_store.errors import ConfigError

PLACE = re.compile(r" - at `\$\.?(.*)`$")
NEAR = 0.4
"""Choices are short words, and one wrong letter is much of them: from this likeness on."""
SHOWN = 60
"""Characters of a value that are told."""
HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


def unknown(key: str, table: Collection[str], at: str, where: str) -> ConfigError:
    """A `key` that the table `at` ("" or "training.") does not have."""
    near = difflib.get_close_matches(key, table, 1)
    mend = f"did you mean {at}{near[0]}?" if near else f"known: {', '.join(table)}"
    return ConfigError(f"unknown key {at}{key}", where=where, mend=mend, key=f"{at}{key}")


def no_table(key: str, where: str) -> ConfigError:
    """A value stands where a table should."""
    return ConfigError(f"{key} is a table, write [{key}]", where=where, key=key)


def explained(
    error: msgspec.ValidationError, raw: dict[str, Any], kind: type[msgspec.Struct], where: str
) -> ConfigError:
    """The `error` of converting `raw` to `kind`, in words."""
    for found in _faults(raw, kind, "", where):
        return found
    # Each value is right by itself: a table's own check of how they go together.
    text = str(error)
    place = PLACE.search(text)
    if place is None:
        return ConfigError(text, where=where)
    return ConfigError(f"{place[1]}: {text[: place.start()]}", where=where, key=place[1])


def line_of(text: str, key: str) -> int | None:
    """The line, from 1, where a dotted key, or the table of that name, stands in a TOML file; None
    where it is not there in one of the ways that people write."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := HEADER.fullmatch(line):
            table = _plain(found[1])
        elif found := KEY.match(line):
            if key == _plain(f"{table}.{found[1]}" if table else found[1]):
                return number
            continue
        if key == table:
            return number
    return None


def _plain(key: str) -> str:
    return re.sub(r"[\s\"']", "", key)


def _faults(
    raw: dict[str, Any], kind: type[msgspec.Struct], at: str, where: str
) -> Iterator[ConfigError]:
    """What is wrong with single keys of a table, in their order."""
    fields = {field.name: field for field in structs.fields(kind)}
    for key, value in raw.items():
        if key not in fields:
            yield unknown(key, fields, at, where)
            continue
        name, wanted = f"{at}{key}", fields[key].type
        named = get_origin(wanted) is dict and isinstance(value, dict)
        parts = value if named else {"": value}
        of = get_args(wanted)[1] if named else wanted
        for own, one in parts.items():
            yield from _fault(one, of, f"{name}.{own}" if named else name, where)
    for key, field in fields.items():
        if key not in raw and field.required:
            yield ConfigError(f"{at}{key} is missing", where=where, key=at.rstrip("."))


def _fault(value: Any, wanted: Any, key: str, where: str) -> Iterator[ConfigError]:
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        if isinstance(value, dict):
            yield from _faults(value, wanted, f"{key}.", where)
        else:
            yield no_table(key, where)
        return
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        shown = "a table" if isinstance(value, dict) else _toml(value)
        what = f"{key} cannot be {shown}"
        yield ConfigError(what, where=where, mend=_mend(value, wanted), key=key)


def _mend(value: Any, wanted: Any) -> str:
    about = inspect.type_info(wanted)
    if isinstance(value, str):
        choices = _choices(about)
        if near := difflib.get_close_matches(value.lower(), choices, 1, NEAR):
            others = ", ".join(_toml(one) for one in choices if one != near[0])
            return f"did you mean {_toml(near[0])}?" + (f" also: {others}" if others else "")
        try:
            msgspec.convert(json.loads(value), wanted)
            return f"write {value} without quotes"
        except (ValueError, msgspec.ValidationError):
            pass
    return f"write {_kind(about)}"


def _choices(about: inspect.Type) -> list[str]:
    """The words that it may be."""
    if isinstance(about, inspect.LiteralType):
        return [str(value) for value in about.values if value]
    if isinstance(about, inspect.UnionType):
        return [word for one in about.types for word in _choices(one)]
    return []


def _kind(about: inspect.Type) -> str:
    """What it may be."""
    match about:
        case inspect.Metadata():
            return str((about.extra_json_schema or {}).get("description", _kind(about.type)))
        case inspect.UnionType():
            return " or ".join(map(_kind, about.types))
        case inspect.LiteralType():
            return " or ".join(map(_toml, about.values))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            whole = "a whole number" if isinstance(about, inspect.IntType) else "a number"
            if about.ge is not None and about.le is not None:
                return f"{whole} from {about.ge} to {about.le}"
            ends = {"from": about.ge, "above": about.gt, "up to": about.le}
            return " ".join([whole, *(f"{w} {end}" for w, end in ends.items() if end is not None)])
        case inspect.ListType():
            return f"a list in [], of {_kind(about.item_type)}"
        case inspect.StrType() if about.max_length:
            return f"text in quotes, up to {about.max_length} characters"
    return "text in quotes"


def _toml(value: Any) -> str:
    """A value as TOML writes it, near enough for a line of text."""
    said = json.dumps(value, ensure_ascii=False, default=str)
    return said if len(said) <= SHOWN else f"{said[:SHOWN]}…"
