"""Rules over the losses: pure functions of the last steps and validations.

Each takes what stands (`held`, the rule's hint of the look before, or None) and says what stands
now. A hint that stands has an easier test to pass than one that comes: so it does not flap.
Losses are in nats a token; a step whose loss is no number is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.hints.hint import Hint
from engine.hints.robust import change, drawn_in, median, spread

SURE = 3.0
"""Standard errors that a change must exceed: by chance that is once in several hundred looks, and
the limits beside it (a share of the loss) make it rarer still."""
KEEPS = 0.5
"""What stands goes on standing down to this share of the limits that raised it."""

GAP_TICKS = 20
"""Validations over which the gap is looked at: with eval_steps = 50, the last 1,000 steps."""
GAP_LEAST = 6
"""Fewer say nothing: a line through five points fits almost anything."""
GAP_SHARE, GAP_NATS = 0.1, 0.02
"""The gap must have grown by, and be, at least a tenth of the validation loss and 0.02 nats: less
is what one more validation takes back."""
GAP_FLAT_SHARE = 0.25
"""Where validation loss only stands, a quarter: training loss that goes on to nought on a file of
one skill opens the gap to sets of several by itself, and no harm is done."""
FALLS_SHARE = 0.02
"""Validation loss that falls by more than this over the window still learns, whatever the gap."""
RISES_SHARE = 0.05
"""Validation loss rises when it does by so much. It must where the window spans several files:
their training losses are not comparable, so the gap alone says little."""

PLATEAU_LEAST, PLATEAU_STEPS = 500, 2000
"""Steps over which a plateau is judged: below 500 the noise of a batch hides any slope."""
PLATEAU_SHARE = 0.03
"""A change that is surely below 3 per cent of the loss in up to 2,000 steps is worth a word."""
PLATEAU_NATS = 0.02
"""A loss below this has nothing left to fall to: the data are learned."""

SPIKE_BEFORE, SPIKE_LEAST = 200, 50
"""Steps of the same item that tell what is usual, and how many are needed."""
SPIKE_LOOK = 50
"""A spike is news for so many steps."""
SPIKE_OLD = 500
"""After so many steps a level that stayed is the usual one."""
RUN, RUN_SPREADS, RUN_SHARE, RUN_NATS = 5, 6.0, 0.25, 0.1
"""What persists: five steps in a row, their median six spreads, a quarter and 0.1 nats above."""
LARGE_SPREADS, LARGE_TIMES, LARGE_NATS = 12.0, 2.0, 0.5
"""A single step: twelve spreads and 0.5 nats above the median, and twice the highest before, for
batches of few rows have long tails."""

PATIENCE_STEPS, MIN_DELTA = 500, 0.01
"""Early stopping as T24 has it: steps to wait for a validation that is better by so many nats."""
PATIENCE_TICKS = 3
"""And at least so many validations, where eval_steps is large."""


@dataclass(frozen=True)
class Step:
    """An optimizer step: its item and its training loss, a finite number."""

    step: int
    item: int
    loss: float


@dataclass(frozen=True)
class Tick:
    """A validation, and the mean training loss of the steps just before it (None: not known)."""

    step: int
    item: int
    val: float
    train: float | None


# -- the gap between validation and training loss ------------------------------------------------


def gap_grows(ticks: Sequence[Tick], held: Hint | None = None) -> Hint | None:
    """Validation loss no longer follows training loss. Judged over the validations of the item in
    training where there are enough of them, else over those of several files: then validation loss
    itself must have risen."""
    pairs = [tick for tick in ticks if tick.train is not None][-GAP_TICKS:]
    if not pairs:
        return None
    own = [tick for tick in pairs if tick.item == pairs[-1].item]
    return _gap(own, held, rises=False) or _gap(pairs, held, rises=True)


def _gap(pairs: Sequence[Tick], held: Hint | None, *, rises: bool) -> Hint | None:
    if len(pairs) < GAP_LEAST:
        return None
    ease = KEEPS if held else 1.0
    steps = [tick.step for tick in pairs]
    vals = [tick.val for tick in pairs]
    gaps = [tick.val - (tick.train or 0.0) for tick in pairs]
    now, gap = median(vals[-3:]), median(gaps[-3:])
    moved, moved_error = change(steps, vals)
    rising = moved > max(SURE * ease * moved_error, ease * RISES_SHARE * now)
    if moved < -FALLS_SHARE * now or (rises and not rising):
        return None
    limit = ease * max(GAP_NATS, (GAP_SHARE if rising else GAP_FLAT_SHARE) * now)
    growth, error = change(steps, gaps)
    if growth <= SURE * ease * error or growth < limit or gap < limit:
        return None
    best = min(pairs, key=lambda tick: tick.val)
    what = "rises" if median(vals[-3:]) > best.val * (1 + FALLS_SHARE) else "does not follow"
    return Hint(
        "gap_grows",
        f"validation loss {what} since step {best.step}: {now:.3f}, best {best.val:.3f},"
        f" gap to training {gap:.3f}, grown by {growth:.3f}",
        {
            "gap_nats": round(gap, 4),
            "growth_nats": round(growth, 4),
            "growth_error_nats": round(error, 4),
            "val_loss_nats": round(now, 4),
            "best_val_loss_nats": round(best.val, 4),
            "best_step": best.step,
            "train_loss_nats": round(now - gap, 4),
            "validations": len(pairs),
        },
        "it learns by heart: end the item and keep what it taught (k, trainctl skip), go back to a"
        " version near the best step (R, trainctl rollback), or add other data (a); fewer"
        " training.epochs for the next files",
        since_step=best.step,
    )


# -- a loss that stays where it is ---------------------------------------------------------------


def plateau(
    steps: Sequence[Step], ticks: Sequence[Tick] = (), held: Hint | None = None
) -> Hint | None:
    """Training loss surely moves by next to nothing, and validation loss does not fall either."""
    window = list(steps)[-PLATEAU_STEPS:]
    if len(window) < PLATEAU_LEAST:
        return None
    losses = drawn_in([one.loss for one in window])
    level = median(losses)
    if level < PLATEAU_NATS:
        return None
    moved, error = change([one.step for one in window], losses)
    bound = abs(moved) + 2 * error
    if bound >= PLATEAU_SHARE / (KEEPS if held else 1.0) * level:
        return None
    vals = [tick for tick in ticks if tick.step >= window[0].step]
    if len(vals) >= GAP_LEAST:
        fell, unsure = change([t.step for t in vals], [t.val for t in vals])
        if fell < -max(2 * unsure, FALLS_SHARE * vals[-1].val):
            return None
    reach = window[-1].step - window[0].step + 1
    return Hint(
        "plateau",
        f"training loss stands at {level:.3f}: {100 * moved / level:+.1f} % (± "
        f"{200 * error / level:.1f} %) in {reach} steps",
        {
            "loss_nats": round(level, 4),
            "change_nats": round(moved, 5),
            "change_error_nats": round(error, 5),
            "steps": reach,
            "first_step": window[0].step,
        },
        "more of the same data will hardly change it: other data (a), another"
        " training.learning_rate for the next item, or end here (trainctl drain)",
        since_step=window[0].step,
    )


# -- a jump --------------------------------------------------------------------------------------


def spike(
    steps: Sequence[Step], held: Hint | None = None, names: Mapping[int, str] | None = None
) -> Hint | None:
    """The loss left its band: by far at one step, or for several. Only within one item, since
    another file has another loss."""
    if not steps:
        return None
    last = steps[-1]
    own = list(steps)
    while own and own[0].item != last.item:
        del own[: 1 + max(n for n, one in enumerate(own) if one.item != last.item)]
    if held is not None:
        return _still(own, held)
    for at in range(max(SPIKE_LEAST, len(own) - SPIKE_LOOK), len(own)):
        before = [one.loss for one in own[max(0, at - SPIKE_BEFORE) : at]]
        found = _jump(before, [one.loss for one in own[at : at + RUN]])
        if found:
            name = (names or {}).get(last.item, "")
            return _spiked(own[at], found[0], found[1], f"item {last.item} {name}".strip())
    return None


def _jump(before: Sequence[float], run: Sequence[float]) -> tuple[float, float] | None:
    """(median, spread) of what was usual before, where the steps of `run` leave it."""
    if run[0] <= (usual := median(before)) + RUN_NATS:
        return None
    width = spread(before)
    if run[0] - usual > max(LARGE_NATS, LARGE_SPREADS * width) and run[0] > LARGE_TIMES * max(
        before
    ):
        return usual, width
    high = sorted(before)[int(0.95 * len(before))]
    if len(run) == RUN and min(run) > high:
        over = median(run) - usual
        if over > max(RUN_NATS, RUN_SPREADS * width, RUN_SHARE * usual):
            return usual, width
    return None


def _spiked(at: Step, usual: float, width: float, item: str) -> Hint:
    return Hint(
        "spike",
        f"loss jumped to {at.loss:.3f} at step {at.step}, from about {usual:.3f}, in {item}",
        {
            "step": at.step,
            "item": at.item,
            "loss_nats": round(at.loss, 4),
            "usual_nats": round(usual, 4),
            "spread_nats": round(width, 5),
            "times_usual": round(at.loss / max(usual, 1e-9), 2),
        },
        f"look at the rows of that step (t in the queue, trainctl show {at.item}); if it stays"
        " high, go back to a version before it (R, trainctl rollback) and lower"
        " training.learning_rate",
        since_step=at.step,
    )


def _still(own: Sequence[Step], held: Hint) -> Hint | None:
    """The spike that stands, until the loss is back or it is the usual one by now."""
    at, item = int(held.figures["step"]), held.figures["item"]
    usual, width = float(held.figures["usual_nats"]), float(held.figures["spread_nats"])
    since = own[-1].step - at
    if own[-1].item != item or since < 0 or since > SPIKE_OLD:
        return None
    now = median([one.loss for one in own[-2 * RUN :]])
    back = now < usual + KEEPS * max(RUN_NATS, RUN_SPREADS * width)
    return None if back and since >= SPIKE_LOOK else held


# -- early stopping ------------------------------------------------------------------------------


def early_stop(ticks: Sequence[Tick]) -> Hint | None:
    """No better validation for PATIENCE_STEPS: over with the next better one, so never flapping."""
    if len(ticks) <= PATIENCE_TICKS:
        return None
    best, tries = ticks[0], 0
    for tick in ticks[1:]:
        best, tries = (tick, 0) if tick.val < best.val - MIN_DELTA else (best, tries + 1)
    last = ticks[-1]
    waited = last.step - best.step
    if waited < PATIENCE_STEPS or tries < PATIENCE_TICKS:
        return None
    return Hint(
        "early_stop",
        f"no better validation loss for {waited} steps: {best.val:.3f} at step {best.step},"
        f" {last.val:.3f} now",
        {
            "steps_waited": waited,
            "patience_steps": PATIENCE_STEPS,
            "min_delta_nats": MIN_DELTA,
            "best_val_loss_nats": round(best.val, 4),
            "best_step": best.step,
            "val_loss_nats": round(last.val, 4),
            "validations_since": tries,
        },
        "end here (trainctl drain), or end the item (k, trainctl skip); the best checkpoint stays"
        " (snapshots.keep_best), R goes back to a version",
        since_step=best.step,
    )
