"""Evaluation jobs beside training: which are made, where each goes, and what becomes of it.

The keeper looks every two seconds; each job, and each look at a host, is a process of its own with
a thread that waits for it. Training pays for neither: nothing here runs on the engine's thread,
and a job on this machine has the lowest priority. One job at a time a host, so that two hosts
have two; a host that cannot do it rests, and another one gets the job.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from engine import lines
from engine.judging import wanted
from engine.judging.room import missing_memory
from engine.loop import jobprocess
from engine.loop.board import STILL
from engine.loop.hostboard import BUSY, IDLE, Place
from engine.loop.jobprocess import Died
from engine.reading.answers import newest_step
from evaluation.host.machine import LOCAL
from evaluation.host.pace import beside
from queue_store import jobs, journal, records
from queue_store.config import Config
from queue_store.database import State, now, open_metrics
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.jobs import OPEN, TAKEN, Job, JobState
from queue_store.transitions import backoff

if TYPE_CHECKING:
    from engine.loop.thread import Engine

log = logging.getLogger("trainctl.jobs")
Json = dict[str, Any]
SECONDS = 2.0
"""Between two looks at the table."""
CHECK_SECONDS = 0.5
"""Between two looks of a job's thread at its own row: somebody may have cancelled it."""
PROGRESS_SECONDS = 10.0
"""Between two notes in the table of how far a job is: each is synced."""
MAX_FAILURES = 5
"""Tries in a row that broke off without one answer before a job has failed."""
MEMORY_SECONDS = MISSING_SECONDS = 60.0
"""How long a job waits for memory that is short here, and for a host that config.toml lost."""


