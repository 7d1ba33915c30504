"""Where a file's rows come from: the sidecar FILE.jsonl.meta.json (formats F2), read strictly.

A sidecar says which generator made a file, with what, and how that checked it. It is kept beside
the file's bytes in the store and its content in the journal. A broken one costs its own
knowledge and nothing else: the file is taken all the same, its lineage unknown with the reason.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import orjson
from msgspec import Meta

from queue_store import durable, journal
from queue_store.database import State
from queue_store.errors import DataError
from queue_store.items import Item

SIDECAR = ".meta.json"
"""Ending of the lineage sidecar that may come with a file; it is kept beside the file's bytes."""

LIMIT = 1 << 20
"""Bytes of the longest sidecar that is read."""

ROW_CHECK = ("rows", "1.0.0")
"""Name and version of the validator that every file meets at intake: each line against its spec."""

EVENT = "item.lineage"
_WITHOUT = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EEXIST, errno.ELOOP)
"""Errors that leave a sidecar where it is; any other is the disk's, and the file's too."""

Word = Annotated[str, Meta(min_length=1, max_length=200)]
Count = Annotated[int, Meta(ge=0)]


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What a sidecar says. Errors and warnings are numbers, or the list of them."""

    generator_id: Word
    generator_version: Word
    generated_at: str | None = None
    example_count: Count | None = None
    params: dict[str, Any] = {}
    validated_at: str | None = None
    validator_versions: dict[str, str] = {}
    validation_passed: bool | None = None
    validation_errors: Count | list[Any] | None = None
    validation_warnings: Count | list[Any] | None = None
    source: str | None = None
    extra: dict[str, Any] = {}


def sidecar_of(path: Path) -> Path:
    """Where a file's lineage sidecar lies: FILE.jsonl.meta.json beside FILE.jsonl."""
    return path.with_name(path.name + SIDECAR)


def read(path: Path) -> dict[str, Any]:
    """The sidecar at `path` with every field of F2, None where it says nothing, and `unread`, the
    names of fields that F2 does not have. Raises DataError that says what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror or error}") from None
    if len(data) > LIMIT:
        raise _wrong(path, f"is longer than {LIMIT >> 20} MiB")
    try:
        raw = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_number
        )
        orjson.dumps(raw)  # what cannot be written out again (lone surrogates, 2 ** 70) is no data
    except UnicodeDecodeError:
        raise _wrong(path, "is not UTF-8") from None
    except RecursionError:
        raise _wrong(path, "is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise _wrong(path, f"is not usable JSON: {error}") from None
    if not isinstance(raw, dict):
        raise _wrong(path, "is not a JSON object")
    try:
        said = msgspec.to_builtins(msgspec.convert(raw, Sidecar))
    except msgspec.ValidationError as error:
        raise _wrong(path, str(error).replace(" - at `$.", ": `")) from None
    for key in ("validation_errors", "validation_warnings"):
        if isinstance(said[key], list):
            said[key] = len(said[key])
    return {**said, "unread": sorted(raw.keys() - said.keys())}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!r} stands in it twice")
        found[key] = value
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _wrong(path: Path, what: str) -> DataError:
    return DataError(f"the sidecar {what}", where=path.name)


def bring(path: Path, place: Path, *, take: bool) -> str:
    """Bring the sidecar of `path` to that of `place`, moved or copied; why that was not possible,
    "" where it is there now or none came. Raises OSError where the disk is full or fails."""
    source = sidecar_of(path)
    if not os.path.lexists(source):
        return ""
    if not source.is_file() or (take and source.is_symlink()):
        return "the sidecar is no regular file"
    try:
        (durable.take_file if take else durable.copy_file)(source, sidecar_of(place))
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
        return f"the sidecar could not be brought along: {error.strerror or error}"
    return ""


def record(state: State, item_id: int, name: str, place: Path, why: str = "") -> None:
    """Journal what the sidecar beside a new item's file says, or `why` it is not there; nothing
    where none came. Part of the transaction that makes the item."""
    if not why and not sidecar_of(place).is_file():
        return
    said = {"unknown": why} if why else _said(place)
    if "unknown" in said:
        text = f"{name}: its lineage is unknown: {said['unknown']}"
    else:
        text = f"{name} was made by {said['generator_id']} {said['generator_version']}"
    journal.record(state, EVENT, text, item=item_id, data={"lineage": said})


def _said(place: Path) -> dict[str, Any]:
    try:
        return read(sidecar_of(place))
    except DataError as error:
        return {"unknown": error.what}


def of_item(state: State, item: Item) -> dict[str, Any] | None:
    """What the sidecar of an item said, as `read` gives it, or {"unknown": why} for a broken one;
    None where none came."""
    row = state.db.execute(
        "SELECT data FROM events WHERE item = ? AND kind = ? ORDER BY seq DESC LIMIT 1",
        (item.id, EVENT),
    ).fetchone()
    if row is not None:
        said: dict[str, Any] = orjson.loads(row[0])["lineage"]
        return said
    # Taken in before sidecars were read.
    place = state.home.items / item.file
    return _said(place) if sidecar_of(place).is_file() else None


def validators(state: State, item: Item) -> list[dict[str, Any]]:
    """What our own checks found in an item's file: [{name, version, level, errors, warnings,
    passed}], one a validator; `errors` counts rows (the mask checks: 1 for one that failed).

    `warnings` are those of checkers that warn; None where a checker only counts. `level` is
    intake, standard, deep or masks.
    """
    report = item.report or {}
    refused = report.get("rejected_count", item.lines - item.accepted)
    found = [_validator(*_row_check(state, item), "intake", refused)]
    checks = report.get("checks") or {}
    severities = _severities(checks)
    for name, number in (checks.get("counts") or {}).items():
        version = str((checks.get("versions") or {}).get(name, ""))
        warns = severities.get(name) == "warning"
        level = str(checks.get("level", ""))
        errors, warnings = (0, int(number)) if warns else (int(number), 0)
        found.append(_validator(name, version, level, errors, warnings))
    for check in (report.get("masks") or {}).get("checks") or ():
        found.append(_validator(str(check["name"]), "", "masks", int(not check["passed"])))
    return found


def _severities(checks: dict[str, Any]) -> dict[str, str]:
    """Each checker's worst severity among the findings that were kept."""
    found: dict[str, str] = {}
    for finding in checks.get("findings") or ():
        name, severity = str(finding.get("checker", "")), str(finding.get("severity", "error"))
        if found.get(name) != "error":
            found[name] = severity
    return found


