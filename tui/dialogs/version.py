"""What there is to read about one version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.dialogs.base import Fact
from tui.dialogs.delete import NOT_A_COPY, copies_text
from tui.evaluation import score_text, scores_of
from tui.figures import age, clock_time, count, counted, loss, real, size, why
from tui.frame import Record

ITEMS_SHOWN = 6
LINE_SHOWN = 6


def version_facts(version: Record, now: float) -> list[Fact]:
    """The engine's answer to `version` in words."""
    place = f"step {count(version.get('step'))}, branch {version.get('branch')}"
    if version.get("rolled_back"):
        place += ", rolled back"
    facts: list[Fact] = []
    about = [*(f"[{tag}]" for tag in version.get("tags") or ()), version.get("description") or ""]
    if any(about):
        facts.append(("about", " ".join(filter(None, map(str, about)))))
    facts += [
        ("made", f"{clock_time(version.get('created'), date=True)}, {version.get('kind')}"),
        ("of", f"{version.get('checkpoint_name') or '?'}, {place}"),
        ("came from", _line(version)),
        ("loss", f"{loss(version.get('loss'))}, val {loss(version.get('val_loss'))}"),
        *_scores(version),
        ("checked", _checked(version, now)),
        ("kept", ", ".join(map(str, version.get("kept_because") or ())) or "by no rule"),
        ("copies", copies_text(version, now)),
        *_disk(version),
        *_items(version.get("items")),
    ]
    return facts


def _scores(version: Record) -> list[Fact]:
    """How it stands on the held-out sets, each with its interval."""
    found = scores_of(version)
    if not found:
        return [("held-out", why(version.get("scores")) or "never evaluated: e does")]
    return [(name, score_text(one)) for name, one in found.items()]


def _line(version: Record) -> str:
    line = [str(name) for name in version.get("line") or ()][:-1]
    shown = [*(["…"] if len(line) > LINE_SHOWN else []), *line[-LINE_SHOWN:]]
    return " > ".join(shown) or "the base model"


def _checked(version: Record, now: float) -> str:
    if version.get("state") == "corrupt":
        return "DAMAGED: not as it was written, or no model"
    at, deep = version.get("verified_at"), version.get("deep_verified_at")
    if real(at) is None:
        return "not read back yet"
    text = f"every byte, {age(now, at)} ago"
    return f"{text}; loads and computes, {age(now, deep)} ago" if real(deep) is not None else text


def _disk(version: Record) -> list[Fact]:
    own, shared = version.get("own_bytes"), version.get("shared_bytes")
    if why(own):
        return [("on disk", f"? ({why(own)})")]
    files = [f for f in version.get("files") or () if isinstance(f, Mapping)]
    others = sorted({str(name) for f in files for name in f.get("shared_with") or ()})
    facts: list[Fact] = [
        ("on disk", f"{size(own)} its own, {size(shared)} shared; {counted(len(files), 'file')}")
    ]
    if others:
        facts += [("shares", ", ".join(others)), NOT_A_COPY]
    return facts


def _items(items: Any) -> list[Fact]:
    found = [item for item in items or () if isinstance(item, Mapping)]
    facts: list[Fact] = []
    for number, item in enumerate(found[-ITEMS_SHOWN:]):
        whole = "" if item.get("whole") else ", not whole"
        text = f"{item.get('name')}: {counted(item.get('rows'), 'row')}{whole}"
        facts.append(("contains" if not number else "", text))
    if len(found) > ITEMS_SHOWN:
        facts.append(("", f"and {len(found) - ITEMS_SHOWN} before"))
    return facts