class Evaluations:
    """The jobs of one engine. `look` is for a chore; what is shown may be asked on any thread."""

    def __init__(self, home: Home, config: Config) -> None:
        self.home = home
        self.waiting = 0
        self._places: dict[str, Place] = {}
        self._arrange(config, [])
        self._config: tuple[object, Config] | None = None
        self._seq = -1

    # -- what is shown --------------------------------------------------------------------------

    def status(self) -> Json:
        """`hosts` and `evaluation` of the status."""
        places = list(self._places.values())
        running = [work for place in places if (work := place.work())]
        return {
            "hosts": [place.to_json() for place in places],
            "evaluation": {"waiting": self.waiting, "running": running},
        }

    def look_again(self) -> None:
        """Hosts that rest are asked at the next look, not when their rest is over. Any thread."""
        for place in list(self._places.values()):
            place.look_at = 0.0

    # -- the chore ------------------------------------------------------------------------------

    def look(self, engine: Engine, state: State) -> None:
        """Make the jobs that are due, and give each idle place its next one."""
        config = self._config_now(engine)
        # Which are held first: a job that ends meanwhile is in neither.
        held = {place.job for place in self._places.values() if place.job is not None}
        jobs.recover(state, held)
        seq = journal.last_seq(state)
        if seq != self._seq:  # whatever may ask for a job is an event
            wanted.look(state, config)
            self._seq = seq
        jobs.expire(state)
        waiting = jobs.unfinished(state, JobState.WAITING)
        self.waiting = len(waiting)
        self._arrange(config, waiting)
        due = [job for job in waiting if job.next_try <= now()]
        for job in due:
            if job.wanted and job.wanted not in self._places:
                why = f"there is no host {job.wanted} in config.toml any more"
                jobs.postpone(state, job.id, why, MISSING_SECONDS)
        for place in list(self._places.values()):
            if place.taken or engine.keeper.stopping.is_set():
                continue
            fitting = (job for job in due if job.wanted in ("", place.name))
            if place.name == LOCAL:
                may = functools.partial(self._may, engine, config, state, place)
                chosen = next(filter(may, fitting), None)
            else:
                chosen = next(fitting, None) if place.state == IDLE else None
                if chosen is None and time.monotonic() >= place.look_at:
                    self._begin(engine, place, functools.partial(self._look_at, engine, place))
            if chosen is not None:
                due.remove(chosen)
                self._start(engine, state, config, place, chosen)

    def _config_now(self, engine: Engine) -> Config:
        """config.toml as it stands, read again where the file changed."""
        try:
            info = self.home.config.stat()
            seen: object = (info.st_mtime_ns, info.st_size, info.st_ino)
        except OSError:
            seen = None
        if self._config is None or self._config[0] != seen:
            self._config = seen, engine.config_now()
            self._seq = -1
        return self._config[1]

    def _arrange(self, config: Config, waiting: list[Job]) -> None:
        """The places of config.toml, in its order; this machine too where somebody asks for it.
        One that was taken out of it stays until its job has ended."""
        names = wanted.places(config)
        if LOCAL not in names and any(job.wanted == LOCAL for job in waiting):
            names.append(LOCAL)
        before = self._places
        names += [name for name, place in before.items() if place.taken and name not in names]
        places = {}
        for name in names:
            place, settings = before.get(name), config.hosts.get(name)
            if place is None or (place.settings != settings and not place.taken):
                place = Place(name, settings)
            places[name] = place
        self._places = places  # at once: it is read on other threads
        here = self._places.get(LOCAL)
        if here is not None and not here.taken and here.state != IDLE:
            here.met(IDLE)

    def _may(self, engine: Engine, config: Config, state: State, place: Place, job: Job) -> bool:
        """Whether a job may run on this machine now; where memory is short it says so."""
        if self._must_wait(engine, config):
            place.error = "training.monitoring_budget is 0: jobs run here while nothing trains"
            return False
        place.error = ""
        if config.evaluation.local not in ("", "cpu"):
            return True  # a card's memory is its own to judge
        short = missing_memory(state, config, job.model)
        if short:
            jobs.postpone(state, job.id, short, MEMORY_SECONDS)
            place.error = short
        return not short

    @staticmethod
    def _must_wait(engine: Engine, config: Config) -> bool:
        return not config.training.monitoring_budget and engine.board.state not in STILL

    # -- a look and a job, each on a thread of its own -------------------------------------------

    def _begin(self, engine: Engine, place: Place, work: Callable[[State], object]) -> None:
        place.taken = True

        def run(state: State) -> None:
            try:
                work(state)
            finally:
                place.job, place.taken, place.progress = None, False, {}
                if not engine.keeper.stopping.is_set():
                    engine.keeper.soon("jobs")

        engine.keeper.beside(f"host-{place.name}", run)

    def _look_at(self, engine: Engine, place: Place, _: State) -> None:
        """Ask a host how it is."""
        order = {"home": str(self.home.root), "act": "look", "host": place.name}
        try:
            found = jobprocess.run(order, lambda _: None, engine.keeper.stopping.is_set)["look"]
        except (Died, OSError) as error:
            if not engine.keeper.stopping.is_set():
                place.rest(str(error))
            return
        if found["state"] == "down":
            place.rest(found["why"])
        elif found["state"] == "refused":
            place.rest(found["why"], mend=True)
        else:
            busy = found["state"] == "busy"
            place.rest(found["why"], busy=True) if busy else place.met(IDLE)
        if found["state"] in ("idle", "busy"):
            place.measured(found["gpus"], found["ram"])

    def _start(
        self, engine: Engine, state: State, config: Config, place: Place, waits: Job
    ) -> None:
        try:
            job = jobs.claim(state, waits.id, place.name)
        except Refused:
            return  # somebody cancelled it just now
        self.waiting -= 1
        place.job, place.model, place.stage = job.id, job.model, job.state
        place.met(BUSY)
        device = config.evaluation.local or "cpu"
        order = {
            **{"home": str(self.home.root), "act": "evaluate", "model": job.model},
            **{"digest": job.digest, "sets": list(job.sets), "host": place.name},
            **{"device": device, "threads": _threads(engine)},
        }
        self._begin(engine, place, lambda own: _Run(self, engine, own, place, job, order).run())