def _validator(
    name: str, version: str, level: str, errors: int, warnings: int = 0
) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "level": level,
        "errors": errors,
        "warnings": warnings,
        "passed": errors == 0,
    }


def _row_check(state: State, item: Item) -> tuple[str, str]:
    """The row check that the item met, by the event of its intake; "" for the version of one
    taken in before versions were recorded."""
    row = state.db.execute(
        "SELECT json_extract(data, '$.validators') FROM events WHERE item = ?"
        " AND json_extract(data, '$.validators') IS NOT NULL ORDER BY seq DESC LIMIT 1",
        (item.id,),
    ).fetchone()
    return ROW_CHECK[0], str(orjson.loads(row[0]).get(ROW_CHECK[0], "")) if row else ""


def shown(state: State, item: Item) -> dict[str, Any]:
    """An item's lineage for `trainctl show`: what the sidecar said (`generator`, its fields as
    `read` gives them, or {"unknown": why}), `validators` as above, and `notes`, a line for each
    thing in which the sidecar and the file differ."""
    said = of_item(state, item)
    generator = said if said is not None else {"unknown": "no sidecar came with the file"}
    found = validators(state, item)
    return {"generator": generator, "validators": found, "notes": _notes(item, generator, found)}


def _notes(item: Item, said: dict[str, Any], found: list[dict[str, Any]]) -> list[str]:
    notes = []
    count = said.get("example_count")
    if count is not None and item.lines and count != item.lines:
        notes.append(f"the sidecar counts {count} rows, the file has {item.lines}")
    digest = said.get("extra", {}).get("blake3")
    if isinstance(digest, str) and item.digest and digest != item.digest:
        notes.append("the file is not the one that its sidecar was written for: another digest")
    errors = sum(one["errors"] for one in found if one["level"] != "masks")
    if said.get("validation_passed") and errors:
        notes.append(f"the sidecar says that every row passed; here {errors} did not")
    if said.get("unread"):
        notes.append(f"fields that are not read: {', '.join(said['unread'])}")
    return notes
