"""Rules over what was judged: pure functions of the verdict on the newest judged model of the line
(engine.judging.verdicts). They stand until a later model is judged, or the best version changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.hints.hint import Hint


def canary(verdict: Mapping[str, Any] | None) -> Hint | None:
    """The evaluation itself looks broken."""
    if verdict is None or not verdict["canary"]:
        return None
    return Hint(
        "canary",
        f"{verdict['model']}: {verdict['canary']}",
        {
            "right": verdict["right"],
            "answers": verdict["n"],
            "train_loss_nats": round(float(verdict["train_loss"]), 4),
            "step": verdict["step"],
        },
        "read some answers (trainctl samples); compare the template, [data] profile, thinking and"
        " system_prompt, and [samples] max_tokens with how the rows train (trainctl show ID)",
        since_step=verdict["step"],
        since_time=verdict["time"],
    )


def regression(verdict: Mapping[str, Any] | None, best: str) -> Hint | None:
    """A model is worse than the best version; `best` is who that is now ("base" for none): what
    was compared with another one says nothing any more."""
    if verdict is None or not verdict["regressions"] or verdict["against"] != best:
        return None
    worst = verdict["regressions"][0]
    return Hint(
        "regression",
        worst["text"],
        {
            "items": worst["n"],
            "gained": worst["gained"],
            "lost": worst["lost"],
            "p": round(worst["p"], 6),
            "parts": len(verdict["regressions"]),
            "step": verdict["step"],
            "best": best,
        },
        f"trainctl compare {best} {verdict['model']} shows the items; what trained in between:"
        f" trainctl report --learning; R (trainctl rollback {best}) goes back to it",
        since_step=verdict["step"],
        since_time=verdict["time"],
    )
