"""`python -m engine.judging.job`: what an evaluation job does, in a process of its own.

Reads an order, one JSON object a line: {"home", "act": "look", "host"}, a look at a host; or
{"home", "act": "evaluate", "model", "digest", "sets", "host", "device", "threads"}. Tells on its
output, in lines of JSON, how far it is: {"stage": "shipping", "sent", "of"}, {"stage": "running",
"items", "answered"}, {"meters": {gpu, ram}}; and last an `Outcome`. {"cancel": true} on its input,
or the end of it, breaks it off: what was answered is kept; {"limit": CPU seconds a second, or null}
holds a worker of this machine to that, as "limit" of the order does from the start.

Answers go to metrics.db as they come, in short transactions of their own; the job's row is the
engine's. Must never hold a lock that training waits for, and never outlive the engine.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.judging import after, sampled
from engine.judging.evaluating import Evaluating, Model, model
from evaluation.host import look as looking
from evaluation.host import machine as machines
from evaluation.host.errors import HostFailure
from evaluation.host.machine import Machine
from evaluation.sets import load_sets
from queue_store import config as configuration
from queue_store.config import Config
from queue_store.database import State, open_state
from queue_store.errors import NotFound, Refused, TrainctlError
from queue_store.home import Home
from queue_store.programs import BrokenOff

Json = dict[str, Any]
TELL_SECONDS = 0.5

OF_THE_HOST = (
    *("unreachable", "host_key", "not_let_in", "no_python", "no_rsync", "no_packages"),
    *("disk_full", "store", "busy", "no_memory"),
)
"""Failures that say something of the host and nothing of the job: another host can do it."""
OF_THE_MODEL = ("digest", "model", "config")
"""Failures that come again wherever it is tried."""


@dataclass(frozen=True)
class Outcome:
    """How it ended. `kind`: done; cancelled; gone (the model is not here any more); host (see
    OF_THE_HOST); broken (may go well the next time); failed. `code` of the host's failure, `mend`
    whether somebody must act first. The counts are those of all sets, None where nobody counted."""

    kind: str
    error: str = ""
    code: str = ""
    mend: bool = False
    items: int | None = None
    answered: int | None = None
    errors: int | None = None


class Controls:
    """What the engine says on our input meanwhile."""

    def __init__(self, limit: float | None = None) -> None:
        self._limit = limit
        self._cancelled = threading.Event()
        threading.Thread(target=self._listen, name="controls", daemon=True).start()

    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def limit(self) -> float | None:
        """CPU seconds a second that a worker here may take; None for as many as there are."""
        return self._limit

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            words = json.loads(line)
            if words.get("cancel"):
                break
            self._limit = words["limit"]
        self._cancelled.set()


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)


class Teller:
    """Tells how far it is: a new stage at once, the rest at most a few times a second, and `flush`
    comes back for what was left out."""

    def __init__(self) -> None:
        self._told_at = 0.0
        self._stage = ""
        self._words: Json = {}

    def __call__(self, **words: Any) -> None:
        if words["stage"] != self._stage:
            self._stage, self._told_at = words["stage"], 0.0
        self._words = words
        self.flush()

    def flush(self) -> None:
        if self._words and time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            tell(**self._words)
            self._words = {}


def evaluate(state: State, config: Config, order: Json, controls: Controls) -> Outcome:
    """Ask the model what has no answer yet, and judge it. Raises what Evaluating raises."""
    try:
        of = _model(state, config, order)
    except (NotFound, Refused) as error:
        return Outcome("gone", error.what)
    with Evaluating(state, config, of, load_sets(state.home, order["sets"])) as asking:
        whole = Counts.of(asking)
        before = asking.waiting
        say = Teller()

        def told(left: int) -> None:
            answered = whole.answered + before - left
            say(stage="running", items=whole.items, answered=answered)

        def ending() -> bool:  # asked several times a second, also while a batch takes minutes
            say.flush()
            return controls.cancelled()

        def heard(message: Json) -> None:
            if message.get("kind") == "meters":
                tell(meters={"gpu": message.get("gpu"), "ram": message.get("ram")})

        failure: HostFailure | None = None
        if before:
            try:
                asking.ask(
                    _machine(state.home, config, order, controls),
                    cancelled=ending,
                    told=told,
                    sent=lambda sent, of: say(stage="shipping", sent=sent, of=of),
                    on_event=heard,
                )
            except HostFailure as error:
                failure = error
        counts = asdict(Counts.of(asking))
        if failure is not None:
            return _failed(failure, counts)
        if asking.waiting:
            return Outcome("cancelled", **counts)
        if config.samples_on_host:
            sampled.keep(state, config, asking)
    after.judged(state, config, of)
    return Outcome("done", **counts)


@dataclass(frozen=True)
class Counts:
    items: int
    answered: int
    errors: int

    @staticmethod
    def of(asking: Evaluating) -> Counts:
        """Of all sets of an evaluation, as they are stored."""
        sets = asking.standing()
        return Counts(
            sum(one["items"] for one in sets),
            sum(one["answered"] for one in sets),
            sum(sum(one["errors"].values()) for one in sets),
        )


def _model(state: State, config: Config, order: Json) -> Model:
    """The model of the order: by its name, or where that has gone by its digest (a version holds
    what a checkpoint was). Raises NotFound where no model of this home has that digest, Refused
    where it is damaged."""
    found = None
    with contextlib.suppress(NotFound, Refused):
        found = model(state, config, order["model"])
    if found is None or found.digest != order["digest"]:
        found = model(state, config, order["digest"])
    return found


def _machine(home: Home, config: Config, order: Json, controls: Controls) -> Machine:
    if order["host"] == machines.LOCAL:
        return replace(machines.local(order["device"], order["threads"]), limit=controls.limit)
    return machines.machine(home, config.hosts, order["host"])


def _failed(failure: HostFailure, counts: Json) -> Outcome:
    words = failure.what if not failure.mend else f"{failure.what} ({failure.mend})"
    if failure.transient:  # its mend is for a person, and here it is tried again by itself
        words = failure.what
    ends = "host" if failure.code in OF_THE_HOST else "broken"
    if failure.code in OF_THE_MODEL:
        ends = "failed"
    return Outcome(ends, words, failure.code, not failure.transient, **counts)


def carry_out(order: Json, controls: Controls) -> Outcome:
    """The order, with every failure as an outcome."""
    home = Home(Path(order["home"]))
    try:
        config = configuration.load(home.config)
        with open_state(home) as state:
            return evaluate(state, config, order, controls)
    except BrokenOff:
        return Outcome("cancelled")
    except HostFailure as failure:
        return _failed(failure, {})
    except TrainctlError as error:
        return Outcome("failed", str(error))
    except OSError as error:
        return Outcome("broken", f"{error.filename or ''} {error.strerror or error}".strip())


def look(order: Json) -> Json:
    """A look at a host: see evaluation.host.look. Raises TrainctlError, OSError."""
    home = Home(Path(order["home"]))
    hosts = configuration.load(home.config).hosts
    return looking.look(machines.machine(home, hosts, order["host"]))


def main() -> int:
    order: Json = json.loads(sys.stdin.buffer.readline())
    if order["act"] == "look":
        try:
            tell(ok=True, look=look(order))
        except (TrainctlError, OSError) as error:
            tell(ok=False, error=str(error))
        return 0
    outcome = carry_out(order, Controls(order["limit"]))
    tell(ok=True, outcome=asdict(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
