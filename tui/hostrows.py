"""The evaluation hosts in the meters: their cards and memory, and why one cannot be reached; folded
where there are many, or little room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tui.evaluation import doing_on, hosts_of
from tui.figures import age, gigabytes, real, size
from tui.frame import Record
from tui.levels import GPU_DEGREES, GPU_MEMORY, TONES, level, share
from tui.meterrows import FULL, LABEL, NOTES, TIGHT, note
from tui.safe import Line, Span, clip, pad, wrap

FEW = 3
"""Hosts up to which each has lines of its own where there is room."""
MOST = 12
"""Hosts that are named at all: the hosts dialog has the rest."""
STATES = (("busy", "busy"), ("idle", "idle"), ("unreachable", "unreachable"), ("unknown", "?"))


def host_rows(status: Record, now: float, width: int, detail: int) -> list[Line]:
    """The hosts of an engine's status, in as much detail as asked for (see meterrows.FULL)."""
    hosts = [host for host in hosts_of(status) if host.get("name") != "local" or host.get("error")]
    if not hosts:
        return []
    if detail == TIGHT:
        return [_together(hosts, width)]
    lines: list[Line] = []
    for host in hosts[:MOST]:
        lines.append(_host(status, host, now, width))
        if host.get("error") and detail >= NOTES:
            parts = wrap(str(host.get("error")), max(8, width - LABEL))
            lines += [note(part, "warn") for part in parts[:3]]
        elif detail == FULL and len(hosts) <= FEW:
            lines += _details(host, width)
    if len(hosts) > MOST:
        lines.append(note(f"and {len(hosts) - MOST} more hosts"))
    return lines


def _together(hosts: Sequence[Record], width: int) -> Line:
    """All of them in a line, with the first error."""
    states = [str(host.get("state")) for host in hosts]
    told = [f"{states.count(state)} {word}" for state, word in STATES if state in states]
    bad = next((host for host in hosts if host.get("state") == "unreachable"), None)
    text = ", ".join(told)
    if bad is not None:
        text += f": {bad.get('name')} {bad.get('error')}"
    return ((f"{'HOSTS':{LABEL}}", "dim"), (clip(text, width - LABEL), "warn" if bad else ""))


def _host(status: Record, host: Record, now: float, width: int) -> Line:
    """One host in a line: name, state, its cards; what it does, where there is room."""
    state = str(host.get("state"))
    name = pad(host.get("name"), max(LABEL - 1, min(12, width // 5))) + " "
    tone = {"unreachable": "warn", "busy": "good"}.get(state, "")
    spans: list[Span] = [(name, "dim"), (state, tone)]
    cards = host.get("gpus")
    for card in cards if isinstance(cards, list) and state != "unreachable" else ():
        spans += [("  ", ""), *_card(card)]
    about = doing_on(status, host)
    if state == "unreachable" and real(host.get("seen")) is not None:
        about = f"since {age(now, host.get('seen'))}"
    elif state == "unreachable":
        about = clip(host.get("error"), width)
    if about:
        spans.append((f"  {about}", "dim"))
    return tuple(spans)


def _card(card: Any) -> Iterator[Span]:
    """Utilisation, memory and heat of a card, marked where it warns."""
    if not isinstance(card, Mapping):
        return
    use, degrees = real(card.get("utilization")), real(card.get("temperature"))
    used, total = card.get("memory_used"), card.get("memory_total")
    yield ("?% " if use is None else f"{use:.0f}% ", "")
    mark = level(share(used, total), GPU_MEMORY)
    yield (f"{gigabytes(used)}/{gigabytes(total)}G{mark}", TONES[mark] if mark else "")
    if degrees is not None:
        mark = level(degrees, GPU_DEGREES)
        yield (f" {degrees:.0f}C{mark}", TONES[mark] if mark else "")


def _details(host: Record, width: int) -> Iterator[Line]:
    """The names of its cards, and its memory."""
    cards, ram = host.get("gpus"), host.get("ram")
    names = [str(card.get("name", "?")) for card in cards] if isinstance(cards, list) else []
    if isinstance(ram, Mapping) and real(ram.get("total")):
        names.append(f"RAM {size(ram.get('used'))} of {size(ram.get('total'))}")
    if names:
        yield note(clip(", ".join(names), width - LABEL))
