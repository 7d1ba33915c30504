"""What a home in memory answers about the machine, comparisons, copies elsewhere and the trash.
Mixed into tests.tui_world.World."""

from __future__ import annotations

from typing import Any

from tests.tui_world_base import WorldState, unknown


class CopyAnswers(WorldState):
    """In the shapes of engine.machine.meters, engine.reading.comparing and snapshots.trash."""

    def do_meters(self) -> dict[str, Any]:
        past = self.past
        cards = len(self.gpus) if isinstance(self.gpus, list) else 0
        return {
            "interval_seconds": 2.0,
            "number": len(past),
            "time": self.now,
            "cpu": past,
            "process_cpu": past,
            "ram": [10.0] * len(past),
            "swap": [0.0] * len(past),
            "process_memory": [912e6] * len(past),
            "written_per_second": past,
            "gpus": [
                {key: past for key in ("utilization", "memory", "temperature", "power")}
                for _ in range(cards)
            ],
        }

    def do_compare(self, first: str, second: str | None = None) -> dict[str, Any]:
        def side(name: str | None) -> dict[str, Any]:
            if name is None:
                now = {"name": "head", "branch": self.branch, "step": self.step, "created": 0.0}
                now |= {"loss": self.loss[-1], "val_loss": unknown("no validation yet")}
                return {**now, "scores": {}, "size_bytes": 12_400_000, "scope": "whole"}
            keys = ("name", "branch", "step", "created", "loss", "val_loss", "scores")
            found = self._version(name)
            return {key: found[key] for key in (*keys, "size_bytes", "scope")}

        a, b = side(first), side(second)
        ours = self._version(first)["samples"]
        theirs = self.tally() if second is None else self._version(second)["samples"]
        both = isinstance(ours.get("total"), int) and isinstance(theirs.get("total"), int)
        example = {"example": "e1", "set": "syllo", "position": 1, "prompt": "Clue 2: glass"}
        return {
            "a": a,
            "b": b,
            "same_weights": first == second,
            "fork": {"branch": 1, "step": min(a["step"], b["step"]), "checkpoint": "checkpoint-0"},
            "steps": {"a": 0, "b": b["step"] - a["step"]},
            "items": [{"id": 1, "name": self.items[0]["name"], "fork": 8, "a": 8, "b": 48}],
            "settings": [{"key": "training.learning_rate", "a": 2e-4, "b": 1e-4}],
            "files": [
                {"name": "config.json", "state": "equal", "a": 700, "b": 700},
                {"name": "model.safetensors", "state": "differs", "a": 12_000_000, "b": 12_000_000},
            ],
            "samples": {
                "a": ours,
                "b": theirs,
                "both": 3,
                "none": 1,
                "gained": [example],
                "lost": [{**example, "example": "e4", "prompt": self.hostile or "Clue 5: wall"}],
            }
            if both
            else unknown("no sample tick before it"),
        }

    def do_weights_distance(self, first: str, second: str) -> dict[str, Any]:
        moved = {"name": "model.layers.0.mlp.up_proj.weight", "relative": 0.0123}
        return {"same": False, "equal": 3, "tensors": [{**moved, "shape": [4, 4], "dtype": "x"}]}

    def do_backup_targets(self) -> list[dict[str, Any]]:
        return list(self.targets)

    def do_backup(self, target: str, version: str) -> dict[str, Any]:
        (one,) = (t for t in self.targets if t["name"] == target)
        if self.hold is not None:
            done = {"version": version, "copied_bytes": 6_200_000, "size_bytes": 12_400_000}
            one["copying"] = done
            self.hold.wait(120)
            one["copying"] = unknown("nothing is being copied there")
        copied = [] if one["error"] else [version]
        result = {"target": target, "copied": copied, "error": one["error"], "same_disk": False}
        return {"results": [result], "notes": []}

    def do_trash(self) -> list[dict[str, Any]]:
        return list(self.trash)

    def do_trash_restore(self, name: str) -> dict[str, Any]:
        (one,) = (t for t in self.trash if t["name"] == name)
        self.trash.remove(one)
        return {**one, "restored": name}

    def do_trash_empty(self, name: str | None = None) -> list[dict[str, Any]]:
        gone = [t for t in self.trash if name in (None, t["name"])]
        self.trash = [t for t in self.trash if t not in gone]
        return gone

    def throw(self, name: str, kind: str = "version") -> None:
        """Put something into the trash."""
        self.trash.append(
            {
                "name": name,
                "kind": kind,
                "place": name,
                "why": "deleted by hand",
                "size_bytes": 12_400_000,
                "freed_bytes": 4096,
                "deleted": self.now - 3600,
                "expires": self.now + 6 * 86400,
            }
        )

    def target(self, name: str, *, error: str = "") -> None:
        """Configure a backup target."""
        self.targets.append(
            {
                "name": name,
                "place": f"me@{name}:trainctl",
                "when": "version",
                "what": "whole",
                "error": error,
                "copying": unknown("nothing is being copied there"),
            }
        )
