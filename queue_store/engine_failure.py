"""Why the last engine ended by itself for a reason that a person mends: a model that does not
load, a key that is locked.

The journal has it, and it stays in meta until an engine has loaded its model, or ended as it was
asked to: a headless engine has nobody who reads its log.
"""

from __future__ import annotations

from queue_store import journal
from queue_store.database import State

_KEY = "engine.failure"


def note(state: State, why: str) -> None:
    """The engine ends: `why` is one line with what, where and how to mend."""
    with state.transaction():
        state.meta_set(_KEY, why)
        journal.record(state, "engine.failed", f"the engine ended: {why}")


def newest(state: State) -> str:
    """Why the last engine ended, "" where it did not fail, or another one came that did not."""
    return str(state.meta_get(_KEY) or "")


def forget(state: State) -> None:
    """An engine is ready to train, or ends as it was asked to."""
    if newest(state):
        state.meta_set(_KEY, None)