def _threads(engine: Engine) -> int:
    """CPU threads of a job on this machine: where a CPU trains, every thread more is one that a
    step may have to wait for."""
    return 1 if _trains_here(engine) else max(1, (os.cpu_count() or 1) // 2)


def _trains_here(engine: Engine) -> bool:
    """Whether the processor trains now, or may for all that is known."""
    on_cpu = str(engine.board.model.get("device")).startswith(("cpu", "{"))
    return on_cpu and engine.board.state not in STILL


class _Run:
    """One try of one job, from its process's first word to what becomes of the row."""

    def __init__(
        self, of: Evaluations, engine: Engine, state: State, place: Place, job: Job, order: Json
    ) -> None:
        self.of, self.engine, self.state = of, engine, state
        self.place, self.job, self.order = place, job, order
        self._why, self._late = "", False
        self._checked = 0.0
        self._noted = time.monotonic()
        self._came = False

    def run(self) -> None:
        try:
            outcome = jobprocess.run(self.order, self._told, self._ending, self._limit)["outcome"]
        except (Died, OSError) as error:
            outcome = {"kind": "broken", "error": str(error)}
        self._place_after(outcome)
        try:
            self._settle(outcome)
        except Refused as error:
            log.debug("%s", error)  # cancelled at the last moment

    # -- while it runs --------------------------------------------------------------------------

    def _limit(self) -> float | None:
        """CPU seconds a second for a job on the processor that trains, within
        training.monitoring_budget; None without a limit."""
        if self.place.name != LOCAL or not _trains_here(self.engine):
            return None
        training, cores = self.of._config_now(self.engine).training, os.cpu_count() or 1
        if not training.monitoring_budget:
            return None  # it is called off
        each = training.processes if isinstance(training.processes, int) else 1
        threads = training.threads * each or cores
        return beside(training.monitoring_budget, cores, threads)

    def _told(self, line: Json) -> None:
        place = self.place
        if "meters" in line:
            place.measured(line["meters"].get("gpu"), line["meters"].get("ram"))
            return
        place.progress = line
        if line.get("stage") != "running":
            return
        items, answered = int(line["items"]), int(line["answered"])
        if place.stage != JobState.RUNNING:
            place.stage = JobState.RUNNING
            self.job = self._moved(lambda: jobs.running(self.state, self.job.id, items, answered))
        elif answered > self.job.answered:
            self._came = True
            if time.monotonic() - self._noted >= PROGRESS_SECONDS:
                self._noted = time.monotonic()
                jobs.progress(self.state, self.job.id, answered)

    def _moved(self, move: Callable[[], Job]) -> Job:
        try:
            return move()
        except Refused:
            return self.job

    def _ending(self) -> bool:
        """Whether the process is to end, and in `_why` the reason."""
        if self._why:
            return True
        if self.engine.keeper.stopping.is_set():
            self._why = "the engine ended"
        elif time.monotonic() - self._checked >= CHECK_SECONDS:
            self._checked = time.monotonic()
            found = jobs.get(self.state, self.job.id)
            if found.state not in TAKEN:
                self._why = "it was cancelled"
            elif found.deadline is not None and now() >= found.deadline:
                self._why, self._late = jobs.overdue(found), True
            elif self.place.name == LOCAL and self.of._must_wait(
                self.engine, self.of._config_now(self.engine)
            ):
                self._why = "training goes on, and training.monitoring_budget is 0"
        return bool(self._why)

    # -- after it -------------------------------------------------------------------------------

    def _place_after(self, outcome: Json) -> None:
        place, code = self.place, str(outcome.get("code") or "")
        if outcome["kind"] in ("host", "broken") and code and place.name != LOCAL:
            mend = bool(outcome.get("mend"))
            place.rest(str(outcome["error"]), busy=code == "busy", mend=mend)
        else:
            place.met(IDLE)

    def _show_samples(self) -> None:
        """Its answers may be samples of the present line (engine.judging.sampled)."""
        if not self.of._config_now(self.engine).samples_on_host:
            return
        line = lines.segments(records.line(self.state, live=True))
        with closing(open_metrics(self.state.home)) as metrics:
            step = newest_step(metrics, line)
        if step is not None:
            self.engine.board.samples_step = step

    def _settle(self, outcome: Json) -> None:
        """The row after the process has ended."""
        state, job = self.state, self.job
        counts = {
            key: int(outcome[key])
            for key in ("items", "answered", "errors")
            if outcome.get(key) is not None
        }
        kind, error = outcome["kind"], str(outcome.get("error") or "")
        if jobs.get(state, job.id).state not in OPEN:
            return
        if kind == "done":
            jobs.done(state, job.id, **counts)
            self._show_samples()
        elif kind == "gone":
            jobs.supersede(state, job.id, error)
        elif kind == "failed":
            jobs.fail(state, job.id, error, **counts)
        elif self._why:
            if self._late:
                jobs.fail(state, job.id, self._why, **counts)
            else:
                jobs.again(state, job.id, self._why, failures=job.failures, **counts)
        elif kind == "host":
            after = MEMORY_SECONDS if self.place.name == LOCAL else 0.0
            jobs.again(state, job.id, error, after=after, failures=job.failures, **counts)
        else:
            came = self._came or counts.get("answered", 0) > job.answered
            failures = 1 if came else job.failures + 1
            if failures >= MAX_FAILURES:
                jobs.fail(state, job.id, f"{failures} tries in a row: {error}", **counts)
            else:
                after = backoff(failures)
                jobs.again(state, job.id, error, after=after, failures=failures, **counts)
