"""`python -m engine.prepare_ahead`: prepare one queued item, in a process that has no torch.

Reads one JSON object (`Order`) from its input; prints `{"read": bytes, "of": bytes}` now and then,
and last `{"ok", "key", "rows", "packs", "held_out", "report"}`, or `{"unfinished"}` with the reason
(see snapshots.child). A folder that it found in store/prepared has been read to its last byte.
Must never touch the database: whoever started it records what came of it.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.prepare.prepare import PrepareSettings, prepare
from queue_store.errors import TrainctlError
from queue_store.heldout import held_out
from queue_store.home import Home

TELL_SECONDS = 0.25


@dataclass(frozen=True)
class Order:
    """What to prepare, and with what: the arguments of `prepare` that the item decides."""

    home: Path
    file: str
    name: str
    digest: str
    model_folder: Path
    settings: PrepareSettings

    def dump(self) -> bytes:
        values = asdict(self) | {"home": str(self.home), "model_folder": str(self.model_folder)}
        return json.dumps(values).encode()

    @staticmethod
    def load(raw: bytes) -> Order:
        values: dict[str, Any] = json.loads(raw)
        return Order(
            **{
                **values,
                "home": Path(values["home"]),
                "model_folder": Path(values["model_folder"]),
                "settings": PrepareSettings(**values["settings"]),
            }
        )


class _Teller:
    """Tells how many bytes of the file are done, a few times a second."""

    def __init__(self) -> None:
        self._told_at = 0.0

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            print(json.dumps({"read": done, "of": total}), flush=True)


def carry_out(order: Order) -> dict[str, Any]:
    """Prepare. Raises TrainctlError, OSError."""
    home = Home(order.home)
    held = held_out(home)
    made = prepare(
        home.items / order.file,
        model_folder=order.model_folder,
        settings=order.settings,
        held_out=held.digests,
        near=held,
        root=home.prepared,
        progress=_Teller(),
        cancelled=lambda: False,  # who started it kills it
        called=order.name,
        accepted=order.digest,
    )
    return {
        "ok": True,
        "key": made.key,
        "rows": made.rows,
        "packs": made.packs,
        "held_out": len(made.held_out),
        "report": made.report,
    }


def main() -> int:
    try:
        answer = carry_out(Order.load(sys.stdin.buffer.read()))
    except (TrainctlError, OSError) as error:
        print(json.dumps({"unfinished": " ".join(str(error).split())}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
