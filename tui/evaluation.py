"""What the console says of evaluation in a few words: scores of a version, jobs that run, hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tui.figures import count, percent, real, size, why
from tui.frame import Record

OPEN = ("waiting", "shipping", "running")
BEST = "best"
"""The tag that a paired test moves."""


def scores_of(version: Record) -> dict[str, Record]:
    """What a version scored, by set; {} where it was never evaluated."""
    scores: Any = version.get("scores")
    if not isinstance(scores, Mapping) or why(scores):
        return {}
    return {str(name): one for name, one in scores.items() if isinstance(one, Mapping)}


def score_text(score: Record) -> str:
    """ "71% (61-79) of 100": the share right, its 95 % interval, the answers that were judged."""
    if real(score.get("accuracy")) is None:
        return f"? ({why(score.get('accuracy')) or 'no answer was judged'})"
    low, high = (round(100 * (real(score.get(key)) or 0.0)) for key in ("low", "high"))
    told = f"{percent(score.get('accuracy'))} ({low}-{high}) of {count(score.get('n'))}"
    items = real(score.get("items"))
    if items is not None and items > (real(score.get("n")) or 0):
        told += f", {count(items)} asked"
    return told


def share_right(version: Record) -> str:
    """The share right over all sets, each answer once; "" where it was never evaluated."""
    found = scores_of(version).values()
    total = sum(real(one.get("n")) or 0 for one in found)
    right = sum(real(one.get("right")) or 0 for one in found)
    return percent(right / total) if total else ""


def is_best(version: Record) -> bool:
    """Whether it has the tag that a paired test moves."""
    return BEST in (version.get("tags") or ())


def hosts_of(status: Record) -> list[Record]:
    """The hosts that the engine knows, in the order of config.toml."""
    found = status.get("hosts")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def running(status: Record) -> Sequence[Record]:
    """The jobs that hosts have now."""
    evaluation = status.get("evaluation")
    found = evaluation.get("running") if isinstance(evaluation, Mapping) else None
    return [one for one in found or () if isinstance(one, Mapping)]


def far(job: Record) -> str:
    """How far a job is: items answered, or bytes sent; "" where nothing is counted yet."""
    of, sent = real(job.get("of")), real(job.get("sent"))
    items, answered = real(job.get("items")), real(job.get("answered"))
    if str(job.get("state")) == "shipping" and of and sent is not None:
        return f"{size(sent)} of {size(of)} sent"
    if items:
        return f"{count(answered or 0)} of {count(items)}"
    return ""


def doing(status: Record) -> str:
    """The evaluations that are under way, in a line; "" for none."""
    jobs = running(status)
    told = [
        " ".join(filter(None, (f"evaluating {one.get('model')} on {one.get('host')}", far(one))))
        for one in jobs[:2]
    ]
    if len(jobs) > 2:
        told.append(f"and {len(jobs) - 2} more")
    return ", ".join(told)


def doing_on(status: Record, host: Record) -> str:
    """What a host does now, "" for nothing of this home's."""
    for one in running(status):
        if one.get("host") == host.get("name"):
            return " ".join(filter(None, (str(one.get("model")), far(one))))
    return ""


def in_short(status: Record) -> tuple[str, str]:
    """(text, tone) of the hosts for the header; ("", "") where none is known."""
    hosts = [one for one in hosts_of(status) if one.get("name") != "local"]
    if not hosts:
        work = running(status)
        return (f"eval {_share(work[0])}".strip(), "") if work else ("", "")
    if len(hosts) == 1:
        (host,) = hosts
        state = str(host.get("state"))
        work = [one for one in running(status) if one.get("host") == host.get("name")]
        shown = (_share(work[0]) if work else "") or state
        return f"{host.get('name')} {shown}", "warn" if state == "unreachable" else "dim"
    states = [str(one.get("state")) for one in hosts]
    told = [
        f"{states.count(state)} {word}"
        for state, word in (("busy", "busy"), ("idle", "idle"), ("unreachable", "down"))
        if state in states
    ]
    tone = "warn" if "unreachable" in states else "dim"
    return f"hosts {' '.join(told) or len(hosts)}", tone


def _share(job: Record) -> str:
    """How far a job is, in per cent."""
    items, answered = real(job.get("items")), real(job.get("answered"))
    return percent((answered or 0) / items) if items else ""
