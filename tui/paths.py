"""Paths as a person types them: words as in a shell, completed, expanded and looked at.

`~`, quotes, backslashes and the signs of a glob mean what they mean in a shell; a relative path
starts at the folder in which the console was started. Everything here that looks at a disk may
take as long as the disk does (a network folder): call it in a thread, never in the event loop.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST = 10_000
"""Files that one glob may mean."""
SHOWN = 200
"""Candidates that are kept for the screen; their count covers all."""
SPECIAL = re.compile(r"([\s\\'\"*?\[\]~])")
MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Word:
    """A word of the line: where it starts, what it says, and which of its characters were
    quoted (a quoted * is a star)."""

    start: int
    text: str
    quoted: tuple[bool, ...]

    @property
    def pattern(self) -> str:
        """For glob: what was quoted is meant as it is."""
        return "".join(
            f"[{c}]" if q and c in "*?[" else c for c, q in zip(self.text, self.quoted, strict=True)
        )

    @property
    def magic(self) -> bool:
        return any(c in "*?[" and not q for c, q in zip(self.text, self.quoted, strict=True))


@dataclass(frozen=True)
class Completed:
    """`text` is the line with its last word completed as far as it is clear; `names` are the
    candidates, where there is more than one (folders end in /), `count` how many there are;
    `problem` says why there is none."""

    text: str
    names: tuple[str, ...] = ()
    count: int = 0
    problem: str = ""


class Wrong(Exception):
    """What is typed cannot be added: why, in one line."""


def words(line: str) -> list[Word]:
    """The words of a line; a quote that is still open reaches to its end."""
    found: list[Word] = []
    start, text, quoted = -1, "", list[bool]()
    quote, escaped = "", False
    for at, char in enumerate(line):
        if start < 0:
            if char.isspace():
                continue
            start, text, quoted = at, "", []
        if escaped:
            text, escaped = text + char, False
            quoted.append(True)
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            if char == quote:
                quote = ""
            else:
                text += char
                quoted.append(True)
        elif char in "'\"":
            quote = char
        elif char.isspace():
            found.append(Word(start, text, tuple(quoted)))
            start = -1
        else:
            text += char
            quoted.append(False)
    if start >= 0:
        found.append(Word(start, text, tuple(quoted)))
    return found


def written(path: str) -> str:
    """A path so that `words` reads it back; a ~ at its start stays."""
    home = "~" if path.startswith("~") else ""
    return home + SPECIAL.sub(r"\\\1", path[len(home) :])


def complete(line: str, base: str) -> Completed:
    """The last word of `line` completed like a shell does; relative to `base`. Hidden files only
    where their dot was typed."""
    typed = words(line)
    fresh = not typed or (line[-1:].isspace() and not line.endswith("\\ "))
    word = Word(len(line), "", ()) if fresh else typed[-1]
    if word.text == "~":
        return Completed(line[: word.start] + "~/")
    head, slash, stem = word.text.rpartition("/")
    folder = _place(head + slash, base)
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(stem):
                    continue
                if entry.name.startswith(".") and not stem.startswith("."):
                    continue
                names.append(entry.name + ("/" if _is_folder(entry) else ""))
    except OSError as error:
        return Completed(line, problem=f"{folder}: {error.strerror}")
    if not names:
        return Completed(line, problem=f"nothing here begins with {stem}" if stem else "empty")
    bare = [name.removesuffix("/") for name in names]
    common = _common(min(bare), max(bare))
    only = len(names) == 1
    path = head + slash + (names[0] if only else max(common, stem, key=len))
    space = " " if only and not path.endswith("/") else ""
    text = line[: word.start] + written(path) + space
    names.sort()
    return Completed(text, () if only else tuple(names[:SHOWN]), len(names))


def _place(typed: str, base: str) -> Path:
    """Where a typed path leads from `base`. A ~ of an unknown person is a name like others."""
    try:
        return base / Path(typed).expanduser()
    except RuntimeError:
        return base / Path(typed)


def _common(first: str, last: str) -> str:
    """How far two names agree."""
    at = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[: min(len(first), len(last)) if at is None else at]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def expanded(line: str, base: str) -> list[str]:
    """The absolute paths of the files that `line` names, each once, in order. Raises Wrong."""
    found: dict[str, None] = {}
    for word in words(line):
        path = _place(word.text, base)
        if word.magic and not os.path.lexists(path):
            pattern = str(_place(word.pattern, glob.escape(base)))
            matches = []
            # As a shell does, and Path.glob does not, it leaves hidden files out.
            for match in glob.iglob(pattern):  # noqa: PTH207
                if not Path(match).is_dir():
                    matches.append(match)
                if len(matches) > MOST:
                    raise Wrong(f"{word.text} means more than {MOST:,} files")
            if not matches:
                raise Wrong(f"no file matches {word.text}")
            found.update(dict.fromkeys(os.path.normpath(match) for match in sorted(matches)))
        else:
            found[os.path.normpath(path)] = None
    if not found:
        raise Wrong("type the path of a file")
    return list(found)


def looked_at(paths: Sequence[str]) -> list[tuple[str, int]]:
    """(name, bytes) of each file. Raises Wrong for the first that cannot be added."""
    found = []
    for path in paths:
        try:
            info = Path(path).stat()
        except OSError as error:
            why = "no such file" if error.errno == errno.ENOENT else error.strerror
            raise Wrong(f"{why}: {path}") from None
        if stat.S_ISDIR(info.st_mode):
            raise Wrong(f"a folder, not a file ({path}/*.jsonl adds its files): {path}")
        if not stat.S_ISREG(info.st_mode):
            raise Wrong(f"not a regular file: {path}")
        if not os.access(path, os.R_OK):
            raise Wrong(f"you may not read it: {path}")
        if not path.isprintable():
            raise Wrong("its name has characters that only `trainctl add` can take")
        found.append((Path(path).name, info.st_size))
    return found
