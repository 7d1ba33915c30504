"""What the curves say of a line of training: over- or under-fitting, a plateau, the best step.

Pure arithmetic over points of one line (no step taken back). Every verdict names the numbers it
rests on; where there are too few the verdict is unknown. A change counts where it is above the
noise, which is measured on the curve itself, and above 1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from evaluation.rates import rate, wilson

Json = dict[str, Any]
FEWEST = 5
"""Validations below which nothing is said of a curve."""

CHANGE = 0.01
"""The share of a loss below which a change is none."""

SIGMAS = 3
"""Standard deviations of a difference above which it is no noise."""

CLOSE = 0.05
"""Training and validation loss are close where they differ by less than this share."""

LOW = 0.5
"""Held-out accuracy that is low, where the curve has ended all the same."""

MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True)
class Point:
    """A loss (nats a token) at a global step."""

    step: int
    loss: float


@dataclass(frozen=True)
class Held:
    """Held-out accuracy at a global step: `right` of `n` items."""

    step: int
    right: int
    n: int


def noise(losses: Sequence[float]) -> float:
    """The standard deviation of a point around its curve, from the differences of neighbours:
    their median, so that the fall itself and a few spikes hardly count."""
    steps = [b - a for a, b in pairwise(losses)]
    if len(steps) < 2:
        return 0.0
    middle = median(steps)
    return MAD_TO_SIGMA * median(abs(step - middle) for step in steps) / 2**0.5


def learning(train: Sequence[Point], val: Sequence[Point], held: Sequence[Held] = ()) -> Json:
    """{verdict, text, best, gap, trend, accuracy}: what the curves of a line say at its end.

    verdict: overfitting (the validation loss has risen since its best, while training's fell),
    learning (it still falls), underfitting (it no longer falls, stands close to training's, and
    held-out accuracy is low), plateau (it no longer falls), unknown. `best` {step, val_loss} is
    its lowest point, `gap` {train, val, share} at the end, `trend` the share by which it changed
    over the last quarter, `accuracy` {step, right, n, low, high, best_step} where it is known.
    Points in the order of their steps.
    """
    accuracy = _accuracy(held)
    few = {"unknown": f"{len(val)} validations so far, {FEWEST} are needed"}
    if len(val) < FEWEST:
        said = {"verdict": "unknown", "text": few["unknown"], "best": few, "gap": few, "trend": few}
        return {**said, "accuracy": accuracy}
    best = min(val, key=lambda point: point.loss)
    losses = [point.loss for point in val]
    last = _tail(losses)
    before = losses[: len(losses) - len(last)]
    end, prior = fmean(last), fmean(before[-len(last) :])
    # Means of as many points are compared: the lowest single one is low by luck, too.
    width = len(last)
    valley = min(fmean(losses[k : k + width]) for k in range(len(losses) - width + 1))
    margin = max(SIGMAS * noise(losses) * (2 / width) ** 0.5, CHANGE * best.loss)
    trend = (end - prior) / prior if prior else 0.0
    gap = _gap(train, end, val[-len(last)].step)
    verdict, text = _verdict(
        best=best,
        end=end,
        rising=min(last) > best.loss and end - valley > margin,
        falling=prior - end > margin,
        train_fell=_fell(train, best.step),
        gap=gap,
        accuracy=accuracy,
        trend=trend,
    )
    return {
        "verdict": verdict,
        "text": text,
        "best": {"step": best.step, "val_loss": best.loss},
        "gap": gap,
        "trend": trend,
        "accuracy": accuracy,
    }


def _tail(losses: Sequence[float]) -> Sequence[float]:
    """The last quarter, of two points at least."""
    return losses[-max(2, len(losses) // 4) :]


def _verdict(
    *,
    best: Point,
    end: float,
    rising: bool,
    falling: bool,
    train_fell: bool | None,
    gap: Json,
    accuracy: Json,
    trend: float,
) -> tuple[str, str]:
    since = f"the validation loss was lowest at step {best.step} ({best.loss:.4g})"
    if rising and train_fell is not False:
        train = "" if train_fell is None else " while the training loss fell"
        return "overfitting", f"overfitting: {since} and has risen to {end:.4g}{train}"
    if rising:
        return (
            "unknown",
            f"{since} and has risen to {end:.4g}, and so has the training loss: look at the"
            " learning rate and at the files since then",
        )
    if falling:
        return (
            "learning",
            f"still learning: the validation loss fell by {-100 * trend:.1f} % over the last"
            " quarter; more training may help",
        )
    low = "unknown" not in accuracy and accuracy["high"] < LOW
    if low and "unknown" not in gap and gap["share"] < CLOSE:
        return (
            "underfitting",
            f"underfitting: the validation loss stands at {end:.4g}, close to the training loss"
            f" ({gap['train']:.4g}), and {accuracy['right']} of {accuracy['n']} held-out answers"
            " are right: a higher rate, more data or a larger model, not more of the same",
        )
    return "plateau", f"plateau: {since}, and over the last quarter it changed by {trend:+.1%}"


def _gap(train: Sequence[Point], val: float, since: int) -> Json:
    """Training's mean loss over the same last steps, and how far validation stands above it."""
    recent = [point.loss for point in train if point.step >= since] or [
        point.loss for point in train[-1:]
    ]
    if not recent:
        return {"unknown": "no training loss of this line is known"}
    mean = fmean(recent)
    return {"train": mean, "val": val, "share": (val - mean) / val if val else 0.0}


def _fell(train: Sequence[Point], since: int) -> bool | None:
    """Whether the training loss is lower at the end than around a step; None: not known."""
    at = [point.loss for point in train if point.step <= since]
    after = [point.loss for point in train if point.step > since]
    if not at or not after:
        return None
    window = max(1, min(len(at), len(after)) // 2)
    return fmean(after[-window:]) < fmean(at[-window:])


def _accuracy(held: Sequence[Held]) -> Json:
    """The last accuracy with its interval, and the earliest step whose accuracy is not below the
    best by more than the intervals allow: later ones have not been shown to be better."""
    known = [point for point in held if point.n]
    if not known:
        return {"unknown": "no held-out answers on this line"}
    top = max(known, key=lambda point: point.right / point.n)
    floor = wilson(top.right, top.n)[0]
    best = next(point for point in known if wilson(point.right, point.n)[1] >= floor)
    last = known[-1]
    told = rate(last.right, last.n)
    return {
        **asdict(last),
        **{"low": told["low"], "high": told["high"]},
        **{"best_step": top.step, "as_good_from": best.step},
    }


@dataclass(frozen=True)
class Span:
    """The steps, both ends included, in which an item trained on a line."""

    item: int
    name: str
    first: int
    last: int


def effects(val: Sequence[Point], spans: Sequence[Span]) -> list[Json]:
    """What each file did to the validation loss: [{item, name, before, after, change, clear}], in
    the order of training. `before` is the last validation before its first step, `after` the
    first one from its last step on; `clear` where the change is above the noise of such a
    difference. Unknown where there is no such validation, or where another item trained between
    the two: then the change is not its own."""
    sigma = noise([point.loss for point in val]) * 2**0.5
    told = []
    for span in sorted(spans, key=lambda one: (one.first, one.last)):
        before = next((p for p in reversed(val) if p.step < span.first), None)
        after = next((p for p in val if p.step >= span.last), None)
        row: Json = {"item": span.item, "name": span.name}
        if before is None or after is None:
            why = f"no validation {'before' if before is None else 'after'} it"
            told.append({**row, "change": {"unknown": why}})
            continue
        others = [
            other.name
            for other in spans
            if other is not span and other.last > before.step and other.first <= after.step
        ]
        if others:
            why = f"{others[0]} trained between the two validations"
            told.append({**row, "change": {"unknown": why}})
            continue
        change = after.loss - before.loss
        told.append(
            {
                **row,
                **{"before": asdict(before), "after": asdict(after), "change": change},
                "clear": abs(change) > SIGMAS * sigma,
            }
        )
    return told
