"""What tests.test_tui_pictures pictures: every pane, dialog and view of the console, and the states
that need words; each with the keys that lead there and a text that stands there once it is ready.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.hints import surroundings
from engine.hints.hint import Hint
from queue_store.config import Config
from queue_store.failures import Cause
from tests.tui_pilot import configured
from tests.tui_rows import RowsWorld
from tests.tui_world import T0, World
from tui.console import Console
from tui.dialogs.add import AddDialog
from tui.dialogs.backup import BackupDialog
from tui.dialogs.changed import ChangedView
from tui.dialogs.compare import CompareView
from tui.dialogs.confirm import ConfirmDialog, TextDialog
from tui.dialogs.delete import DeleteDialog
from tui.dialogs.development import DevelopmentView
from tui.dialogs.evaluate import EvaluateDialog
from tui.dialogs.help import ActionList
from tui.dialogs.hints import HintsDialog
from tui.dialogs.hosts import HostsView
from tui.dialogs.item import ItemView
from tui.dialogs.jobs import JobsView
from tui.dialogs.label import DescribeDialog, TagDialog
from tui.dialogs.leave import LeaveDialog
from tui.dialogs.overlay import OverlayDialog
from tui.dialogs.priority import PriorityDialog
from tui.dialogs.prompt import PromptBox
from tui.dialogs.reading import ReadingView
from tui.dialogs.report import ValidationView
from tui.dialogs.rollback import RollbackDialog
from tui.dialogs.skip import SkipDialog
from tui.dialogs.snapshot import SnapshotDialog
from tui.dialogs.trash import TrashView
from tui.dialogs.trust import ChangedKeyDialog, NewKeyDialog
from tui.dialogs.whatif import WhatIfView
from tui.toosmall import TooSmall

GAP = Hint(
    "gap_grows",
    "validation loss rises since step 200: 0.231, best 0.151, gap to training 0.083",
    {"gap_nats": 0.083, "best_step": 200, "validations": 20},
    "it learns by heart: end the item and keep what it taught (k)",
    since_step=200,
    since_time=T0 + 100,
)
LOW = surroundings.disk_low(2_000_000_000, 3_000_000_000, 1_000_000_000, "/home/me/store")
OOM = surroundings.failing(
    surroundings.Failed(
        2, "big.jsonl", Cause.CUDA_MEMORY, "tried to allocate 2.00 GiB (peak 23.1 GB)", T0, 3
    )
)
ASCII = configured(ascii=True)
SIXTEEN = configured(theme="ansi-dark")
THEN = "then "
"""In keys: the text behind it has to be on the screen before the next key."""
ROWS = ("t", f"{THEN}line 1")
"""Keys that open the rows of an item; what comes before it is open is another view's key."""
JUDGED = ("5", "space", "G", "c", "then better")
CHANGED = ("3", "m", "then weights", "j", "h", "1")
"""The memory of training: a shorter sequence, and the first of what fits then."""
TRY = {"n": 1, "started": T0 + 10, "ended": T0 + 51}


def home() -> RowsWorld:
    """A home in which much has happened: a rollback, items in every state, a copy elsewhere."""
    world = RowsWorld(steps=200)
    world.items[0]["steps"] = 400
    world.version("first good one", pinned=True)
    for name in ("second", "before going back", "the other way"):
        world.train(20)
        world.version(name)
    first, second, left, other = world.versions_
    second["rolled_back"] = left["rolled_back"] = True
    second["state"] = "corrupt"
    other["parent"], other["branch"] = "v001", 2
    copy = {"target": "nas", "state": "verified", "verified_at": world.now, "error": ""}
    first |= {"copies": [copy], "tags": ["good"]}
    losses = {step: 0.9 + step / 1000 for step in range(201, 241)}
    world.left_ = [{"branch": 1, "name": "v003", "fork": 200, "tip": 240, "losses": losses}]
    rolled = {"kind": "rollback", "step": 200, "name": "", "text": "rolled back to v001"}
    world.marks_ = [rolled]
    attempt = {**TRY, "cause": "cuda_memory", "error": "tried to allocate 2.00 GiB"}
    attempt["advice"] = "lower training.batch_size to 4"
    failed = {"error": "CUDA out of memory at step 41 (peak 23.1 GB)", "attempts": [attempt]}
    world.add_item("big.jsonl", "normal", "failed", reason="cuda_memory", **failed)
    world.add_item("broken.jsonl", "low", "rejected", error="line 3: not JSON")
    world.add_item("syllo_level0.jsonl", "normal", "done")
    world.evaluate(v001=lambda n: n < 10, v004=lambda n: 2 <= n < 24)
    world.target("nas")
    world.target("usb", error="not mounted")
    world.throw("v000")
    world.throw("checkpoint-50-20260528-2027", "checkpoint")
    world.past = [10.0, 40.0, 90.0, 60.0] * 10
    card = {"index": 0, "name": "RTX 3090", "utilization": 91.0, "memory_used": 19e9}
    card |= {"memory_total": 24e9, "temperature": 71.0, "power": 330.0, "power_limit": 350.0}
    world.gpus = [card]
    world.hint = "validation loss rises since step 200 (gap 0.08): consider stopping early"
    return world


