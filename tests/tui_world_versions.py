"""What a home in memory answers about its versions: made, read, gone back to, deleted. Mixed into
tests.tui_world.World."""

from __future__ import annotations

from typing import Any

from queue_store.errors import NotFound, Refused
from tests.tui_world_base import T0, WorldState, unknown


class VersionAnswers(WorldState):
    """In the shapes of engine.reading.views and of the engine's commands on versions."""

    def version(self, description: str, *, pinned: bool = False) -> dict[str, Any]:
        name = f"v{len(self.versions_) + 1:03d}"
        made = {
            "name": name,
            "branch": self.branch,
            "step": self.step,
            "created": self.now,
            "description": description,
            "size_bytes": 12_400_000,
            "verified_at": self.now,
            "state": "verified",
            "kind": "manual",
            "scope": "whole",
            "parent": self.versions_[-1]["name"] if self.versions_ else unknown("the first"),
            "rolled_back": False,
            "deep_verified_at": unknown("never verified deep"),
            "pinned": pinned,
            "tags": [],
            "kept_because": ["latest 2 verified"],
            "loss": self.loss[-1] if self.loss else unknown("no step yet"),
            "val_loss": self.val[max(self.val)] if self.val else unknown("no validation yet"),
            "scores": unknown("never evaluated"),
            "samples": self.tally(),
            "copies": [],
            "weights_digest": "00",
        }
        self.versions_.append(made)
        self.event("version", f"version {name} at step {self.step}: {description}")
        return made

    def do_snapshot_version(self, description: str, weights_only: bool, pin: bool) -> Any:
        return self.version(description, pinned=pin)

    def do_rollback_plan(self, version: str | None = None) -> dict[str, Any]:
        name = version or self.versions_[-1]["name"]
        to = next(v for v in self.versions_ if v["name"] == name)
        return {
            "version": name,
            "branch": to["branch"],
            "step": to["step"],
            "created": to["created"],
            "description": to["description"],
            "loss": to["loss"],
            "val_loss": to["val_loss"],
            "scores": to["scores"],
            "samples": to["samples"],
            "now": {
                "branch": self.branch,
                "step": self.step,
                "loss": self.loss[-1],
                "val_loss": self.val[max(self.val)] if self.val else unknown("no validation yet"),
                "samples": self.tally(),
            },
            "steps_lost": self.step - to["step"],
            "hours_lost": (self.step - to["step"]) / 3600,
            "samples_lost": 2,
            "validations_lost": 2,
            "items": [
                {
                    "id": 1,
                    "name": self.items[0]["name"],
                    "becomes": f"goes on from row {to['step']}",
                }
            ],
            "keeps": f"the state at step {self.step} is saved as a version first",
            "plan": self.plan,
        }

    def do_rollback(self, version: str, plan: str) -> dict[str, Any]:
        if plan != self.plan:
            raise Refused(f"the plan for {version} is stale: training has moved on")
        to = next(v for v in self.versions_ if v["name"] == version)
        saved = self.version(f"before going back to {version}")
        fork, tip = to["step"], self.step
        losses = dict(enumerate(self.loss[fork:], fork + 1))
        left = {"branch": self.branch, "name": saved["name"], "fork": fork, "tip": tip}
        self.left_.insert(0, {**left, "losses": losses})
        why = f"rolled back to {version} (step {fork})"
        self.marks_ = [mark for mark in self.marks_ if mark["step"] <= fork]
        self.marks_.append({"kind": "rollback", "step": fork, "name": "", "text": why})
        self.step = to["step"]
        self.branch += 1
        del self.loss[self.step :]
        self.val = {step: value for step, value in self.val.items() if step <= self.step}
        self.answers = {step: value for step, value in self.answers.items() if step <= self.step}
        return {"version": saved["name"], "branch": self.branch, "step": self.step}

    def do_pin(self, version: str, pinned: bool) -> dict[str, Any]:
        next(v for v in self.versions_ if v["name"] == version)["pinned"] = pinned
        self.event("pin", f"{version} pinned {pinned}")
        return {}

    def do_tag(self, version: str, name: str, on: bool) -> dict[str, Any]:
        tags = self._version(version)["tags"]
        if on:
            tags.append(name)
        else:
            tags.remove(name)
        self.event("tag", f"{version} {name} {on}")
        return {}

    def do_describe(self, version: str, text: str) -> dict[str, Any]:
        self._version(version)["description"] = text
        self.event("describe", f"{version} {text}")
        return {}

    def do_verify(self, version: str, deep: bool = False) -> dict[str, Any]:
        found = self._version(version)
        if self.hold is not None:
            self.reading = [{"version": version, "read_bytes": 3_100_000, "size_bytes": 12_400_000}]
            self.hold.wait(120)
            self.reading = []
        ok = found["state"] != "corrupt"
        return {"name": version, "ok": ok, "problem": "" if ok else f"{version} is damaged"}

    def do_verifying(self) -> list[dict[str, Any]]:
        return list(self.reading)

    def do_version(self, version: str) -> dict[str, Any]:
        found = self._version(version)
        names = [v["name"] for v in self.versions_]
        return {
            **found,
            "checkpoint_name": "checkpoint-120-20260528-2029",
            "line": names[: names.index(version) + 1],
            "files": [
                {
                    "name": "model.safetensors",
                    "size_bytes": 12_000_000,
                    "blake3": "ab" * 32,
                    "links": 2,
                    "shared_with": ["checkpoint-120-20260528-2029"],
                },
                {
                    "name": "version.json",
                    "size_bytes": 500,
                    "blake3": "cd" * 32,
                    "links": 1,
                    "shared_with": [],
                },
            ],
            "own_bytes": 4096,
            "shared_bytes": 12_000_000,
            "items": [{"id": 1, "name": self.items[0]["name"], "rows": 960, "whole": False}],
        }

    def do_removal_plan(self, version: str) -> dict[str, Any]:
        return {
            "version": version,
            "size_bytes": 12_400_000,
            "freed_bytes": 4096,
            "shares": ["checkpoint-120-20260528-2029"],
            "copies": [],
            "goes": [f"{version}: step {self._version(version)['step']}"],
            "refused": "",
            **self.plans.get(version, {}),
        }

    def do_delete(self, version: str, confirm: str) -> dict[str, Any]:
        if confirm != version:
            raise Refused(f"{confirm} is not {version}")
        self.versions_.remove(self._version(version))
        self.event("delete", f"{version} deleted")
        return {"version": version, "freed_bytes": 4096}

    def _version(self, name: str) -> dict[str, Any]:
        for version in self.versions_:
            if version["name"] == name:
                return version
        raise NotFound(f"no version {name}")

    def versions(self) -> list[dict[str, Any]]:
        return [dict(version) for version in self.versions_]

    def checkpoints(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "branch": 1,
                "step": step,
                "size_bytes": 12_400_000,
                "created": T0,
                "loss": 0.5,
                "val_loss": unknown("no validation before it"),
                "complete": True,
            }
            for name, step in (("checkpoint-0", 0), ("checkpoint-100", 100))
        ]
