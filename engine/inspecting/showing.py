"""One row of an item as it trains: its tokens, its pack, and when its turn comes.

An item that is prepared is shown from its prepared data, which is what trains; any other row is
read from the item's file (no further than that row) and made tokens of with the settings that
are frozen with the item, else with those of now. Reads only; the tokenizer is imported when
first asked for, never torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.messages import unknown
from queue_store import config as configuration
from queue_store import queue
from queue_store.config import Config
from queue_store.errors import DataError, NotFound, VerificationFailed
from queue_store.home import Home
from queue_store.items import Item, ItemState

if TYPE_CHECKING:
    from engine.prepare.prepared import Prepared
    from engine.prepare.template import ModelText
    from engine.reading.views import Views
    from queue_store.rows import BadRow, Row

Json = dict[str, Any]
EPOCHS_SHOWN = 100
SHORT = 40_000
"""Characters of a row that a console gets; the middles of long segments are left out."""

_encoding = threading.Lock()
"""A chat template is not made for several threads."""
_models: dict[tuple[object, ...], ModelText] = {}


def row(views: Views, item: int, line: int, near: str = "exact", whole: bool = True) -> Json:
    """Line `line` of the item's file: {line, ids, trained, segments, left_out} or {line, error},
    as `trainctl validate --tokens` has them, with `item`, `name`, `settings` ("frozen" or
    "now"), and `prepared`: {key, part, pack, rows_in_pack, lines, tokens_in_pack, times} or why
    it is not. `times` are [{epoch, place, packs, step, trained}], from 1.

    `near`: "exact"; "next" or "previous" take the nearest row that way where the line is blank,
    a header, or beyond the end. `whole` False leaves ids and trained out and shortens the text.

    Raises NotFound for no such item or line, DataError where the file cannot be read.
    """
    found = queue.get(views.state, item)
    config = configuration.load(views.home.config)
    prepared = _prepared(views.home, found)
    with _encoding:
        model = _model(views.home, config)
        shown = None if prepared is None else _from_prepared(prepared, model, line)
        if shown is None:
            content = _at(views.home.items / found.file, found.name, line, near)
            if prepared is not None and content.line != line:
                shown = _from_prepared(prepared, model, content.line)
            shown = shown or _from_file(views.home, found, config, model, content)
    shown |= {
        "item": found.id,
        "name": found.name,
        "settings": "frozen" if _frozen(found) else "now",
        "prepared": _place(found, prepared, int(shown["line"])),
    }
    return shown if whole else shortened(shown)


def shortened(shown: Json) -> Json:
    """A row for a screen: counts instead of ids, and at most about SHORT characters of text."""
    if "error" in shown:
        return shown
    segments = shown["segments"][:SHORT]
    most = max(40, SHORT // max(1, len(segments)))
    rest = {key: value for key, value in shown.items() if key not in ("ids", "trained")}
    return {
        **rest,
        "tokens": len(shown["ids"]),
        "trained_tokens": sum(shown["trained"]),
        "segments": [{**one, "text": _shorter(one["text"], most)} for one in segments],
    }


def _shorter(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [… {len(text) - 2 * half} characters …] {text[-half:]}"


# -- what is prepared --------------------------------------------------------------------------


def _prepared(home: Home, item: Item) -> Prepared | None:
    """The item's packs, None where there are none or they are damaged (training makes them
    anew, from the file)."""
    folder = home.prepared / item.prepared if item.prepared and _frozen(item) else None
    if folder is None or not folder.is_dir():
        return None
    from engine.prepare.prepared import Prepared

    try:
        return Prepared.open(folder)
    except VerificationFailed:
        return None


def _frozen(item: Item) -> Json | None:
    """The settings that the item keeps, None where it will be prepared with those of then."""
    begun = item.cursor or item.state not in (ItemState.QUEUED, ItemState.PAUSED)
    return item.settings if begun else None


def _number(prepared: Prepared, line: int) -> int | None:
    """The number of the row that stands on `line`, None where it is not among those prepared."""
    import numpy as np

    lines = prepared.arrays["lines"]
    at = int(np.searchsorted(lines, line))
    return at if at < len(lines) and int(lines[at]) == line else None


def _from_prepared(prepared: Prepared, model: ModelText, line: int) -> Json | None:
    from engine.prepare.inspect import row_json

    number = _number(prepared, line)
    if number is None:
        return None
    start, end = (int(prepared.arrays["offsets"][n]) for n in (number, number + 1))
    ids, trained = (prepared.arrays[name][start:end] for name in ("tokens", "trained"))
    return row_json(model, line, ids, trained, "")


def _place(item: Item, prepared: Prepared | None, line: int) -> Json:
    """In which pack the row is and when it trains."""
    from engine.training.items import Settings
    from engine.training.position import Plan

    frozen = _frozen(item)
    if frozen is None:
        return unknown("the item is not prepared yet")
    if prepared is None:
        return unknown("what was prepared is not on disk now")
    number = _number(prepared, line)
    if number is None:
        return unknown("the row is not among those prepared")
    part = prepared
    pack = prepared.pack_of(number)
    if pack is None:
        part = prepared.validation
        pack = part.pack_of(number)
    if pack is None:
        return unknown("the row is in no pack")
    sequence = part.sequence(pack)
    found: Json = {
        "key": prepared.key,
        "part": part.part,
        "pack": pack,
        "packs": part.packs,
        "rows_in_pack": len(sequence.lines),
        "lines": list(sequence.lines),
        "tokens_in_pack": len(sequence.input_ids),
        "times": [],
    }
    if part.part == "train":
        training = Settings.load(frozen).training
        plan = Plan(
            prepared,
            seed=training.seed,
            epochs=training.epochs,
            effective_batch=training.effective_batch,
        )
        found["times"] = list(_times(plan, pack, item.cursor))
    return found


def _times(plan: Any, pack: int, cursor: int) -> Iterator[Json]:
    import numpy as np

    for epoch in range(min(plan.epochs, EPOCHS_SHOWN)):
        place = int(np.flatnonzero(plan.order(epoch).packs == pack)[0])
        yield {
            "epoch": epoch + 1,
            "place": place + 1,
            "step": epoch * plan.steps_per_epoch + place // plan.effective_batch + 1,
            "trained": cursor >= plan.cursor(epoch, place + 1),
        }


# -- what is not -------------------------------------------------------------------------------


def _at(path: Path, name: str, line: int, near: str) -> Row | BadRow:
    """The row on a line of the file, reading no further. Raises NotFound, DataError."""
    from queue_store.rows import read_rows

    before: Row | BadRow | None = None
    for found in read_rows(path):
        if found.line == line or (found.line > line and near == "next"):
            return found
        if found.line > line:
            if near == "previous" and before is not None:
                return before
            raise NotFound(f"line {line} is blank or a header", where=name)
        before = found
    if near == "previous" and before is not None:
        return before
    last = before.line if before is not None else 0
    raise NotFound(f"no line {line}: the last row stands on line {last}", where=name)


def _from_file(
    home: Home, item: Item, config: Config, model: ModelText, content: Row | BadRow
) -> Json:
    from engine.prepare.inspect import one_row
    from engine.training.items import Settings
    from queue_store.heldout import held_out

    settings = Settings.load(_frozen(item) or Settings.of(config).dump())
    return one_row(model, settings.prepare_settings(), held_out(home), content)


def _model(home: Home, config: Config) -> ModelText:
    """The home's model, its tokenizer kept between two rows."""
    from engine.prepare.template import ModelText
    from engine.training.base import base_here, text_folder

    base, seed = config.model.base, config.training.seed
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    here = base_here(home, base, seed)
    key = (str(here or base), seed, *(_stamp(here / name) for name in names if here is not None))
    model = _models.get(key)
    if model is None:
        with text_folder(home, base, seed) as folder:
            model = ModelText(folder)
        _models.clear()  # one home, one model: what it was before is not asked for again
        _models[key] = model
    return model


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    return stat.st_size, stat.st_mtime_ns
