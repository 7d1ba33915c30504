"""Words that every kind of backup target shares: names at the target, and how one is down."""

from __future__ import annotations

from queue_store.errors import TrainctlError

MARKER = "trainctl-target.json"
PART = ".part-"
TRASH = ".trash-"
Sums = dict[str, str]
"""SHA-256 by file name, the manifest's included."""


class TargetDown(TrainctlError):
    """A target that cannot be reached now: a host that is off, a disk that is not mounted."""