def empty() -> World:
    """A home whose queue is empty, with nothing trained."""
    world = World()
    world.items.clear()
    world.state = "idle"
    return world


def idle() -> World:
    """All has trained."""
    world = home()
    world.items = [item for item in world.items if item["state"] == "done"]
    world.state, world.hint = "idle", ""
    return world


def loading() -> World:
    world = World()
    world.state, world.phase, world.progress = "starting", "loading the model", 0.4
    return world


def not_a_number() -> World:
    world = home()
    world.loss[-30:-10] = [None] * 20
    attempt = {**TRY, "cause": "nan", "error": "loss is NaN"}
    error = {"error": "loss is NaN at step 41", "attempts": [attempt]}
    world.add_item("bad.jsonl", "normal", "failed", **error)
    return world


def hinted() -> World:
    world = home()
    world.hint = ""
    world.hints = [hint for hint in (GAP, LOW, OOM) if hint is not None]
    return world


def paused() -> World:
    world = home()
    world.state, world.hint = "paused", ""
    return world


def here() -> World:
    world = home()
    world.local = True
    return world


def held() -> World:
    world = home()
    world.hold = threading.Event()
    return world


def asking() -> World:
    world = home()
    world.asking.clear()
    return world


def alike() -> World:
    world = home()
    world.evaluate(v004=lambda n: n < 11)
    return world


def evaluating() -> World:
    """Versions were evaluated, a job runs, one host cannot be reached."""
    world = home()
    world.hint = ""
    titan = world.host("titan", "busy", job=2)
    titan["gpus"][0] |= {"utilization": 96.0, "memory_used": 19e9, "temperature": 71.0}
    away = {"error": "not reached: Connection timed out", "seen": world.now - 7200}
    world.hosts = [titan, world.host("atlas"), world.host("away", "unreachable", **away)]
    world.job("v001", "done", host="titan", items=40, answered=40, reason="item")
    world.job("v004", "running", host="titan", items=200, answered=120, priority="high")
    world.job("checkpoint-260-20260528-2031", reason="checkpoint", priority="low")
    world.job("v002", "failed", host="titan", error="not done by its deadline", errors=3)
    score = {"right": 71, "n": 100, "accuracy": 0.71, "low": 0.61, "high": 0.79, "items": 100}
    world.versions_[0]["scores"] = {"syllo": score}
    world.versions_[-1]["scores"] = {"syllo": {**score, "right": 78, "accuracy": 0.78}}
    world.versions_[-1]["tags"] = ["best"]
    return world


def no_set() -> World:
    world = home()
    world.sets = []
    return world


def changed_key() -> World:
    world = evaluating()
    world.keys["titan"] = {"changed": True}
    return world


def cannot_go() -> World:
    world = home()
    world.plans["v004"] = {"refused": "v004 is what training stands on: go back to another first"}
    return world


def lost(app: Console, world: World) -> None:
    world.lost = "no engine is running for this home"
    world.now += 12


def choose(item: int) -> Callable[[Console, World], None]:
    """With the cursor on an item."""

    def choose(app: Console, world: World) -> None:
        app.queue_pane.chosen = item
        app.queue_pane.redraw()

    return choose


def mark(*items: int) -> Callable[[Console, World], None]:
    """With these items marked."""

    def mark(app: Console, world: World) -> None:
        app.queue_pane.marks = set(items)
        app.queue_pane.redraw()

    return mark


@dataclass(frozen=True)
class Shot:
    """`keys` lead to it from the queue (THEN and a text: wait for it), `text` stands there; `kind`
    is the class on top, None for the console itself. `first` is done to the console before the
    keys."""

    name: str
    keys: tuple[str, ...]
    text: str
    kind: type | None = None
    world: Callable[[], World] = home
    first: Callable[[Console, World], None] | None = None
    config: Config | None = None
    more: dict[str, Any] = field(default_factory=dict)
    zoom: bool = False
    """A pane: it gets the whole of a wide screen."""


