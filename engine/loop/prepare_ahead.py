"""`python -m engine.loop.prepare_ahead`: prepare one queued item, in a process that has no torch.

Reads one JSON object (`Order`) from its input; prints `{"read": bytes, "of": bytes}` now and then,
and last `{"ok", "key", "rows", "packs", "held_out", "report"}`, or `{"unfinished"}` with the reason
(see snapshots.child). A folder that it found in store/prepared has been read to its last byte.
Must never touch the database: whoever started it records what came of it.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.prepare.prepare import PrepareSettings
from engine.training.items import Order, prepare_item
from queue_store.errors import TrainctlError

TELL_SECONDS = 0.25


def dump(order: Order) -> bytes:
    values = asdict(order) | {"home": str(order.home), "model_folder": str(order.model_folder)}
    return json.dumps(values).encode()


def load(raw: bytes) -> Order:
    """The reverse of `dump`."""
    values: dict[str, Any] = json.loads(raw)
    folders = {name: Path(values[name]) for name in ("home", "model_folder")}
    return Order(**{**values, **folders, "settings": PrepareSettings(**values["settings"])})


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
    # Who started this process kills it.
    made = prepare_item(order, _Teller(), cancelled=lambda: False)
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
        answer = carry_out(load(sys.stdin.buffer.read()))
    except (TrainctlError, OSError) as error:
        print(json.dumps({"unfinished": " ".join(str(error).split())}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
