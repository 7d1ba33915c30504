"""A checkpoint that is written beside training, on one thread, never two at once.

The engine thread captures and drafts; this thread writes, digests, syncs and publishes; the
engine thread registers, at a step boundary, and so alone moves the head. What this thread did
not finish is a leftover in store/tmp, what it did and nobody registered an orphan that recovery
adopts.
Must never touch the live state, the database or the head.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.ranks.held import Written
from engine.training.state import Captured, write_state
from queue_store.errors import Refused
from snapshots.checkpoints import CheckpointWriter, Ledger
from snapshots.manifest import Manifest

log = logging.getLogger("trainctl.engine")
THREAD = "trainctl-save"
PHASE = "saving in the background"


def write(
    writer: CheckpointWriter, draft: Ledger, captured: Captured | Written
) -> tuple[Ledger, Manifest]:
    """The one way from a captured state to a published folder, in line and beside training.
    Raises OSError: then nothing of it is left."""
    try:
        if isinstance(captured, Captured):
            write_state(writer.folder, captured)
        else:
            captured.write(writer.folder)
        return writer.publish(draft)
    except BaseException:
        writer.discard()
        raise


@dataclass(frozen=True)
class Pending:
    """A save that is not registered yet. `number` tells which state of the engine it holds (the
    worker's count of changes); `stall` seconds in which no step was done for it so far."""

    writer: CheckpointWriter
    step: int
    number: int
    stall: float
    written: Future[tuple[Ledger, Manifest]]


class Background:
    """The thread, and what is pending on it. `wake` is called when a write has ended."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=THREAD)
        self._after: Future[object] | None = None
        self.pending: Pending | None = None

    @property
    def busy(self) -> bool:
        """Whether a save is pending or what follows one still runs: no other may begin."""
        return self.pending is not None or (self._after is not None and not self._after.done())

    @property
    def ready(self) -> bool:
        """Whether a write has ended, well or not, and waits for the engine thread."""
        return self.pending is not None and self.pending.written.done()

    def begin(
        self,
        writer: CheckpointWriter,
        draft: Ledger,
        captured: Captured,
        *,
        number: int,
        started: float,
    ) -> None:
        """Write on the thread; `started` (monotonic) is when training stopped for the capture."""
        assert not self.busy
        written = self._pool.submit(write, writer, draft, captured)
        stall = time.monotonic() - started
        self.pending = Pending(writer, draft.step, number, stall, written)
        written.add_done_callback(lambda _: self._wake())

    def take(self) -> tuple[Pending, Ledger, Manifest]:
        """Wait for the pending write, which is pending no longer. Raises OSError, or Refused for
        whatever else went wrong: then nothing of it is left."""
        pending, self.pending = self.pending, None
        assert pending is not None
        try:
            ledger, sealed = pending.written.result()
        except OSError:
            raise
        except Exception as error:
            log.exception("writing a checkpoint failed")
            raise Refused(f"{type(error).__name__}: {error}") from error
        return pending, ledger, sealed

    def after(self, job: Callable[[], object]) -> None:
        """What is to follow a save (removing old ones): on the thread, before the next one."""
        self._after = self._pool.submit(job)
        self._after.add_done_callback(_log)

    def wait(self) -> None:
        """Until the thread does nothing. What is pending stays pending."""
        for future in (self.pending.written if self.pending else None, self._after):
            if future is not None:
                future.exception()

    def close(self) -> None:
        """Wait for the thread, and end it. What it published and nobody registered is adopted by
        the next start."""
        self._pool.shutdown(wait=True)
        self.pending = None


def _log(future: Future[object]) -> None:
    if future.exception() is not None:
        log.error("after a checkpoint: %s", future.exception(), exc_info=future.exception())
