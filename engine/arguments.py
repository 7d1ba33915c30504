"""What the arguments of every command are made of, and those of removal and copies.

Part of messages, which has the one table of commands.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LARGEST_INTEGER = (1 << 63) - 1

Count = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]
Id = Annotated[int, Meta(ge=1, le=LARGEST_INTEGER)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=4000)]
Word = Literal["high", "normal", "low"]


class Kind(Enum):
    """Where a command is answered."""

    SERVER = "at once, from memory"
    READ = "from the store, on a thread of the server"
    LOOK = "from another machine or a child, which may take long; nothing changes"
    STORE = "a change of the store; the engine is woken after it"
    UPKEEP = "a change of versions, trash or copies, which may take long; the head stays"
    ASK = "models, asked by a worker, which takes minutes; the head stays"
    ENGINE = "on the engine thread, at a step boundary"


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arguments of a command, checked: no other keys, no other types, numbers in range."""


class Nothing(Command, frozen=True):
    """No arguments."""


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


class Spec(msgspec.Struct, frozen=True):
    """A command's arguments and where it is answered."""

    arguments: type[Command]
    kind: Kind
