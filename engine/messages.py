"""The words that the engine and its faces exchange: commands with their arguments, engine states,
metrics and how the unknown is said. Nobody else invents any.

A request is one JSON object a line, {"id": 7, "command": "pause", …arguments}; its response
{"id": 7, "ok": true, "result": …} or {"id": 7, "ok": false, "error": {"code", "message", …}}.
Everything that changes the head is a command of kind ENGINE: it happens on the engine thread, at
a step boundary. Times are seconds since the epoch, sizes bytes, durations seconds.
This module imports no torch, opens nothing and starts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from engine import evaluation_messages
from engine.arguments import (
    Backup,
    Count,
    Delete,
    Id,
    Name,
    Nothing,
    Spec,
    Text,
    TrashEmpty,
    TrashRestore,
    Word,
)
from engine.arguments import Command as Command
from engine.arguments import Kind as Kind
from engine.faults import UnknownCommand
from queue_store.errors import UsageError

PROTOCOL = 1
MAX_REQUEST = 1 << 20
"""Bytes of a request line, newline included."""
MAX_RESPONSE = 1 << 26
"""Bytes of a response line that a session accepts."""


class EngineState(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    PREPARING = "preparing"
    TRAINING = "training"
    PAUSED = "paused"
    SAVING = "saving"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Mode(StrEnum):
    """Who owns the process that has the engine thread."""

    CONSOLE = "console"
    DAEMON = "daemon"
    HEADLESS = "headless"
    """A console whose terminal went away, training on without a supervisor."""


# -- arguments: one class a command ------------------------------------------------------------

Metric = Literal[
    "loss", "val_loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds", "memory"
]
METRICS: tuple[str, ...] = get_args(Metric)


class Hello(Command, frozen=True):
    protocol: Count


class Events(Command, frozen=True):
    after: Count = 0
    """Sequence number of the last event that the face has."""
    limit: Annotated[int, Meta(ge=1, le=5000)] = 500
    kinds: Annotated[list[Name], Meta(max_length=100)] | None = None
    item: Id | None = None


class Series(Command, frozen=True):
    metric: Metric
    width: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    """Most points to answer."""
    start: Count | None = None
    """First global step of the range; `end` is the last, both included."""
    end: Count | None = None
    version: Name | None = None
    """The line of this version instead of the present one."""


class QueuePage(Command, frozen=True):
    state: (
        Literal["waiting", "queued", "preparing", "training", "paused"]
        | Literal["trained", "done", "failed", "skipped", "rejected"]
        | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=5000)] = 500
    offset: Count = 0


class ItemOnly(Command, frozen=True):
    item: Id


class RowOfItem(Command, frozen=True):
    item: Id
    line: Id
    """A line of the item's file, from 1."""
    near: Literal["exact", "next", "previous"] = "exact"
    """Which row to take where that line holds none."""
    whole: bool = True
    """With every token's id; else shortened to what a screen shows."""


class Samples(Command, frozen=True):
    step: Count | None = None
    """The newest sample tick at or before this step; None = the newest."""
    example: Name | None = None
    """One example over all its ticks, instead of all examples at one tick."""
    limit: Annotated[int, Meta(ge=1, le=5000)] = 500


PROMPT_SECONDS = {"training": 10.0, "standing": 60.0}
"""The longest that the answer to a prompt holds up training, or takes while nothing steps."""
ASK_SECONDS = 600.0
"""The longest that models of the home are asked one prompt: whoever asked may be gone."""
LongText = Annotated[str, Meta(max_length=200_000)]


class Generate(Command, frozen=True):
    prompt: Annotated[str, Meta(min_length=1, max_length=200_000)]
    """A user's turn, as it is: no profile is put on it."""
    system: LongText | None = None
    """A system prompt; None = data.system_prompt, "" = none."""
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    temperature: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """0: the most likely token each time."""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    seed: Count | None = None
    """What is drawn above temperature 0 follows from it; None = a new one each time."""
    key: Name | None = None
    """By which cancel_generate and prompt_progress know it."""


class Ask(Generate, frozen=True, kw_only=True):
    """As Generate, of models that a worker loads."""

    models: Annotated[list[Name], Meta(min_length=1, max_length=20)]
    """Versions, tags, checkpoints, digests, base."""
    host: Name | None = None
    """A host of config.toml, "local", or the first that is free."""


class OnePrompt(Command, frozen=True):
    key: Name


class RollbackPlan(Command, frozen=True):
    version: Name | None = None


class Pause(Command, frozen=True):
    park: bool = False
    """Save and free the GPU as well."""


class Skip(Command, frozen=True):
    item: Id | None = None
    """The item to end; None = the one that trains."""
    undo: bool = False
    reason: Text = ""


class SnapshotVersion(Command, frozen=True):
    description: Text = ""
    weights_only: bool = False
    pin: bool = False


class Rollback(Command, frozen=True):
    version: Name | None = None
    plan: Name | None = None
    """`plan` of the rollback_plan that a person agreed to; refused when it is stale."""


class SetPriority(Command, frozen=True):
    item: Id
    priority: Word


class Move(Command, frozen=True):
    item: Id
    first: bool = False
    before: Id | None = None

    def __post_init__(self) -> None:
        if self.first == (self.before is not None):
            raise ValueError("give either first or before")


class Shift(Command, frozen=True):
    items: Annotated[list[Id], Meta(min_length=1, max_length=10_000)]
    by: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]
    """Places among those of the same priority, below 0: earlier."""

    def __post_init__(self) -> None:
        if self.by == 0:
            raise ValueError("by 0 places moves nothing")


