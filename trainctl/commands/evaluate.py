"""evaluate: a version asked the evaluation sets now, in the foreground; what it answered is kept.

The model runs in a worker's process, on a host or here; never in this one.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from queue_store.errors import NotFound
from trainctl.commands.compare import rate_cell
from trainctl.commands.hosts import deployed
from trainctl.context import Context
from trainctl.output import count, counted, known, table, text
from trainctl.progress import Progress

if TYPE_CHECKING:
    from engine.judging.evaluating import Evaluating
    from evaluation.host.machine import Machine

Json = dict[str, Any]
INTERRUPTED = 130
INNER = ("key", "waits_for")
"""Of a verdict what says whether it is still the last word."""


def evaluate(context: Context, arguments: argparse.Namespace) -> int:
    """Ask what is missing, and say how the model stands. JSON: see --help."""
    from trainctl.commands import jobs

    if arguments.queue:
        return jobs.order(context, arguments)
    jobs.refuse_without_queue(arguments)
    from engine.judging.after import judged
    from engine.judging.evaluating import Evaluating, model
    from evaluation.host import machine
    from evaluation.host.choice import on_first_free
    from evaluation.host.machine import LOCAL
    from evaluation.sets import load_sets

    config, home = context.config, context.home
    of = model(context.state, config, arguments.version)
    sets = load_sets(home, list(dict.fromkeys(arguments.set)) or config.evaluation.sets)
    if not sets:
        raise NotFound(
            "no evaluation set", where=str(home.evaluation), mend="see trainctl sets --help"
        )
    if arguments.host is not None:
        machine.machine(home, config.hosts, arguments.host)  # unknown is unknown, work or not
    chosen = LOCAL if arguments.local else arguments.host
    with Evaluating(
        context.state, config, of, sets, max_tokens=arguments.max_tokens, limit=arguments.limit
    ) as asking:
        whole, host = asking.waiting, ""
        meter = _Meter(whole)
        with _Interrupt() as interrupt, meter:

            def cancelled() -> bool:
                meter.tick()
                return interrupt.asked()

            def ask(on: Machine) -> str:
                meter.host = on.name
                asking.ask(on, cancelled=cancelled, told=meter.answered, sent=meter.sent)
                return on.name

            if whole:
                try:
                    host = on_first_free(home, config.hosts, chosen, ask)
                except Exception as error:
                    _say_what_is_kept(error, asking, whole)
                    raise
        found: Json = {
            "model": {key: getattr(of, key) for key in ("name", "digest", "step", "branch")},
            "settings": asking.settings,
            "sets": asking.standing(),
            **{"asked": whole - asking.waiting, "host": host},
            **{"interrupted": bool(asking.waiting), "notes": asking.notes()},
        }
    if found["interrupted"]:
        found["verdict"] = {"unknown": "not all was asked that was to be"}
    else:
        found["verdict"] = {
            key: value
            for key, value in judged(context.state, config, of).items()
            if key not in INNER
        }
    found["deployed"] = brought(context, found["verdict"])
    context.show(found, lambda: "\n".join(_words(found)))
    if found["interrupted"]:
        return INTERRUPTED
    return int(any(one["errors"] for one in found["sets"]))


def brought(context: Context, verdict: Json) -> list[Json]:
    """A best version that is new goes to the hosts that ask for it; a running engine does that."""
    from engine.judging import deploying
    from engine.judging.deployed import wanting

    moved = known(verdict) and known(verdict["best"]) and verdict["best"]["moved"]
    if not moved or not wanting(context.config) or context.views.live():
        return []
    return deploying.deploy(context.state, context.config)


def _say_what_is_kept(error: Exception, asking: Evaluating, whole: int) -> None:
    """An error's mend, with what need not be asked again."""
    from queue_store.errors import TrainctlError

    kept = whole - asking.waiting
    if kept and isinstance(error, TrainctlError):
        said = f"{kept} of {whole} were answered and are kept; the same command goes on"
        error.mend = f"{error.mend}; {said}" if error.mend else said


class _Interrupt:
    """ctrl+c: the first ends the job after what is being answered, the second at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        self._before = signal.signal(signal.SIGINT, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def asked(self) -> bool:
        return self._asked

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


class _Meter(Progress):
    """n of m and items a second, on stderr."""

    def __init__(self, whole: int) -> None:
        super().__init__()
        self.host = ""
        self._whole, self._done = whole, 0
        self._began = 0.0
        self._rate = ""

    def sent(self, done: int, of: int) -> None:
        self(f"weights to {self.host}", done, of)

    def answered(self, left: int) -> None:
        """Heard when the model is loaded, and at each answer; answers of a batch come at once."""
        self._done, now = self._whole - left, time.monotonic()
        self._began = self._began or now
        passed = now - self._began
        self._rate = f", {self._done / passed:.1f} items/s" if passed > 1 else ""

    def tick(self) -> None:
        """Asked a few times a second while the worker generates."""
        self.say(f"{self.host}: {self._done} of {self._whole}{self._rate}")


def _words(found: Json) -> Iterator[str]:
    yield table(
        ("set", ">items", ">answered", ">right", ">accuracy", ">tokens/s", "backend", "host"),
        [
            (
                *(one["set"], count(one["items"]), count(one["answered"])),
                *(count(one["right"]), rate_cell(one["accuracy"])),
                ", ".join(f"{rate['tokens_per_second']:.0f}" for rate in one["speed"]) or "-",
                ", ".join(rate["backend"] for rate in one["speed"]) or "-",
                ", ".join(host for rate in one["speed"] for host in rate["hosts"]) or "-",
            )
            for one in found["sets"]
        ],
    )
    for one in found["sets"]:
        if one["errors"]:
            told = ", ".join(f"{text(kind)} {n}" for kind, n in sorted(one["errors"].items()))
            yield (
                f"{text(one['set'])}: {counted(sum(one['errors'].values()), 'item')} without an"
                f" answer that counts: {told}"
            )
        if one["missing"]:
            yield f"{text(one['set'])}: {counted(one['missing'], 'item')} not asked yet"
    model, how = found["model"], found["settings"]
    at = f"step {count(model['step'])}, " if known(model["step"]) else ""
    yield (
        f"{text(model['name'])} ({at}{model['digest'][:12]}), greedy, at most"
        f" {counted(how['max_tokens'], 'token')}, profile {text(how['profile'])}, thinking"
        f" {how['thinking']}; {_asked(found)}"
    )
    yield from (f"note: {text(note)}" for note in found["notes"])
    yield from _verdict(found["verdict"])
    yield from map(deployed, found["deployed"])


def _verdict(verdict: Json) -> Iterator[str]:
    """What follows from the answers: alarms first, then whether the model is the best now."""
    if not known(verdict):
        return
    if verdict["canary"]:
        yield f"BROKEN? {text(verdict['canary'])}"
    yield from (f"REGRESSION: {text(one['text'])}" for one in verdict["regressions"])
    best = verdict["best"]
    if not known(best):
        yield f"best: {text(best['unknown'])}"
    elif best["moved"]:
        yield f"best: moved from {text(verdict['against'])}; {text(best['why'])}"
    else:
        yield f"best: {text(verdict['against'])} stays; {text(best['why'])}"


def _asked(found: Json) -> str:
    if found["interrupted"]:
        return f"interrupted after {counted(found['asked'], 'item')}; the same command goes on"
    if not found["asked"]:
        return "nothing was missing, nobody was asked"
    return f"{counted(found['asked'], 'item')} asked now"