PANES = (
    Shot("queue", ("1",), "gsm8k", zoom=True),
    Shot("queue marked", ("1",), "*gsm8k", first=mark(2, 3, 5), zoom=True),
    Shot("queue filtered", ("1", "/", *"big"), "/big", zoom=True),
    Shot("queue only failed", ("1", "o", "o", "o"), "big", zoom=True),
    Shot("queue empty", ("1", "escape"), "a adds a file", world=empty, zoom=True),
    Shot("curves", ("2",), "train", zoom=True),
    Shot("curves cursor", ("2", ".", "h", "h"), "| step ", zoom=True),
    Shot("curves overlay", ("2", "C", "right", "enter"), "over v004", zoom=True),
    Shot("curves not a number", ("2",), "!!!", world=not_a_number, zoom=True),
    Shot("curves before a step", ("2",), "loading the model", world=loading, zoom=True),
    Shot("meters", ("3",), "GPU0", zoom=True),
    Shot("meters hosts", ("3",), "GPU0", world=evaluating, zoom=True),
    Shot("samples", ("4",), "expected", zoom=True),
    Shot("samples list", ("4", "f"), "example", zoom=True),
    Shot("samples diff", ("4", *"nnnnn[[[[[[d"), "[-", zoom=True),
    Shot("samples before a step", ("4",), "no samples yet", world=loading, zoom=True),
    Shot("versions", ("5",), "v001", zoom=True),
    Shot("versions tree", ("5", "T"), "|- v002", zoom=True),
    Shot("versions scored", ("5",), "78%", world=evaluating, zoom=True),
    Shot("versions none", ("5",), "No versions yet", world=loading, zoom=True),
    Shot("events", ("6",), "the other way", zoom=True),
    Shot("events none", ("6",), "", world=loading, zoom=True),
)

STATES = (
    Shot("training", (), "gsm8k"),
    Shot("ascii", (), "gsm8k", config=ASCII),
    Shot("paused", (), "paused", world=paused),
    Shot("evaluating", (), "evaluating v004", world=evaluating),
    Shot("starting", (), "loading the model", world=loading),
    Shot("finished", (), "idle", world=idle),
    Shot("first run", (), "Nothing has trained here yet", world=empty),
    Shot("first run read-only", (), "it only looks", world=empty, more={"readonly": True}),
    Shot("lost engine", (), "reconnecting", first=lost),
    Shot("read-only", ("p",), "read-only, so no pause", more={"readonly": True}),
    Shot("memory ran out", (), "CUDA out of memory", world=hinted),
)

