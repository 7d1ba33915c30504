"""From what was found in a file to what a person may want to change, each with its price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.prepare import packing
from engine.prepare.footprint import bytes_per_token, positions
from engine.rowcheck import mend
from queue_store.config import Config

STEP = 64
"""Lengths are suggested in multiples of this: kernels are fast there."""

WORTH = 0.8
"""A setting is suggested where it needs at most this share of what is needed now."""


@dataclass(frozen=True)
class Suggestion:
    """`text` is for a person. `key` and `value` are a setting of config.toml ("" and None: none);
    `saves_bytes` of a batch's memory are an estimate (negative: it costs), None where the model
    does not say; `fill` is the share of the packs that would be real tokens, `drops` the rows
    that would be longer than the limit; None where they stay as they are."""

    text: str
    key: str = ""
    value: Any = None
    saves_bytes: int | None = None
    fill: float | None = None
    drops: int | None = None


def round_up(length: int) -> int:
    """The next multiple of STEP."""
    return -(-length // STEP) * STEP


def suggestions(
    report: Mapping[str, Any], lengths: np.ndarray, config: Config, model: Mapping[str, Any]
) -> list[Suggestion]:
    """`report` of report.build; `lengths` int64[R] of the rows that train or are too long;
    `model` is the model's config.json."""
    found: list[Suggestion] = []
    if not len(lengths):
        return found
    wrong = int(report["rejected_count"])
    # Where bad rows are dropped already, only their number could be a problem.
    if wrong and config.data.bad_rows == "reject_file":
        found.append(Suggestion(mend(wrong, report["rejected"]), "data.bad_rows", "drop"))
    price = bytes_per_token(model, config.model, config.training)
    limit, batch = config.training.max_length, config.training.batch_size
    rows, longest = len(lengths), int(lengths.max())
    p99 = int(np.percentile(lengths, 99, method="inverted_cdf"))

    def other(length: int, text: str, *, drops: int = 0) -> Suggestion:
        saves = None if price is None else (limit - length) * price * batch
        fill = _fill(lengths[lengths <= length], length) if config.training.packing else None
        parts = [f"training.max_length = {length} {text}"]
        if saves is not None:
            word = "saves" if saves > 0 else "takes"
            more = "" if saves > 0 else " more"
            parts.append(f"{word} about {_size(abs(saves))}{more} a batch (estimate)")
        if fill is not None:
            parts.append(f"packs {fill:.0%} full, now {report['packing']['fill']:.0%}")
        return Suggestion("; ".join(parts), "training.max_length", length, saves, fill, drops)

    top = positions(model)
    over = int((lengths > limit).sum())
    if over and top is not None and longest > top:
        found.append(
            Suggestion(
                f"split the longest rows: {longest} tokens, and the model was made for {top}"
            )
        )
    if over:
        wanted = min(round_up(longest), top or round_up(longest))
        trains = int((lengths <= wanted).sum()) - (rows - over)
        if trains and wanted > limit:
            what = f"trains {_counted(trains, 'more row')}, too long now"
            found.append(other(wanted, what, drops=over - trains))
    elif config.training.packing and round_up(longest) <= WORTH * limit:
        found.append(other(round_up(longest), "holds every row"))
    few = round_up(p99)
    if config.training.packing and few <= WORTH * min(limit, round_up(longest)):
        drops = int((lengths > few).sum())
        found.append(other(few, f"leaves out the longest {_counted(drops, 'row')}", drops=drops))
    fitting = lengths[lengths <= limit]
    if not config.training.packing and len(fitting):
        packs = len(packing.tightest(fitting, limit)[0]) - 1
        if packs <= WORTH * len(fitting):
            text = (
                f"training.packing = true puts {_counted(len(fitting), 'row')} into"
                f" {_counted(packs, 'sequence')} of {limit} tokens: fewer steps, no padding"
            )
            found.append(
                Suggestion(text, "training.packing", True, fill=_fill(fitting, limit), drops=over)
            )
    return found


def _fill(lengths: np.ndarray, limit: int) -> float:
    packs = len(packing.tightest(lengths, limit)[0]) - 1
    return round(int(lengths.sum()) / max(1, packs * limit), 4)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.0f} kB"
