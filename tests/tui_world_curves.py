"""What a home in memory answers about its curves. Mixed into tests.tui_world.World."""

from __future__ import annotations

from typing import Any

from tests.tui_world_base import T0, WorldState, unknown


class CurveAnswers(WorldState):
    """In the shapes of engine.lines and engine.reading.views."""

    def series(
        self,
        metric: str,
        width: int = 1000,
        start: int | None = None,
        end: int | None = None,
        version: str | None = None,
    ) -> dict[str, Any]:
        values: dict[int, float | None] = dict(enumerate(self.loss, 1))
        last = self.step
        if metric == "val_loss":
            values = dict(self.val)
        elif version is not None:
            last = int(self._version(version)["step"])
            for left in self.left_:
                if left["branch"] == self._version(version)["branch"]:
                    values |= left["losses"]
        steps = [step for step in values if step <= last]
        reduced = _reduced(metric, {s: values[s] for s in steps}, width, start, end)
        return {**reduced, "branch": self.branch}

    def left_branches(
        self, metric: str, width: int = 1000, start: int | None = None, end: int | None = None
    ) -> list[dict[str, Any]]:
        return [
            {**_reduced(metric, left["losses"], width, start, end), **left} for left in self.left_
        ]

    def marks(self) -> list[dict[str, Any]]:
        found = [dict(mark) for mark in self.marks_]
        forks = [left["fork"] for left in self.left_]
        for version in self.versions_:
            if version["branch"] == self.branch or version["step"] <= min(forks, default=-1):
                text = f"version {version['name']}: {version['description']}"
                mark = {"kind": "version", "step": version["step"], "name": version["name"]}
                found.append({**mark, "text": text})
        if self.loss and self.items:
            item = self.items[0]
            mark = {"kind": "item", "step": 1, "name": item["name"], "item": item["id"]}
            found.append({**mark, "text": f"{item['name']} begins"})
        return sorted(found, key=lambda mark: int(mark["step"]))

    def step_facts(self, step: int) -> dict[str, Any]:
        at = min(step, self.step)
        if at < 1:
            return unknown("no step before this one")
        ticks = [tick for tick in self.val if tick <= at]
        validation: dict[str, Any] = unknown("no validation before this step")
        if ticks:
            loss = self.val[ticks[-1]]
            validation = {"step": ticks[-1], "loss": loss, "sets": {"syllo": loss}}
        loss_at = self.loss[at - 1]
        return {
            "branch": self.branch,
            "step": at,
            "item": self.items[0]["id"],
            "name": self.items[0]["name"],
            "loss": unknown("not a number") if loss_at is None else loss_at,
            "time": T0 + at,
            "validation": validation,
        }


def _reduced(
    metric: str, values: dict[int, float | None], width: int, start: int | None, end: int | None
) -> dict[str, Any]:
    """As engine.lines.series answers."""
    steps = [s for s in sorted(values) if (start or 0) <= s and (end is None or s <= end)]
    size = max(1, -(-len(steps) // width))
    points: list[list[float | None]] = []
    for at in range(0, len(steps), size):
        chunk = [values[step] for step in steps[at : at + size]]
        numbers = [value for value in chunk if value is not None]
        mean = sum(numbers) / len(numbers) if len(numbers) == len(chunk) else None
        low, high = min(numbers, default=None), max(numbers, default=None)
        points.append([steps[min(at + size, len(steps)) - 1], low, high, mean, chunk[-1]])
    return {"metric": metric, "points": points, "total": len(steps)}
