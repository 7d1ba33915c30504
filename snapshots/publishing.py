"""A folder of weights, written whole elsewhere, becomes a version: sealed, named, in the list.

For versions that are made of no checkpoint's files (merged, imported). Under the home's lock.
Must never leave a folder in store/versions whose row could not be written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from queue_store import durable
from queue_store.database import CommitUnknown, State
from snapshots import manifest, versions
from snapshots.checkpoints import made_by
from snapshots.versions import INFO


def publish(state: State, tmp: Path, info: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Make the version `info` (its version.json), not verified yet, of the folder `tmp` under
    store/tmp, whose files are synced and have `digests`.

    Raises OSError; then nothing of it counts, and whoever calls discards `tmp`.
    """
    home, place = state.home, state.home.versions / info["name"]
    durable.write_new(tmp / INFO, json.dumps(info, indent=1, sort_keys=True).encode() + b"\n")
    sealed = manifest.build(
        tmp,
        kind="version",
        id=info["id"],
        made_by=made_by(),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        digests=dict(digests),
        weights=info["weights_digest"],
    )
    durable.write_new(tmp / manifest.MANIFEST, sealed.to_json())
    durable.make_read_only(tmp)
    durable.crash_point("made.sealed")
    durable.publish(tmp, place, synced=[*digests, INFO])
    durable.crash_point("made.published")
    try:
        versions.adopt(state, dict(info), sealed)
    except CommitUnknown:
        raise  # its row may be there: the next start judges
    except BaseException:
        durable.discard(place, home)
        raise
    durable.crash_point("made.committed")
