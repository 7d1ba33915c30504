"""Where the live state comes from and goes to: loaded at the head, let go of, lost with its ranks.

In this process, or at several (engine.ranks): then the ranks are started for it, or those that are
there load again.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from engine.memory import cards, refusing
from engine.messages import EngineState
from engine.prepare.prepare import Cancelled
from engine.ranks.held import HeldModel, here
from engine.ranks.plan import processes, several
from engine.ranks.there import There
from engine.ranks.words import LaunchFailed
from engine.reading.status import model_status, not_loaded
from engine.training.failures import classify
from engine.training.freeing import free_memory
from engine.training.live import base_folder, first_head, load_live
from queue_store import engine_failure, head, records
from queue_store import transitions as moves
from queue_store.failures import TRANSIENT

if TYPE_CHECKING:
    from pathlib import Path

    from engine.loop.worker import Worker
    from queue_store.config import Config
    from queue_store.items import Item

log = logging.getLogger("trainctl.engine")
NOT_STARTED = "not started"
"""Why an item waits whose processes did not come up."""
MEND = "store/logs/ranks.log has what they printed; p (trainctl resume) tries again"


def load(worker: Worker) -> None:
    """See Worker.load."""
    board, config = worker.board, worker.config
    board.set(EngineState.STARTING, f"loading {config.model.name}")
    worker.publish(force=True)
    at = records.head(worker.state)
    if at is None:
        at = first_head(worker.state, worker.home, config)
    base = base_folder(worker.home, config)
    there = several(config)
    worker.live = _at_ranks(worker, base, at) if there else _here(worker, base, at)
    worker.line = records.start_run(worker.state)
    engine_failure.forget(worker.state)
    worker.cursors = dict(at.checkpoint.progress.cursors)
    worker.rendering = dict(at.checkpoint.progress.rendering)
    worker.saved = worker.changes
    worker.saver.stands_on(at.checkpoint.step)
    board.forget_steps()
    board.model = model_status(**worker.live.told)
    worker.loaded_for, worker.failed_loads = _asked(config), 0
    board.processes = worker.live.processes
    board.stand_on_head(worker.state, config.snapshots)


def _here(worker: Worker, base: Path, at: records.Head) -> HeldModel:
    free(worker)
    refusing.check(worker.home, base, worker.config)
    return here(load_live(worker.home, worker.config, at.checkpoint))


def _at_ranks(worker: Worker, base: Path, at: records.Head) -> HeldModel:
    """At several processes: those that are there already, where they are as they are wanted."""
    wanted = processes(worker.home, base, worker.config, _own(worker))
    held, worker.live, worker.run_now = worker.live, None, None
    worker.saved = worker.changes  # what comes is served meanwhile: there is nothing to save
    worker.board.processes = not_loaded
    phase = f"loading {worker.config.model.name} in {wanted.size} processes"
    if wanted.nodes > 1:
        phase += f", with {wanted.nodes} hosts at {wanted.rendezvous}"
    worker.board.set(EngineState.STARTING, phase)
    worker.publish(force=True)

    def idle() -> None:
        if worker.boundary.calls_off():
            raise Cancelled

    def starts() -> None:
        idle()
        worker.publish()  # waiting for a host is no hang

    made = There.load(worker.home, worker.config, at.checkpoint, wanted, idle, starts, held)
    worker.board.set(EngineState.STARTING)
    return made


def follow_settings(worker: Worker) -> None:
    """Between two items: where config.toml asks by now for other processes, or for another way to
    hold or compute the model, save and load it so. Raises as `load`."""
    if worker.live is None or worker.loaded_for == _asked(worker.config):
        return
    if worker.unsaved and worker.save() is None:
        return  # there is no room; training is paused and says so
    load(worker)


def check_change(worker: Worker, config: Config) -> None:
    """Raises ConfigError where the live model would have to be loaded anew for `config`, and the
    processes, or the memory, are not there for it."""
    if worker.live is None or worker.loaded_for == _asked(config):
        return
    base = worker.live.loaded.folder
    if several(config):
        processes(worker.home, base, config, _own(worker))
    else:
        refusing.check(worker.home, base, config, cards.here(own=_own(worker)))


def _own(worker: Worker) -> list[int]:
    """The processes of this host that hold the model, whose memory is free for the next one."""
    ranks = worker.live.processes()["ranks"] if worker.live is not None else []
    return [rank["pid"] for rank in ranks if rank["host"] == os.uname().nodename]


def _asked(config: Config) -> object:
    """What of config.toml holds from one loading to the next."""
    training = config.training
    memory = (training.gradient_checkpointing, training.activation_offload)
    kernels = (training.liger, config.model.attention)
    return (*memory, *kernels, training.processes, training.parallel, config.launch)


def at_start(worker: Worker) -> None:
    """Before any item. Ranks that do not come up now are tried again for the first one."""
    try:
        load(worker)
    except LaunchFailed as error:
        lost(worker, error)
    except Cancelled:
        log.info("what waits needs no model")


def put_off(worker: Worker, item: Item, error: LaunchFailed) -> None:
    """The ranks did not come up for an item, which is no failure of it: it waits. Tried again
    queue.max_attempts times, where that may help; then training is paused and says why."""
    cause, message = classify(error)
    log.warning("%s", message)
    moves.suspend(worker.state, item.id, NOT_STARTED, f"{item.name} waits: {message}")
    worker.board.tell("ranks_lost", message, MEND)
    worker.failed_loads += 1
    if cause in TRANSIENT and worker.failed_loads < worker.config.queue.max_attempts:
        worker.requests.wait(moves.backoff(worker.failed_loads))
        return
    worker.failed_loads = 0
    worker.boundary.pause_for(message)


def stand_on_head(worker: Worker) -> None:
    """See Worker.stand_on_head."""
    if worker.live is not None:
        load(worker)
        return
    worker.saved = worker.changes
    worker.cursors = {}
    worker.board.forget_steps()
    worker.board.stand_on_head(worker.state, worker.config.snapshots)


def back_to_head(worker: Worker) -> None:
    """What trained since the head's checkpoint is of no use: stand on that. Ranks are started anew
    when the next item begins, whose attempt it is."""
    if worker.live is None or isinstance(worker.live, There):
        free(worker)
        stand_on_head(worker)
    else:
        load(worker)


def lost(worker: Worker, error: LaunchFailed) -> None:
    """The ranks failed while no item trained: what no checkpoint has trains again."""
    log.warning("%s", error)
    at = records.head(worker.state)
    if worker.unsaved and at is not None:
        why = f"back to step {at.checkpoint.step}: {error}"
        with worker.state.transaction():
            head.move_head(worker.state, at.checkpoint, why=why, new=False)
    back_to_head(worker)
    worker.board.tell("ranks_lost", str(error), "the next item starts the processes again")


def free(worker: Worker) -> None:
    """See Worker.free."""
    live, worker.live, worker.run_now = worker.live, None, None
    if live is not None:
        live.end()
    del live
    worker.board.processes = not_loaded
    worker.saver.buffers.drop()
    free_memory()
