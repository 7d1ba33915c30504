"""`evaluate_on`: a version answers items on a host, over as many sessions as the link takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.host.errors import HostFailure
from evaluation.host.machine import Machine
from evaluation.host.session import Answer, Event, Loaded, Session
from evaluation.host.shipment import Shipment
from evaluation.host.shipping import Progress
from queue_store.programs import Cancelled, never

TRIES = 3
"""Sessions in a row that may end without one answer before the failure is the caller's."""
FIRST_PAUSE = 1.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """What came of it. `answered` counts results heard (errors of items too), `left` those that
    were cancelled; `seconds` is the time the worker generated, so tokens / seconds is its rate;
    `sessions` how often the host was reached; `loaded` the model as last loaded there."""

    answered: int
    left: int
    tokens: int
    seconds: float
    batch: int
    backend: str
    sessions: int
    loaded: Loaded | None
    cancelled: bool


def evaluate_on(
    machine: Machine,
    shipment: Shipment,
    items: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    on_result: Callable[[Answer], None],
    *,
    cancelled: Cancelled = never,
    on_event: Event | None = None,
    on_loaded: Callable[[Loaded], None] | None = None,
    progress: Progress | None = None,
    recorded: Loaded | None = None,
    who: str = "trainctl",
    tries: int = TRIES,
) -> Outcome:
    """Have `items` answered by a model on `machine`, and hear every answer once.

    How to call it (blocking; from a thread that lives until it returns, or a process of its own):

        weights = shipment.of_folder(folder, name="v012", weights_digest=version.weights_digest,
            blake3={entry.name: entry.blake3 for entry in manifest.files})   # an adapter: base=
        packed = shipment.pack(weights, known)      # `known`: keep it, nothing is read twice
        target = machine.machine(home, config.hosts, "titan")                # or machine.local()
        items = [{"id": "a", "messages": [{"role": "user", "content": "2 + 2?"}]}]  # or "text"
        evaluate_on(target, packed, items, {"max_tokens": 64}, store_it, recorded=probe)

    `config` is that of shipped/job.py (max_tokens, temperature 0 = greedy, top_p, top_k, seed,
    stop[], template{}, penalties{}, backend, batch, stream); leave out of `items` what is stored
    for the same model, set, item and configuration. A link that breaks is made anew, after 1, 2,
    4 … seconds, and only items that were not heard of are sent again; `tries` sessions in a row
    without an answer raise the last HostFailure (`transient` says whether later may help; "busy"
    at once, so that another host can be asked). `on_result` runs on this thread, before the next
    answer is read; an Answer with `error` is no answer. `cancelled` is asked five times a second,
    and a job ends after the token it is at. `recorded` is what `on_loaded` heard when this model
    was loaded the first time: another probe than that is refused. `on_event` hears `meters` (gpu,
    ram, load; every 5 s) and `progress` (with config.stream and one item: text so far).

    Raises HostFailure, BrokenOff (cancelled while weights were sent), OSError (no ssh here).
    """
    waiting = {str(item["id"]): item for item in items}
    if len(waiting) != len(items):
        raise ValueError("two items have the same id")
    loaded: Loaded | None = None
    tokens, seconds, batch, backend = 0, 0.0, 0, str(config.get("backend", "plain"))
    sessions = failures = 0
    while waiting and not cancelled():
        before = len(waiting)

        def heard(answer: Answer) -> None:
            nonlocal tokens, batch
            on_result(answer)
            del waiting[answer.id]
            tokens, batch = tokens + answer.tokens, answer.batch or batch

        started = time.monotonic()
        try:
            sessions += 1
            with Session(machine, who=who) as session:
                if on_event is not None:
                    session.on_event = on_event
                loaded = session.load(
                    shipment, recorded=recorded, cancelled=cancelled, progress=progress
                )
                if on_loaded is not None:
                    on_loaded(loaded)
                started = time.monotonic()
                left = list(waiting.values())
                backend = session.generate(left, config, heard, cancelled=cancelled).backend
                seconds += time.monotonic() - started
        except HostFailure as failure:
            if len(waiting) < before:
                failures = 0
                seconds += time.monotonic() - started
            failures += 1
            if not failure.transient or failure.code == "busy" or failures >= tries:
                raise
            _pause(FIRST_PAUSE * 2 ** (failures - 1), cancelled)
    return Outcome(
        *(len(items) - len(waiting), len(waiting), tokens, seconds, batch, backend),
        *(sessions, loaded, bool(waiting)),
    )


def _pause(seconds: float, cancelled: Cancelled) -> None:
    """Wait, but no longer than somebody wants to."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not cancelled():
        time.sleep(LOOK_SECONDS)
