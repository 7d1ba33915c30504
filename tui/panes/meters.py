"""Pane 3: the machine. GPU, memory, disk and speed, and why where one is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.figures import (
    NONE,
    bar,
    count,
    duration,
    gigabytes,
    known,
    percent,
    real,
    short,
    size,
    why,
)
from tui.frame import Record
from tui.panes.base import ScrollPane
from tui.safe import Line, clip, wrap

LABEL = 6
"""Columns of a label."""


def _meter(name: str, share: float | None, text: str, width: int) -> Line:
    """`GPU0 ######.... 91% …`: a bar only where there is room for one and something to show."""
    label = f"{name:{LABEL}}"
    bar_width = min(16, width - len(label) - len(text) - 2)
    if share is None or bar_width < 4:
        return ((label, "dim"), (text, ""))
    tone = "bad" if share > 0.95 else "warn" if share > 0.85 else "good"
    return ((label, "dim"), (bar(share, bar_width) + " ", tone), (text, ""))


def _why(name: str, reason: str, width: int) -> list[Line]:
    """Why a figure is not known, on as many lines as that takes."""
    parts = wrap(f"? {reason}", max(8, width - LABEL))
    return [
        ((f"{'' if n else name:{LABEL}}", "dim"), (part, "warn")) for n, part in enumerate(parts)
    ]


def _of(used: Any, total: Any) -> float | None:
    a, b = real(used), real(total)
    return a / b if a is not None and b else None


def gpu_lines(gpus: Any, width: int) -> list[Line]:
    """Two lines a card: use, then memory, temperature and power."""
    reason = why(gpus)
    if reason:
        return _why("GPU", reason, width)
    if not gpus:
        return [((f"{'GPU':{LABEL}}", "dim"), ("CPU only", ""))]
    lines: list[Line] = []
    for index, gpu in enumerate(gpus):
        if not isinstance(gpu, Mapping):
            continue
        use = real(gpu.get("utilization"))
        share = None if use is None else use / 100
        memory = f"{gigabytes(gpu.get('memory_used'))}/{gigabytes(gpu.get('memory_total'))}G"
        shown = "?" if share is None else f"{share * 100:.0f}%"
        lines.append(_meter(f"GPU{index}", share, f"{shown} {memory}", width))
        rest = [
            f"{gpu[key]:.0f}{unit}"
            for key, unit in (("temperature", "C"), ("power", "W"))
            if real(gpu.get(key)) is not None
        ]
        reasons = {why(value) for value in gpu.values()} - {""}
        detail = " ".join([clip(gpu.get("name", ""), max(4, width - 18)), *rest])
        lines.append(((" " * LABEL, ""), (detail, "dim")))
        for reason in sorted(reasons):
            lines += _why("", reason, width)
    return lines


def speed(status: Record) -> str:
    """Tokens per second, with their unit."""
    value = status.get("tokens_per_second")
    return f"{short(value)} tok/s" if known(value) else NONE


def strip_line(status: Record) -> Line:
    """The machine in one line, for the folded layout."""
    parts: list[str] = []
    gpus = status.get("gpus")
    if why(gpus):
        parts.append("GPU ?")
    elif not gpus:
        parts.append("CPU only")
    else:
        for index, gpu in enumerate(gpus):
            use = real(gpu.get("utilization"))
            shown = "?" if use is None else f"{use:.0f}%"
            memory = f"{gigabytes(gpu.get('memory_used'))}/{gigabytes(gpu.get('memory_total'))}G"
            parts.append(f"GPU{index} {shown} {memory}")
    ram, disk = status.get("ram"), status.get("disk")
    if isinstance(ram, Mapping):
        parts.append(f"RAM {gigabytes(ram.get('used'))}/{gigabytes(ram.get('total'))}G")
    if isinstance(disk, Mapping):
        left = disk.get("snapshots_left")
        room = f", room for {short(left)}" if known(left) else ""
        parts.append(f"disk {size(disk.get('free'))} free{room}")
    parts.append(speed(status))
    return (("   ".join(parts), "dim"),)


class MetersPane(ScrollPane):
    name_of = "meters"
    number = 3

    def body(self, width: int) -> list[Line]:
        status = self.frame.status
        if not status:
            return [(("no figures yet", "dim"),)]
        lines = gpu_lines(status.get("gpus"), width)
        ram = status.get("ram")
        if isinstance(ram, Mapping) and not why(ram):
            text = f"{gigabytes(ram.get('used'))}/{gigabytes(ram.get('total'))}G"
            lines.append(_meter("RAM", _of(ram.get("used"), ram.get("total")), text, width))
            process = ram.get("process")
            if known(process):
                lines.append(((" " * LABEL, ""), (f"this training {size(process)}", "dim")))
        else:
            lines += _why("RAM", why(ram), width)
        cpu = status.get("cpu")
        use = real(cpu.get("utilization")) if isinstance(cpu, Mapping) else None
        if use is not None:
            lines.append(_meter("CPU", use / 100, f"{use:.0f}%", width))
        disk = status.get("disk")
        if isinstance(disk, Mapping) and not why(disk):
            free, total = real(disk.get("free")), real(disk.get("total"))
            used = 1 - free / total if free is not None and total else None
            lines.append(_meter("DISK", used, f"{size(disk.get('free'))} free", width))
            left = disk.get("snapshots_left")
            if known(left):
                lines.append(((" " * LABEL, ""), (f"room for {count(left)} more snapshots", "dim")))
            else:
                lines += _why("", why(left), width)
        else:
            lines += _why("DISK", why(disk), width)
        lines.append(((f"{'SPEED':{LABEL}}", "dim"), (speed(status), "")))
        monitoring = status.get("monitoring_share")
        if known(monitoring):
            lines.append(((" " * LABEL, ""), (f"watching costs {percent(monitoring)}", "dim")))
        engine = status.get("engine")
        if isinstance(engine, Mapping) and engine:
            since = duration(self.frame.at - (real(engine.get("started")) or self.frame.at))
            text = f"{engine.get('mode')}, pid {engine.get('pid')}, up {since}"
            lines.append(((f"{'RUN':{LABEL}}", "dim"), (text, "dim")))
        return lines
