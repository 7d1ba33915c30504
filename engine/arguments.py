"""What an argument of a command may be, and the arguments of removal, copies and evaluation jobs.

Part of messages, which has the other commands and the one table of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LARGEST_INTEGER = (1 << 63) - 1

Count = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]
Id = Annotated[int, Meta(ge=1, le=LARGEST_INTEGER)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=4000)]
Word = Literal["high", "normal", "low"]


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arguments of a command, checked: no other keys, no other types, numbers in range."""


class Nothing(Command, frozen=True):
    """No arguments."""


class Jobs(Command, frozen=True):
    ended: Annotated[int, Meta(ge=0, le=5000)] = 50
    """How many of the jobs that have ended, the newest first, after all that have not."""


class Evaluate(Command, frozen=True):
    model: Name | None = None
    """A version, tag, checkpoint, digest or "base"; None = the newest verified version."""
    sets: Annotated[list[Name], Meta(max_length=1000)] | None = None
    """Names of evaluation sets; None = those of [evaluation]."""
    priority: Word = "high"
    host: Name | None = None
    """A host of config.toml, or "local"; None = the first that is idle."""


class CancelJob(Command, frozen=True):
    job: Id


class Delete(Command, frozen=True):
    version: Name
    confirm: Name
    """The version's name, as a person typed it again."""


class TrashRestore(Command, frozen=True):
    name: Name


class TrashEmpty(Command, frozen=True):
    name: Name | None = None
    """One thing of the trash; None = all of it."""


class Backup(Command, frozen=True):
    target: Name | None = None
    """One target instead of all."""
    action: Literal["copy", "verify", "fetch", "list"] = "copy"
    version: Name | None = None
