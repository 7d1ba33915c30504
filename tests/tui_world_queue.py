"""What a home in memory answers about the queue. Mixed into tests.tui_world.World."""

from __future__ import annotations

import threading
from typing import Any

from queue_store.errors import NotFound, Refused
from queue_store.queue import shifted
from tests.tui_world_base import T0, WorldState, unknown
from tui.frame import in_order


class QueueAnswers(WorldState):
    """In the shapes of engine.reading.views and of the engine's commands on items."""

    def add_item(self, name: str, priority: str, state: str, **more: Any) -> dict[str, Any]:
        number = len(self.items) + 1
        prepared = state not in ("queued", "rejected")
        item = {
            "id": number,
            "name": name,
            "state": state,
            "priority": priority,
            "position": float(number),
            "lines": 2000,
            "accepted": 2000,
            "rejected": [],
            "rows": 1960 if prepared else unknown("not prepared yet"),
            "held_out": 40 if prepared else unknown("not prepared yet"),
            "epochs": 1 if prepared else unknown("not prepared yet"),
            "step": 0,
            "steps": 250 if prepared else unknown("not prepared yet"),
            "cursor": 0,
            "attempts": [],
            "reason": "",
            "error": "",
            "size": 850_000,
            "source": f"inbox/{name}",
            "created": T0,
            "updated": T0 + number,
            **more,
        }
        self.items.append(item)
        return item

    def do_skip(self, item: int, undo: bool, reason: str) -> dict[str, Any]:
        chosen = self._get(item)
        chosen["state"], chosen["reason"] = "skipped", reason
        self.event("skip", f"{chosen['name']} skipped: {reason}")
        return {}

    def do_priority(self, id: int, priority: str) -> dict[str, Any]:
        self._get(id)["priority"] = priority
        self.event("priority", f"{self._get(id)['name']} is {priority}")
        return {}

    def do_shift(self, items: list[int], by: int, among: list[int] | None = None) -> dict[str, Any]:
        first = self._get(items[0])
        same = ("priority", "state")
        peers = [i for i in self.items if all(i[key] == first[key] for key in same)]
        order = sorted(peers, key=lambda i: i["position"])
        before = [i["id"] for i in order]
        places = [i["position"] for i in order]
        after = shifted(before, set(items), by, None if among is None else set(among))
        if after == before:
            edge = "first" if by < 0 else "last"
            shown = "" if among is None else " and what is shown"
            raise Refused(f"{first['name']} is {edge} already, within the priority{shown}")
        for number, place in zip(after, places, strict=True):
            self._get(number)["position"] = place
        self.event("item.moved", f"{first['name']} moved")
        return {"moved": items}

    def do_retry(self, id: int) -> dict[str, Any]:
        self._get(id)["state"] = "queued"
        return self._get(id)

    def do_remove(self, id: int) -> dict[str, Any]:
        item = self._get(id)
        self.items.remove(item)
        self.removed[id] = item
        return item

    def do_unremove(self, id: int) -> dict[str, Any]:
        if id not in self.removed:
            raise NotFound(f"item {id} is not in the trash", mend="trainctl trash lists what is")
        self.items.append(self.removed.pop(id))
        return self.items[-1]

    def do_add(self, path: str, priority: str) -> Any:
        return [self.add_item(path.rsplit("/", 1)[-1], priority, "queued")]

    def _get(self, id: int) -> dict[str, Any]:
        for item in self.items:
            if item["id"] == id:
                return item
        raise NotFound(f"no item {id}")

    def queue_list(self) -> list[dict[str, Any]]:
        """In order, and the same object where nothing changed, as engine.reading.queuelist."""
        fresh = in_order([dict(item) for item in self.items])
        if fresh != self._listed:
            self._listed = fresh
        return self._listed

    def item(self, item: int) -> dict[str, Any]:
        nothing = unknown("no sidecar came with the file")
        lineage = {"generator": nothing, "validators": [], "notes": []}
        return {
            "report": unknown("not prepared yet"),
            "settings": unknown("not prepared yet"),
            "lineage": lineage,
            **self._get(item),
        }

    def file_of(self, item: int) -> str:
        return f"/home/store/items/{self._get(item)['name']}"

    def validate(self, file: str, stop: threading.Event, progress: Any) -> dict[str, Any]:
        """Waits in the middle where a test holds it, as a long validation does."""
        self.log.append(("validate", {"file": file}))
        progress(0, 1000)
        if self.hold is not None:
            progress(400, 1000)
            while not self.hold.wait(0.02):
                if stop.is_set():
                    raise Refused("the validation did not finish: broken off")
        return dict(self.report)
