"""What the tests of evaluation and hosts in the console share."""

from __future__ import annotations

from typing import Any

from textual.widgets import Static

from tests.test_tui_versions import branched
from tests.tui_pilot import (
    WIDE,
)
from tests.tui_world import World

SIZES = [WIDE, (60, 16)]
"""The pictures have those between."""
BAD = "[red]x[/nope] \x1b]52;c;eA==\x07\x9b31m \u202e"


def foot(pilot: Any) -> str:
    """The last line of the view on top."""
    return " ".join(str(pilot.app.screen.query_one("#foot", Static).render()).split())


def whole(pilot: Any) -> None:
    """The dialog on top lies within the screen, with all that one can press."""
    top = pilot.app.screen
    box = top.query_one("#dialog").region
    assert top.region.contains_region(box)
    for widget in top.query("Button, RadioSet, Input, #title, #foot"):
        assert box.contains_region(widget.region), widget
        assert widget.region.height >= 1, widget


def scored(accuracy: float, n: int = 100, **more: Any) -> dict[str, Any]:
    right = round(accuracy * n)
    return {"right": right, "n": n, "accuracy": accuracy, "low": 0.61, "high": 0.79, **more}


def at_work() -> World:
    """A home with jobs of every kind."""
    world = branched()
    world.hosts = [world.host("titan", "busy", job=2), world.host("atlas")]
    world.job("v001", "done", host="titan", items=40, answered=40)
    world.job("v004", "running", host="titan", items=200, answered=120, priority="high")
    world.job("checkpoint-160", "waiting", reason="checkpoint", priority="low")
    world.job("v002", "failed", host="titan", error=f"not done by its deadline {BAD}")
    return world
