"""The action that shows what training takes of memory: a thread measures, the view shows."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from queue_store.errors import TrainctlError
from tui.commands.asking import Asking
from tui.dialogs.whatif import WhatIfView

if TYPE_CHECKING:
    from tui.poller import Reader

log = logging.getLogger(__name__)


class MemoryCommands(Asking):
    """The `do_…` method of the action on memory."""

    def do_what_if(self) -> None:
        view = WhatIfView()
        self._console.push_screen(view)

        def begin(views: Reader) -> None:
            # Of the reader only what any thread may call: the poller's goes on at once.
            threading.Thread(
                target=self._measure, args=(view, views), name="console-what-if", daemon=True
            ).start()

        self._console.poller.look(begin)

    def _measure(self, view: WhatIfView, views: Reader) -> None:
        """Measure what the view wants until it closes. A child of this thread dies with it."""
        later = self._console.later
        try:
            with views.what_if() as found:
                later(partial(view.begun, found))
                while True:
                    view.wake.clear()
                    if view.stop.is_set():
                        return
                    config = found.wanting()
                    if config is None:
                        view.wake.wait()
                        continue
                    found.measure(config, view.stop, lambda n, of: later(partial(view.far, n, of)))
                    later(view.measured)
        except TrainctlError as error:
            later(partial(view.failed, str(error)))
        except Exception:
            log.exception("what training takes could not be shown")
            later(partial(view.failed, "this failed, see the log"))