class Add(Command, frozen=True):
    path: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]
    """Absolute, as the server stands in another folder. The file is copied in."""
    priority: Word = "normal"


class Pin(Command, frozen=True):
    version: Name
    pinned: bool = True


class Tag(Command, frozen=True):
    version: Name
    name: Name
    on: bool = True


class Describe(Command, frozen=True):
    version: Name
    text: Text


class Verify(Command, frozen=True):
    version: Name
    deep: bool = False
    """Not only the bytes: it loads, and a forward pass is finite."""


class Merge(Command, frozen=True):
    version: Name
    description: Text = ""


class OneVersion(Command, frozen=True):
    version: Name


class Compare(Command, frozen=True):
    first: Name
    second: Name | None = None
    """The present state without one."""


class WeightsDistance(Command, frozen=True):
    first: Name
    second: Name


COMMANDS: dict[str, Spec] = {
    "hello": Spec(Hello, Kind.SERVER),
    "snapshot": Spec(Nothing, Kind.SERVER),
    "meters": Spec(Nothing, Kind.SERVER),
    "prompt_progress": Spec(OnePrompt, Kind.SERVER),
    "events": Spec(Events, Kind.READ),
    "series": Spec(Series, Kind.READ),
    "queue": Spec(QueuePage, Kind.READ),
    "item": Spec(ItemOnly, Kind.READ),
    "row": Spec(RowOfItem, Kind.READ),
    "checkpoints": Spec(Nothing, Kind.READ),
    "versions": Spec(Nothing, Kind.READ),
    "samples": Spec(Samples, Kind.READ),
    "rollback_plan": Spec(RollbackPlan, Kind.READ),
    "add": Spec(Add, Kind.STORE),
    "priority": Spec(SetPriority, Kind.STORE),
    "move": Spec(Move, Kind.STORE),
    "shift": Spec(Shift, Kind.STORE),
    "retry": Spec(ItemOnly, Kind.STORE),
    "remove": Spec(ItemOnly, Kind.STORE),
    "unremove": Spec(ItemOnly, Kind.STORE),
    "pin": Spec(Pin, Kind.STORE),
    "tag": Spec(Tag, Kind.STORE),
    "describe": Spec(Describe, Kind.STORE),
    "version": Spec(OneVersion, Kind.READ),
    "compare": Spec(Compare, Kind.READ),
    "weights_distance": Spec(WeightsDistance, Kind.UPKEEP),
    "verifying": Spec(Nothing, Kind.READ),
    "verify": Spec(Verify, Kind.UPKEEP),
    "merge": Spec(Merge, Kind.UPKEEP),
    "removal_plan": Spec(OneVersion, Kind.READ),
    "delete": Spec(Delete, Kind.UPKEEP),
    "prune_plan": Spec(Nothing, Kind.READ),
    "prune": Spec(Nothing, Kind.UPKEEP),
    "trash": Spec(Nothing, Kind.READ),
    "trash_restore": Spec(TrashRestore, Kind.UPKEEP),
    "trash_empty": Spec(TrashEmpty, Kind.UPKEEP),
    "backup_targets": Spec(Nothing, Kind.READ),
    "backup": Spec(Backup, Kind.UPKEEP),
    "ask": Spec(Ask, Kind.ASK),
    "pause": Spec(Pause, Kind.ENGINE),
    "resume": Spec(Nothing, Kind.ENGINE),
    "skip": Spec(Skip, Kind.ENGINE),
    "stop": Spec(Nothing, Kind.ENGINE),
    "drain": Spec(Nothing, Kind.ENGINE),
    "save": Spec(Nothing, Kind.ENGINE),
    "snapshot_version": Spec(SnapshotVersion, Kind.ENGINE),
    "rollback": Spec(Rollback, Kind.ENGINE),
    "handover": Spec(Nothing, Kind.ENGINE),
    "generate": Spec(Generate, Kind.ENGINE),
    "cancel_generate": Spec(OnePrompt, Kind.ENGINE),
    **evaluation_messages.COMMANDS,
}
"""`item` is the argument that names an item, as `id` is the request's own."""


def spelled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's keyword arguments as they go on the wire: `id=` in Python is `item` there, and
    None means that the argument was not given."""
    named = {("item" if key == "id" else key): value for key, value in arguments.items()}
    return {key: value for key, value in named.items() if value is not None}


def check(command: str, arguments: Mapping[str, Any]) -> Command:
    """The arguments of `command`, converted and checked. Raises UsageError, and UnknownCommand."""
    spec = COMMANDS.get(command)
    if spec is None:
        shown = command if len(command) <= 60 else command[:60] + "…"
        raise UnknownCommand(f"unknown command {shown!r}", mend=f"known: {', '.join(COMMANDS)}")
    try:
        return msgspec.convert(dict(arguments), spec.arguments)
    except msgspec.ValidationError as error:
        what = str(error).replace("`", "").replace(" - at $.", ": ", 1)
        what, _, field = what.partition(": ")
        raise UsageError(f"{command}: {f'{field}: ' if field else ''}{what}") from None


def plain(arguments: Command) -> dict[str, Any]:
    """The arguments as a dictionary with every field, defaults included."""
    return msgspec.structs.asdict(arguments)


# -- the status --------------------------------------------------------------------------------


def unknown(why: str) -> dict[str, str]:
    """What stands in JSON where a value is not known."""
    return {"unknown": why}


def known(value: Any, why: str) -> Any:
    """`value`, or {"unknown": why} where it is None or no finite number (JSON has no NaN)."""
    if value is None:
        return unknown(why)
    if isinstance(value, float) and not math.isfinite(value):
        return unknown(f"not a number ({value})")
    return value


def is_unknown(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"unknown"}
