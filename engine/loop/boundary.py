"""The step boundary: where requests take effect.

Asked by the run once a step (`at_step`), and by the loop between items. Commands that only look
or wait are done on the spot; those that change what trains make the run leave, and are carried
out when the run has unwound (`left`). Without a run they are carried out at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.loop import headmoves, saving
from engine.loop.prompting import Prompting
from engine.loop.requests import Request
from engine.messages import EngineState
from engine.training.controls import Directive, NonFinite, Place
from engine.training.run import Outcome
from queue_store import durable, engine_failure, journal, queue
from queue_store import transitions as moves
from queue_store.errors import ProcessEnd, Refused, TrainctlError
from queue_store.items import Item

if TYPE_CHECKING:
    from engine.loop.worker import Worker

log = logging.getLogger("trainctl.engine")
PAUSE_SECONDS = 0.5
"""How often the status is published anew while paused."""

STOP_FILE_SECONDS = 0.5
LEAVES = frozenset({"skip", "stop", "rollback", "handover"})
"""Commands for which the run leaves."""


class Boundary:
    """The run's Controls, and the same for the time between items. Engine thread only."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ending = ""
        """Why the engine thread ends, "" while it goes on."""
        self.draining = False
        self._prompts = Prompting(worker)
        self._leaving: Request | None = None
        self._resumed: list[Request] = []
        self._handed_over: list[Request] = []
        self._look = True
        self._stop_file_at = 0.0
        self._parked = False

    def restore(self) -> None:
        """A pause survives a restart."""
        self.worker.board.paused = bool(self.worker.state.meta_get("paused", False))
        if self.worker.board.paused:
            self.worker.board.set(EngineState.PAUSED)

    # -- asked by the run ---------------------------------------------------------------------

    def waiting(self) -> bool:
        return self.worker.requests.waiting()

    def at_step(self, place: Place) -> Directive:
        """Carry out what was asked; block while paused. See controls.Controls."""
        return Directive(self._serve(in_run=True))

    def _serve(self, *, in_run: bool) -> str:
        """Requests in their order, until one makes the run leave or none is left and nothing
        holds us. Returns the reason to leave."""
        worker = self.worker
        while True:
            saving.tend(worker)
            if worker.live is not None:
                worker.live.look()
            request = worker.requests.take()
            if request is not None:
                if in_run and self._must_leave(request):
                    self._leaving = request
                    return request.command
                self._do(request)
                if self._parked and in_run:
                    return "park"
                if self.ending:
                    return self.ending
                continue
            if self._stop_file():
                if in_run:
                    return "stop"
                self.end("stopped by the file .stop")
                return self.ending
            if not worker.board.paused:
                break
            if self._parked and in_run:  # asked for while the item was prepared
                return "park"
            worker.board.set(EngineState.PAUSED)
            worker.publish(force=True)
            worker.flush_metrics()  # who looks while it stands sees its last step
            worker.requests.wait(PAUSE_SECONDS)
            self._look = worker.requests.rung() or self._look
        self._steps_again(in_run)
        if in_run and self._preempts():
            return "preempt"
        return ""

    def _steps_again(self, in_run: bool) -> None:
        """Not paused: answer those who wait for that."""
        worker = self.worker
        if in_run and worker.board.state is not EngineState.TRAINING:
            worker.board.set(EngineState.TRAINING)
            worker.publish(force=True)
        resumed, self._resumed = self._resumed, []
        for request in resumed:
            request.answer({"step": worker.board.global_step, "state": str(worker.board.state)})

    def _preempts(self) -> bool:
        """Whether an item of a higher priority waits. Looked for when something changed."""
        worker = self.worker
        self._look = worker.requests.rung() or self._look
        if not self._look or self.draining or worker.item is None:
            return False
        self._look = False
        if not worker.config.queue.preempt:
            return False
        now = queue.get(worker.state, worker.item.id)
        return queue.next_runnable(worker.state, above=now.priority) is not None

    def _stop_file(self) -> bool:
        """`touch .stop` in the home works as `stop`; the file is taken away when obeyed."""
        now = time.monotonic()
        if now - self._stop_file_at < STOP_FILE_SECONDS:
            return False
        self._stop_file_at = now
        # The same look finds what was added to the queue by a program that did not wake us.
        self._look = True
        if not self.worker.home.stop_file.exists():
            return False
        durable.remove_file(self.worker.home.stop_file)
        return True

    # -- asked by the loop ----------------------------------------------------------------------

    def between_items(self) -> None:
        """Carry out what was asked while no item runs; blocks while paused."""
        if self._parked:
            self._free()
        self._serve(in_run=False)
        if self.draining:
            self.end("drained")

    def calls_off(self) -> bool:
        """Asked while an item is prepared: does what needs no leaving, and says whether preparing
        is to be broken off for what waits."""
        saving.tend(self.worker)
        requests = self.worker.requests
        while not requests.waits_for(LEAVES):
            request = requests.take()
            if request is None:
                return False
            self._do(request)
        return True

    def called_off(self, item: Item) -> None:
        """Preparing was broken off; the request is carried out next."""
        request = self.worker.requests.take_first(LEAVES)
        assert request is not None
        self._leaving = request
        self._unwound(item)

    def before_training(self, item: Item) -> bool:
        """Prepared: may it step? Blocks while paused. False when the item was left."""
        reason = self._serve(in_run=True)
        if not reason:
            return True
        self._leave(item, reason)
        return False

    def left(self, item: Item, outcome: Outcome) -> None:
        """The run has unwound: carry out what it left for. An item whose last row trained with
        that step is trained, whatever was asked."""
        if outcome.kind == "done":
            request, self._leaving = self._leaving, None
            if request is not None and self._skips(item, request):
                request.refuse(Refused(f"{item.name} had just trained its last row"))
            elif request is not None:
                self._carry_out(request)
            elif outcome.reason == "stop":
                self.end("stopped by the file .stop")
            return
        self._leave(item, outcome.reason)

    def failed(self, item: Item, why: str) -> None:
        """The item failed: what was asked of it cannot be done; other requests still can."""
        request, self._leaving = self._leaving, None
        if request is not None and self._skips(item, request):
            request.refuse(Refused(f"{item.name} failed: {why}"))
        elif request is not None:
            self._carry_out(request)

    def _leave(self, item: Item, reason: str) -> None:
        worker = self.worker
        worker.flush_metrics()  # who looks at the paused item sees how far it came
        if self._leaving is not None:
            self._unwound(item)
        elif reason == "preempt":
            text = f"{item.name} makes way for a higher priority"
            moves.suspend(worker.state, item.id, "preempted", text)
        elif reason == "park":
            moves.suspend(worker.state, item.id, "paused", f"{item.name} is parked")
        else:
            self.end(reason)  # it ends, too, where the next line cannot be written
            moves.suspend(worker.state, item.id, "stopped", f"{item.name} stopped")

    def ends(self, commands: frozenset[str]) -> bool:
        """Whether an end is under way, or asked for by one of these commands."""
        asked = self._leaving is not None and self._leaving.command in commands
        return asked or bool(self.ending) or self.worker.requests.waits_for(commands)

    def _unwound(self, item: Item) -> None:
        """Carry out the request that the run left for."""
        request = self._leaving
        assert request is not None
        if self._skips(item, request):
            self._leaving = None
            self._guard(request, lambda: headmoves.skip(self.worker, item, request.arguments))
            return
        # Held until this is written: where it cannot be, `failed` or `abandon` answers.
        moves.suspend(self.worker.state, item.id, _CAUSES[request.command], f"{item.name} stopped")
        self._leaving = None
        self._carry_out(request)

    # -- the commands ---------------------------------------------------------------------------

    def _do(self, request: Request) -> None:
        """A command that needs no leaving, or any command when no item runs."""
        if request.command in LEAVES:
            self._carry_out(request)
            return
        handler = {
            "pause": self._pause,
            "resume": self._resume,
            "drain": self._drain,
            "save": lambda request: saving.save(self.worker),
            "generate": self._prompts.answer,
            "cancel_generate": lambda request: {},  # that it waited has ended the generation
            "snapshot_version": lambda request: saving.snapshot(self.worker, request),
        }.get(request.command)
        if handler is None:
            request.refuse(Refused(f"the engine does not know {request.command!r}"))
            return
        self._guard(request, lambda: handler(request))

    def _carry_out(self, request: Request) -> None:
        """A command of LEAVES, with no item running."""
        match request.command:
            case "stop":
                self.end("stopped")
                request.answer({"scheduled": True, "step": self.worker.board.global_step})
            case "handover":
                self.end("handover")
                self._handed_over.append(request)
            case "rollback":
                self._guard(request, lambda: headmoves.rollback(self.worker, request.arguments))
            case "skip":
                self._guard(request, lambda: headmoves.skip_other(self.worker, request.arguments))

    def _guard(self, request: Request, act: Callable[[], Any]) -> None:
        """Answer with the result; a refusal is the answer, a defect is logged and told."""
        try:
            result = act()
        except TrainctlError as error:
            request.refuse(error)
            if isinstance(error, ProcessEnd):
                raise
        except NonFinite as error:
            # Found by a save. It is the failure of the item whose step it was.
            request.refuse(Refused(f"not saved: {error}"))
            raise
        except Exception as error:
            log.exception("%s failed", request.command)
            request.refuse(
                TrainctlError(
                    f"{request.command} failed: {error}",
                    mend=f"the reason is in {self.worker.home.log}",
                )
            )
        else:
            if result is not None:
                request.answer(result)

    @staticmethod
    def _skips(item: Item, request: Request) -> bool:
        """Whether this is a skip of that item: the running one, where none is named."""
        wanted = request.arguments.get("item")
        return request.command == "skip" and wanted in (None, item.id)

    def _must_leave(self, request: Request) -> bool:
        """Whether the run leaves for a request. To end an item that is not running touches no
        model; to undo it does."""
        item = self.worker.item
        if request.command != "skip" or item is None or self._skips(item, request):
            return request.command in LEAVES
        return bool(request.arguments.get("undo"))

    def _pause(self, request: Request) -> dict[str, Any]:
        worker = self.worker
        park = bool(request.arguments.get("park"))
        if park and worker.unsaved:
            worker.saved_head()
        self._set_paused(True, "paused" + (" and parked" if park else ""))
        if park:
            self._parked = True
            if worker.item is None:
                self._free()
        return {"requested_step": request.requested_step, "step": worker.board.global_step}

    def _free(self) -> None:
        """No item runs. What is not saved (an item's last step) would go with the memory."""
        self._parked = False
        if not self.worker.unsaved or self.worker.save() is not None:
            self.worker.free()

    def pause_for(self, why: str) -> None:
        """The engine itself pauses: what comes next cannot be saved."""
        self._set_paused(True, f"paused: {why}")

    def _set_paused(self, paused: bool, text: str) -> None:
        worker = self.worker
        with worker.state.transaction():
            if bool(worker.state.meta_get("paused", False)) != paused:
                worker.state.meta_set("paused", paused)
                kind = "paused" if paused else "resumed"
                journal.record(
                    worker.state,
                    kind,
                    text,
                    item=worker.item.id if worker.item else None,
                    branch=worker.board.branch,
                    step=worker.board.global_step,
                )
        worker.board.paused = paused
        worker.board.set(EngineState.PAUSED if paused else EngineState.IDLE)
        worker.publish(force=True)

    def _resume(self, request: Request) -> None:
        self._parked = False
        self._set_paused(False, "resumed")
        self.worker.board.all_well()
        self._resumed.append(request)

    def _drain(self, request: Request) -> dict[str, Any]:
        worker = self.worker
        if worker.board.paused:
            raise Refused("paused: nothing would drain", mend="resume first, or stop")
        self.draining = True
        with worker.state.transaction():
            journal.record(worker.state, "drain", "ends after this item")
        if worker.item is None:
            self.end("drained")
        return {"scheduled": True, "step": worker.board.global_step}

    # -- the end --------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """The engine thread ends after what it is at."""
        self.ending = self.ending or why

    def finish(self) -> None:
        """Saved and about to end: journal it, and answer who waits for the end."""
        worker = self.worker
        with worker.state.transaction():
            engine_failure.forget(worker.state)  # also of one that stood and loaded nothing
            journal.record(
                worker.state,
                "engine.stopped",
                f"engine {self.ending} at step {worker.board.global_step}",
                branch=worker.board.branch,
                step=worker.board.global_step,
            )
        handed, self._handed_over = self._handed_over, []
        for request in handed:
            request.answer({"step": worker.board.global_step})
        self.abandon(Refused("the engine stops"))

    def abandon(self, why: BaseException) -> None:
        """The thread ends: nobody may wait for ever for what it still holds."""
        held = [*self._handed_over, *self._resumed, self._leaving]
        self._handed_over, self._resumed, self._leaving = [], [], None
        for request in held:
            if request is not None:
                request.refuse(why)


_CAUSES = {
    "stop": "stopped",
    "handover": "handed over",
    "rollback": "rolled back",
    "skip": "called off",
}
