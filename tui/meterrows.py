"""Meters as lines: how one is drawn, and those of the GPUs in as little room as there is.

Told without colour: a bar, a history of small bars, `!` and `!!` behind the figure that warns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tui.figures import NONE, bar, counted, gigabytes, known, real, short, size, why
from tui.frame import Record
from tui.levels import (
    CALM,
    GPU_DEGREES,
    GPU_MEMORY,
    RAM,
    TONES,
    disk_level,
    gpu_level,
    level,
    share,
    throttle,
    worst,
)
from tui.safe import Line, Span, clip, line_text, wrap

LABEL = 6
"""Columns of a label."""
ROOMY = 60
"""Columns from which on a meter has a bar and its history side by side; below, its history."""
BAR, HISTORY, TEXT = 12, 75, 30
"""Columns of a bar, of a history at most, and of the figures where there is room for all three."""
CELL = 18
"""Columns of a GPU where two stand in a line."""
FULL, NOTES, SHORT, TIGHT = 3, 2, 1, 0
"""How much is told: all there is; a line a meter, and what is not as it should be; a line a meter;
two GPUs in a line."""


@dataclass(frozen=True)
class Meter:
    """`share` 0..1 fills the bar, None for no bar; `history` are values up to `top`; `level` is
    how much it warns."""

    name: str
    share: float | None
    text: tuple[Span, ...]
    history: Any = None
    level: str = CALM
    top: float = 100.0


Bars = Callable[[object, int, float], str]
"""(values, columns, top): a history drawn, "" where there is none."""


def label(name: str) -> Span:
    return (f"{name:{LABEL}}", "dim")


def note(text: str, tone: str = "dim") -> Line:
    """A line that goes on about the meter above."""
    return ((" " * LABEL, ""), (text, tone))


def reasons(name: str, reason: str, width: int) -> list[Line]:
    """Why a figure is not known, on as many lines as that takes."""
    parts = wrap(f"? {reason}", max(8, width - LABEL))
    return [(label("" if n else name), (part, "warn")) for n, part in enumerate(parts)]


def row(meter: Meter, width: int, bars: Bars) -> Line:
    """One line: label, bar or history, figures; in a wide pane all three."""
    used = len(line_text(meter.text))
    tone = TONES[meter.level]
    if width >= ROOMY:
        drawn = bar(meter.share, BAR) if meter.share is not None else ""
        room = min(HISTORY, width - LABEL - BAR - 2 - max(used, TEXT))
        spans: list[Span] = [label(meter.name), (f"{drawn:{BAR}}  ", tone), *meter.text]
        history = bars(meter.history, room, meter.top) if room >= 8 else ""
        if history:
            spans += [(" " * (max(used, TEXT) - used), ""), (history, "band")]
        return tuple(spans)
    room = min(16, width - LABEL - used - 1)
    if room < 4:
        return (label(meter.name), *meter.text)
    history = bars(meter.history, room, meter.top)
    drawn = history or (bar(meter.share, room) if meter.share is not None else "")
    return (label(meter.name), (drawn + " " * bool(drawn), tone), *meter.text)


def gpu_rows(
    gpus: Any, past: Record, width: int, detail: int, drawn: Callable[[Meter], Line]
) -> list[Line]:
    """The GPUs, in as much detail as asked for (see FULL)."""
    reason = why(gpus)
    if reason:
        return reasons("GPU", reason, width)
    cards = [gpu for gpu in gpus or () if isinstance(gpu, Mapping)]
    if not cards:
        return [(label("GPU"), ("CPU only", ""))]
    if detail == TIGHT and len(cards) > 2:
        cells = [_cell(index, gpu) for index, gpu in enumerate(cards)]
        per = max(1, width // CELL)
        return [
            tuple(span for cell in cells[at : at + per] for span in cell)
            for at in range(0, len(cells), per)
        ]
    history = past.get("gpus") or []
    lines: list[Line] = []
    for index, gpu in enumerate(cards):
        before = history[index] if index < len(history) else {}
        lines += _card(index, gpu, before, width, detail, drawn)
    return lines


def _card(
    index: int,
    gpu: Record,
    before: Record,
    width: int,
    detail: int,
    drawn: Callable[[Meter], Line],
) -> list[Line]:
    name = f"GPU{index}"
    lost = {why(value) for value in gpu.values()}
    if len(lost) == 1 and (reason := next(iter(lost))):
        return reasons(name, reason, width)
    use = real(gpu.get("utilization"))
    shown = "?" if use is None else f"{use:.0f}%"
    text: list[Span] = [(f"{shown} ", ""), _memory(gpu)]
    if detail < FULL:
        text += [(" ", ""), _degrees(gpu)]
        power = real(gpu.get("power"))
        text += [(f" {power:.0f}W", "dim")] if power is not None else []
        mark = throttle(gpu)[0]
        if detail == SHORT and mark:
            text.append((f" slow{mark}", TONES[mark]))
    busy = None if use is None else use / 100
    line = drawn(Meter(name, busy, tuple(text), before.get("utilization"), gpu_level(gpu)))
    if detail == FULL:
        return [line, *_details(gpu, width)]
    return [line, *_notes(gpu, width)] if detail == NOTES else [line]


def _memory(gpu: Record) -> Span:
    used, total = gpu.get("memory_used"), gpu.get("memory_total")
    mark = level(share(used, total), GPU_MEMORY)
    return (f"{gigabytes(used)}/{gigabytes(total)}G{mark}", TONES[mark] if mark else "")


def _degrees(gpu: Record) -> Span:
    degrees = real(gpu.get("temperature"))
    if degrees is None:
        return ("?C", "")
    mark = level(degrees, GPU_DEGREES)
    return (f"{degrees:.0f}C{mark}", TONES[mark] if mark else "")


def _power(gpu: Record) -> str:
    power, limit = real(gpu.get("power")), real(gpu.get("power_limit"))
    if power is None:
        return ""
    return f"{power:.0f}/{limit:.0f}W" if limit is not None else f"{power:.0f}W"


def _details(gpu: Record, width: int) -> Iterator[Line]:
    """Name, temperature, power; what slows it; who else is on it; what it does not tell."""
    power = _power(gpu)
    degrees = _degrees(gpu) if real(gpu.get("temperature")) is not None else ("", "")
    room = width - LABEL - len(power) - len(degrees[0]) - 2
    named = gpu.get("name")
    spans: list[Span] = [(" " * LABEL, "")]
    if not why(named) and named:
        spans.append((clip(named, max(4, room)) + " ", "dim"))
    yield tuple([*spans, (degrees[0], degrees[1] or "dim"), (f" {power}", "dim")])
    mark, names = throttle(gpu)
    if names and not mark:
        yield from _told(f"at its {_words(names)}", width, "dim")
    yield from _notes(gpu, width)
    told_why = {why(gpu.get(key)) for key in ("utilization", "memory_used", "temperature", "power")}
    for reason in sorted(told_why - {""}):
        yield from reasons("", reason, width)


def _notes(gpu: Record, width: int) -> Iterator[Line]:
    """What slows a card, and who else is on it."""
    mark, names = throttle(gpu)
    if mark:
        yield from _told(f"slowed: {_words(names)}{mark}", width, TONES[mark])
    others = gpu.get("others")
    for other in others if isinstance(others, list) else ():
        told = why(other.get("name"))
        who = f"pid {other.get('pid')} ({told})" if told else f"{other.get('name')}"
        memory = other.get("memory")
        with_ = f" {size(memory)}" if known(memory) else ""
        yield from _told(f"also: {who}{with_}", width, "warn")


def _words(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _told(text: str, width: int, tone: str) -> Iterator[Line]:
    for part in wrap(text, max(8, width - LABEL)):
        yield note(part, tone)


def _cell(index: int, gpu: Record) -> tuple[Span, ...]:
    """A GPU in CELL columns."""
    use, mark = real(gpu.get("utilization")), gpu_level(gpu)
    if all(why(value) for value in gpu.values()):
        text, mark = f"{index} lost", "!!"
    else:
        shown = "?" if use is None else f"{use:.0f}%"
        degrees = real(gpu.get("temperature"))
        heat = "?" if degrees is None else f"{degrees:.0f}C"
        text = f"{index} {shown} {gigabytes(gpu.get('memory_used'))}G {heat}"
    return ((f"{text}{mark}".ljust(CELL)[:CELL], TONES[mark] if mark else ""),)


def speed(status: Record) -> str:
    """Tokens per second, with their unit."""
    value = status.get("tokens_per_second")
    return f"{short(value)} tok/s" if known(value) else NONE


def strip_line(status: Record, width: int = 200) -> Line:
    """The machine in one line, for the folded layout. What does not fit goes, the least needed
    first; what warns stays longest."""
    parts = [part for part in _parts(status) if part[1]]
    for rank in sorted({rank for rank, _ in parts}, reverse=True):
        if sum(len(line_text(line)) + 3 for _, line in parts) - 3 <= width:
            break
        parts = [part for part in parts if part[0] < rank]
    spans: list[Span] = []
    for number, (_, line) in enumerate(parts):
        spans += [("   ", "")] * bool(number) + list(line)
    return tuple(spans)


def _parts(status: Record) -> list[tuple[int, Line]]:
    """(rank, spans): a part of a higher rank goes first."""
    parts = _gpu_parts(status.get("gpus"))
    ram, cpu, disk = status.get("ram"), status.get("cpu"), status.get("disk")
    if isinstance(ram, Mapping) and not why(ram):
        mark = level(share(ram.get("used"), ram.get("total")), RAM)
        text = f"RAM {gigabytes(ram.get('used'))}/{gigabytes(ram.get('total'))}G{mark}"
        parts.append((0 if mark else 3, ((text, _quiet(mark)),)))
    if isinstance(cpu, Mapping) and real(cpu.get("utilization")) is not None:
        parts.append((5, ((f"CPU {cpu['utilization']:.0f}%", "dim"),)))
    if isinstance(disk, Mapping) and not why(disk):
        left, mark = disk.get("snapshots_left"), disk_level(disk)
        text = f"disk {size(disk.get('free'))} free"
        parts.append((0 if mark else 2, ((text + mark, _quiet(mark)),)))
        if known(left):
            parts.append((4, ((f"room for {short(left)}", "dim"),)))
    parts.append((3, ((speed(status), "dim"),)))
    return parts


def _gpu_parts(gpus: Any) -> list[tuple[int, Line]]:
    if why(gpus):
        return [(1, (("GPU ?", "warn"),))]
    cards = [gpu for gpu in gpus or () if isinstance(gpu, Mapping)]
    if not cards:
        return [(1, (("CPU only", "dim"),))]
    if len(cards) > 2:
        return [(0, (_together(cards),))]
    found: list[tuple[int, Line]] = []
    for index, gpu in enumerate(cards):
        use, mark = real(gpu.get("utilization")), gpu_level(gpu)
        shown = "?" if use is None else f"{use:.0f}%"
        memory = f"{gigabytes(gpu.get('memory_used'))}/{gigabytes(gpu.get('memory_total'))}G"
        degrees = real(gpu.get("temperature"))
        heat = "" if degrees is None else f" {degrees:.0f}C"
        found.append((0, ((f"GPU{index} {shown} {memory}{heat}{mark}", _quiet(mark)),)))
    return found


def _together(cards: Sequence[Record]) -> Span:
    """Many GPUs in a few words: how many, their lowest and highest use, the hottest."""
    uses = [use for gpu in cards if (use := real(gpu.get("utilization"))) is not None]
    heats = [heat for gpu in cards if (heat := real(gpu.get("temperature"))) is not None]
    lost = sum(all(why(value) for value in gpu.values()) for gpu in cards)
    mark = worst("!!" if lost else CALM, *(gpu_level(gpu) for gpu in cards))
    text = counted(len(cards), "GPU")
    if uses:
        text += f" {min(uses):.0f}-{max(uses):.0f}%"
    if heats:
        text += f" {max(heats):.0f}C"
    if lost:
        text += f" {lost} lost"
    return (text + mark, _quiet(mark))


def _quiet(mark: str) -> str:
    return TONES[mark] if mark else "dim"
