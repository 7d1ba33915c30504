"""The held-out sets of an older system (formats F5) as files of evaluation/.

Level files become one set a folder, files of levels and JSONL files one each. Rows of the older
form get messages; what else they say becomes their metadata. A row that cannot be asked is left
out by name, for one such row would keep all sets from being read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from blake3 import blake3

from queue_store.errors import DataError
from queue_store.rows import Row, read_rows
from queue_store.specs import PAIRS
from trainctl.importing.folder import JSON_LIMIT, LeftOut, entries, odd, read_json, walk

SKILLS = {"bin": "binary", "binary": "binary", "sy": "syllo", "syllo": "syllo"}
_LEVEL = re.compile(r"level_?(\d+)\.json")
_FORM = {"messages", "metadata", *(key for pair in PAIRS for key in pair)}
Json = dict[str, Any]


@dataclass
class HeldOut:
    """A set to write: `name` without .jsonl, the `sources` (relative) that it is of."""

    name: str
    sources: list[str] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        return b"".join(row + b"\n" for row in self.rows)

    @property
    def digest(self) -> str:
        return blake3(self.content).hexdigest()

    def json(self) -> Json:
        return {
            **{"name": self.name, "sources": self.sources, "rows": len(self.rows)},
            **{"size_bytes": len(self.content), "digest": self.digest},
        }


def look(root: Path) -> tuple[list[HeldOut], list[LeftOut]]:
    """The sets under data/validation, by name, and what is left out."""
    sets: dict[str, HeldOut] = {}
    left: list[LeftOut] = []
    top = root / "data" / "validation"
    for folder in walk(top, 4):
        for path in entries(folder):
            if path.is_dir() and not path.is_symlink():
                continue
            relative = str(path.relative_to(root))
            if why := odd(path):
                left.append(LeftOut(relative, why, True))
                continue
            if path.suffix not in (".json", ".jsonl"):
                left.append(LeftOut(relative, "no set: neither .json nor .jsonl"))
                continue
            if path.stat().st_size > JSON_LIMIT:
                left.append(LeftOut(relative, f"larger than {JSON_LIMIT >> 20} MiB", True))
                continue
            levels = path.suffix == ".json" and _LEVEL.fullmatch(path.name)
            name = (folder.name if folder != top else "validation") if levels else path.stem
            if not levels and name in sets:
                name = f"{folder.name}_{name}"
            made = sets.setdefault(name, HeldOut(name))
            made.sources.append(relative)
            read = _jsonl if path.suffix == ".jsonl" else _problems
            wrong: list[str] = []
            made.rows += [orjson.dumps(row) for row in read(path, wrong)]
            if wrong:
                more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
                left.append(LeftOut(relative, f"{wrong[0]}{more}", True))
    return [made for _, made in sorted(sets.items()) if made.rows], left


def _jsonl(path: Path, wrong: list[str]) -> Iterator[Json]:
    """The rows of a JSONL file, in messages; why others are left out goes to `wrong`."""
    lines = path.read_bytes().split(b"\n")
    try:
        found = list(read_rows(path))
    except DataError as error:
        wrong.append(error.what)
        return
    for row in found:
        if not isinstance(row, Row):
            wrong.append(f"line {row.line}: {row.reason}")
            continue
        if not row.messages or row.messages[-1].role != "assistant":
            wrong.append(f"line {row.line}: it has no expected answer")
            continue
        raw = orjson.loads(lines[row.line - 1].removeprefix(b"\xef\xbb\xbf"))
        if "messages" in raw:
            yield raw
            continue
        said = {key: value for key, value in raw.items() if key not in _FORM}
        if "id" in said:
            said["sample_id"] = said.pop("id")
        turns = [{"role": m.role, "content": m.content} for m in row.messages]
        yield {"messages": turns, "metadata": {**said, **row.metadata}}


def _problems(path: Path, wrong: list[str]) -> Iterator[Json]:
    """The rows of a level's file, {level, problems[]}, or of one with all levels, {"1": [...]}."""
    said = read_json(path)
    if not isinstance(said, dict):
        wrong.append("not a JSON object")
        return
    skill = _skill(path)
    if isinstance(said.get("problems"), list):
        levels = [(said.get("level"), said["problems"])]
    else:
        levels = [(key, value) for key, value in said.items() if isinstance(value, list)]
    if not levels:
        wrong.append("neither a level's problems nor lists by level")
    for level, problems in levels:
        number = int(str(level)) if str(level).isdecimal() else None
        for place, problem in enumerate(problems, 1):
            row = _problem(problem, skill, number)
            if row is None:
                wrong.append(f"level {level}, problem {place}: no prompt and expected answer")
            else:
                yield row


def _problem(problem: Any, skill: str, level: int | None) -> Json | None:
    if not isinstance(problem, dict):
        return None
    prompt, expected = problem.get("prompt"), problem.get("expected")
    if not isinstance(prompt, str) or not prompt or expected in (None, ""):
        return None
    if not isinstance(expected, str):
        expected = orjson.dumps(expected).decode()
    given = problem.get("metadata")
    metadata = {"skill": skill, **({} if level is None else {"level": level})}
    metadata |= {k: v for k, v in problem.items() if k not in ("prompt", "expected", "metadata")}
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": expected}]
    return {"messages": turns, "metadata": {**metadata, **(given if type(given) is dict else {})}}


def _skill(path: Path) -> str:
    """The skill that a file's name or folder says, in our words."""
    word = path.stem.partition("_")[0]
    folder = path.parent.name
    return SKILLS.get(word) or SKILLS.get(folder) or (word if word != "level" else folder)