DIALOGS = (
    Shot("help", ("?",), "Enter runs it", ActionList),
    Shot("help searched", ("?", *"roll"), "rollback", ActionList),
    Shot("help of nothing", ("?", *"qqq"), "nothing", ActionList),
    Shot("palette", (":",), "Run a command", ActionList),
    Shot("add", ("a",), "Add a file", AddDialog),
    Shot("retry", ("r",), "Retry 2 items", ConfirmDialog, not_a_number, mark(3, 5, 8)),
    Shot("remove", ("x",), "Remove extra.jsonl", ConfirmDialog, first=choose(4)),
    Shot("item", ("enter",), "tokens", ItemView),
    Shot("item failed", ("enter",), "what to do", ItemView, first=choose(5)),
    Shot("item rows", ("t",), "line 1", ItemView),
    Shot("item row wrong", (*ROWS, ":", "4", "enter"), "does not train", ItemView),
    Shot("item line asked for", (*ROWS, ":", "7"), "n next", ItemView),
    Shot("item row not there", (*ROWS, ":", "9", "9", "enter"), "no line 99", ItemView),
    Shot("priority", ("+",), "The order then", PriorityDialog, first=choose(3)),
    Shot("priority of several", ("-",), "The order then", PriorityDialog, first=mark(2, 3)),
    Shot("skip", ("k",), "undo it", SkipDialog),
    Shot("skip several", ("k",), "Skip 2 items", SkipDialog, first=mark(1, 3)),
    Shot("validation", ("v",), "40%", ValidationView, world=held),
    Shot("validation report", ("v",), "nothing keeps it", ValidationView),
    Shot("snapshot", ("s",), "Take a snapshot", SnapshotDialog),
    Shot("rollback", ("R",), "Roll back to v004", RollbackDialog),
    Shot("rollback in 16 colours", ("R",), "Roll back", RollbackDialog, config=SIXTEEN),
    Shot("restore", ("5", "G", "enter"), "Restore v001", RollbackDialog),
    Shot("delete", ("5", "ctrl+d"), "Delete v004", DeleteDialog),
    Shot("delete refused", ("5", "ctrl+d"), "cannot be deleted", TextDialog, world=cannot_go),
    Shot("version", ("5", "G", "i"), "Version v001", TextDialog),
    Shot("tag", ("5", "G", "t"), "Tag v001", TagDialog),
    Shot("describe", ("5", "G", "D"), "Describe v001", DescribeDialog),
    Shot("compare", ("5", "G", "c"), "Compare v001 with now", CompareView),
    Shot("compare weights", ("5", "space", "G", "c", "w"), "differ", CompareView),
    Shot("compare answers", JUDGED, "better", CompareView),
    Shot("compare no difference", ("5", "space", "G", "c"), "25% 14-40", CompareView, alike),
    Shot("compare levels", (*JUDGED, *["down"] * 14), "medium", CompareView),
    Shot("items that changed", (*JUDGED, "i"), "2 lost", ChangedView),
    Shot("item that changed", (*JUDGED, "i", "enter"), "asked", ChangedView),
    Shot("evaluate", ("5", "e"), "Evaluate v004", EvaluateDialog, evaluating),
    Shot("evaluate without a set", ("5", "e"), "no evaluation set", TextDialog, no_set),
    Shot("jobs", ("5", "E"), "120/200", JobsView, evaluating),
    Shot("job", ("5", "E", "then 120/200", "enter"), "weights", JobsView, evaluating),
    Shot(
        "job cancelled", ("5", "E", "then 120/200", "x"), "Cancel eval", ConfirmDialog, evaluating
    ),
    Shot("no jobs", ("5", "E"), "No evaluation job", JobsView),
    Shot("hosts", ("5", "H"), "titan", HostsView, evaluating),
    Shot("host asked", ("5", "H", "r", "then Asked just now"), "titan", HostsView, evaluating),
    Shot("no hosts", ("5", "H"), "local", HostsView),
    Shot("new key", ("5", "H", "t"), "Trust the key", NewKeyDialog, evaluating),
    Shot("changed key", ("5", "H", "t"), "CHANGED", ChangedKeyDialog, changed_key),
    Shot("version scored", ("5", "i"), "Version v004", TextDialog, evaluating),
    Shot("back up", ("5", "b"), "Back up v004", BackupDialog),
    Shot("trash", ("5", "X"), "checkpoint-50", TrashView),
    Shot("trash emptied", ("5", "X", "E"), "Empty the trash", ConfirmDialog),
    Shot("checkpoints", ("5", "C"), "checkpoint-100", ReadingView),
    Shot("overlay", ("2", "C"), "Lay two lines", OverlayDialog),
    Shot("overlay in ascii", ("2", "C"), "Lay two lines", OverlayDialog, config=ASCII),
    Shot("hints", ("w",), "what to do", HintsDialog, world=hinted),
    Shot("development", ("4", "n", "n", "D"), "over time", DevelopmentView),
    Shot("prompt", ("4", "t"), "Ask the model", PromptBox),
    Shot("prompt asked", ("4", "t", *"hello", "enter"), "Esc cancels", PromptBox, world=asking),
    Shot("prompt answered", ("4", "t", *"hello", "enter"), "WINDOW", PromptBox),
    Shot("what if", ("3", "m"), "does not fit", WhatIfView, world=lambda: estimated()),
    Shot("what if changed", CHANGED, "to spare", WhatIfView),
    Shot("what if another card", ("3", "m", "then weights", "l"), "RTX 4090", WhatIfView),
    Shot("what if measuring", ("3", "m"), "50%", WhatIfView, world=held),
    Shot("what if not known", ("3", "m"), "not known", WhatIfView, world=lambda: unmeasured()),
    Shot("event", ("6", "enter"), "kind", TextDialog),
    Shot("leave", ("q",), "Keep training", LeaveDialog, world=here),
    Shot("leave paused", ("q",), "stays paused", LeaveDialog, world=lambda: _paused_here()),
)


def estimated() -> World:
    """Two items have trained here, and were estimated before."""
    world = home()
    last = {"predicted": 15_800_000_000, "measured": 16_100_000_000}
    world.well = {"items": 2, "low": 0.981, "high": 1.034, "last": last}
    return world


def unmeasured() -> World:
    world = home()
    world.unmeasured = "measuring the model did not finish: no such model type: mamba9"
    return world


def _paused_here() -> World:
    world = here()
    world.state, world.hint = "paused", ""
    return world


KINDS = {shot.kind for shot in DIALOGS} | {TooSmall}
