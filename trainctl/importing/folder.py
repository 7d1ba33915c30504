"""Looking at a folder that is not ours: regular files alone, no link followed, nothing changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from snapshots.digest import open_regular

JSON_LIMIT = 64 << 20
"""Bytes of the longest JSON file that is read."""


@dataclass(frozen=True)
class LeftOut:
    """What is not taken over. `path` is relative to the folder; `error`: it should have been."""

    path: str
    because: str
    error: bool = False

    def json(self) -> dict[str, Any]:
        return {"path": self.path, "because": self.because, "error": self.error}


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name; nothing where it is none, or a link to one."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(folder.iterdir())


def odd(path: Path) -> str:
    """Why a path is no regular file or folder to read; "" for one."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "a symbolic link: put the file itself there"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "no regular file"
    return "" if os.access(path, os.R_OK) else "not readable by this user"


def walk(folder: Path, depth: int) -> Iterator[Path]:
    """The folders under `folder`, itself first, links left aside, at most `depth` deep."""
    if folder.is_symlink() or not folder.is_dir():
        return
    yield folder
    if depth:
        for path in entries(folder):
            yield from walk(path, depth - 1)


def read_json(path: Path) -> Any:
    """A JSON file's value; None where there is none that can be read."""
    try:
        with open_regular(path) as file:
            data = file.read(JSON_LIMIT + 1)
        return None if data is None or len(data) > JSON_LIMIT else orjson.loads(data)
    except (OSError, ValueError):
        return None
