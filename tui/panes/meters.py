"""Pane 3: the machine. GPUs, memory, processor, disk and this process, now and over the last
minutes; what warns is marked `!` and `!!`, and what is not known says why. Below it the evaluation
hosts, as they told of themselves last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tui.figures import count, duration, known, percent, real, short, size, why
from tui.hostrows import host_rows
from tui.levels import CALM, RAM, SWAP, TONES, disk_level, level, share
from tui.meterrows import (
    FULL,
    NOTES,
    SHORT,
    TIGHT,
    Meter,
    gpu_rows,
    label,
    note,
    reasons,
    row,
    speed,
)
from tui.panes.base import ScrollPane
from tui.safe import Line
from tui.spark import spark
from tui.steady import Steady

POINTS, PART = 2.0, 0.02
"""A share in per cent, and a size, are drawn anew when they are off by more than this."""


class MetersPane(ScrollPane):
    name_of = "meters"
    number = 3

    def __init__(self) -> None:
        super().__init__()
        self._steady = Steady()

    def body(self, width: int) -> list[Line]:
        """As much as there is room for: what does not fit stands below, and in the zoomed pane."""
        if not self.frame.status:
            return [(("no figures yet", "dim"),)]
        height = self.content_size.height
        lines: list[Line] = []
        for detail in (FULL, NOTES, SHORT, TIGHT):
            lines = self._lines(width, detail)
            if len(lines) <= height:
                break
        return lines

    def _lines(self, width: int, detail: int) -> list[Line]:
        def drawn(meter: Meter) -> Line:
            return row(meter, width, self._bars)

        status, past = self.frame.status, self.frame.meters
        lines = gpu_rows(status.get("gpus"), past, width, detail, drawn)
        for name in ("ram", "cpu", "process"):
            part = status.get(name)
            if why(part) and name != "process":
                lines += reasons(name.upper(), why(part), width)
        lines += [drawn(meter) for meter in self._machine()]
        lines += self._disk(width, detail, drawn)
        lines += host_rows(status, self.frame.now, width, detail)
        lines += self._run(detail)
        return lines

    def _bars(self, values: object, width: int, top: float) -> str:
        found = values if isinstance(values, list) else []
        number = int(real(self.frame.meters.get("number")) or 0)
        if len(found) < 2:
            return ""
        return spark(found, number, width, top=top, ascii=self.screen.has_class("-ascii"))

    def _machine(self) -> list[Meter]:
        """RAM, swap where it is used, processor, and this process."""
        status, past = self.frame.status, self.frame.meters
        found: list[Meter] = []
        ram, cpu, process = status.get("ram"), status.get("cpu"), status.get("process")
        if isinstance(ram, Mapping) and not why(ram):
            used = share(ram.get("used"), ram.get("total"))
            mark = level(used, RAM)
            taken = self._steady("ram", real(ram.get("used")), share=PART)
            text = f"{size(taken)} of {size(ram.get('total'))}{mark}"
            found.append(Meter("RAM", used, ((text, _tone(mark)),), past.get("ram"), mark))
            swap = share(ram.get("swap_used"), ram.get("swap_total"))
            if real(ram.get("swap_used")):
                mark = level(swap, SWAP)
                text = f"{size(ram.get('swap_used'))} of {size(ram.get('swap_total'))}{mark}"
                found.append(Meter("SWAP", swap, ((text, _tone(mark)),), past.get("swap"), mark))
        if isinstance(cpu, Mapping) and not why(cpu):
            use = self._steady("cpu", real(cpu.get("utilization")), POINTS)
            cores = f" of {cpu.get('cores')} cores" if known(cpu.get("cores")) else ""
            text = f"{use:.0f}%{cores}" if use is not None else "?"
            busy = None if use is None else use / 100
            found.append(Meter("CPU", busy, ((text, ""),), past.get("cpu")))
        if isinstance(process, Mapping) and not why(process):
            total = real(ram.get("total")) if isinstance(ram, Mapping) else None
            memory = real(process.get("memory"))
            parts = [size(self._steady("memory", memory, share=PART))]
            busy = self._steady("process", real(process.get("cpu")), POINTS)
            if busy is not None:
                parts.append(f"{busy:.0f}%")
            if known(process.get("threads")):
                parts.append(f"{process['threads']} threads")
            of = share(memory, total)
            text = " ".join(parts)
            history = past.get("process_memory")
            found.append(Meter("PROC", of, ((text, "dim"),), history, top=total or 0.0))
        return found

    def _disk(self, width: int, detail: int, drawn: Callable[[Meter], Line]) -> list[Line]:
        disk = self.frame.status.get("disk")
        if not isinstance(disk, Mapping) or why(disk) or why(disk.get("free")):
            of = disk.get("free") if isinstance(disk, Mapping) and not why(disk) else disk
            return reasons("DISK", why(of) or "not measured", width)
        free = share(disk.get("free"), disk.get("total"))
        mark = disk_level(disk)
        left = disk.get("snapshots_left")
        text = f"{size(disk.get('free'))} free{mark}"
        if known(left) and detail < FULL:
            text = f"{size(disk.get('free'))}, fits {_few(left)}{mark}"
        used = None if free is None else 1 - free
        lines = [drawn(Meter("DISK", used, ((text, _tone(mark)),), None, mark))]
        if not known(left) and detail >= NOTES:
            lines += reasons("", why(left), width)
        if detail < FULL:
            return lines
        if known(left):
            more = f"room for {_few(left)} more snapshot{'s' * (left != 1)}"
            lines.append(note(more, _tone(mark) or "dim"))
        process, past = self.frame.status.get("process"), self.frame.meters
        written = process.get("written_per_second") if isinstance(process, Mapping) else None
        written = self._steady("written", real(written), share=10 * PART)
        if written is not None:
            history = past.get("written_per_second")
            known_values = [real(value) or 0.0 for value in history or ()]
            top = max(known_values, default=0.0)
            lines.append(
                drawn(Meter("WRITE", None, ((f"{size(written)}/s", ""),), history, top=top))
            )
        return lines

    def _run(self, detail: int) -> list[Line]:
        status = self.frame.status
        lines: list[Line] = [(label("SPEED"), (speed(status), ""))]
        monitoring = status.get("monitoring_share")
        if known(monitoring) and detail == FULL:
            lines.append(note(f"watching costs {percent(monitoring)} of the time"))
        engine = status.get("engine")
        if isinstance(engine, Mapping) and engine:
            since = duration(self.frame.at - (real(engine.get("started")) or self.frame.at))
            text = f"{engine.get('mode')}, pid {engine.get('pid')}, up {since}"
            lines.append((label("RUN"), (text, "dim")))
        return lines


def _few(left: object) -> str:
    return count(left) if (real(left) or 0) < 100_000 else short(left)


def _tone(mark: str) -> str:
    return "" if mark == CALM else TONES[mark]
