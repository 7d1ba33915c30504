"""Homes, hosts and questions that the tests of evaluation jobs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from engine.sessions.dispatch import Dispatcher
from queue_store import jobs, journal
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.jobs import Job, JobState
from queue_store.results import Results
from tests import engine_kit as kit
from tests.host_kit import Stub, make_stub, table
from tests.sshd_kit import Host
from tests.test_evaluate import write_set
from tests.waiting import wait_until

CHILD = "engine.judging.job"
ITEMS = 6
HANGS = "until cancelled"
"""What a stub worker does at last (see stub_worker.py)."""


def make(folder: Path, **changes: dict[str, Any]) -> Home:
    home = kit.make_home(folder, samples={"max_tokens": 8}, **changes)
    write_set(home, "sums", *(f"What is {n} + 1?" for n in range(ITEMS)))
    return home


class Engine(kit.Running):
    """An engine that commands reach as those of a session do."""

    def tell(self, command: str, **arguments: Any) -> Any:
        dispatcher = Dispatcher(self.engine)
        try:
            return dispatcher.begin(command, arguments).result(60)
        finally:
            dispatcher.close()

    def host(self, name: str) -> dict[str, Any]:
        found = self.tell("jobs")["hosts"]
        return next((host for host in found if host["name"] == name), {"state": "not named"})


class Set:
    """A set of its own for a test, and hosts with stub workers of its own."""

    def __init__(self, home: Home, name: str, sshd: Host, folder: Path) -> None:
        self.home, self.name, self._sshd, self._folder = home, name, sshd, folder
        write_set(home, name, *(f"What is {n} + {name}?" for n in range(ITEMS)))

    def host(self, name: str, *acts: dict[str, Any]) -> Stub:
        """A host in config.toml. `acts` befall the workers of jobs; a look comes before them."""
        folder = self._folder / name
        folder.mkdir()
        stub = make_stub(self._sshd, folder)
        stub.acts(None, *acts)
        self.home.config.write_text(f"{self.home.config.read_text()}\n{table(name, stub)}")
        return stub

    def answered(self) -> int:
        with Results(self.home) as results:
            return sum(one.complete for one in results.evaluations(set_name=self.name))

    def order(self, running: Engine, host: str, **more: Any) -> int:
        values = {"model": "v001", "sets": [self.name], "host": host, **more}
        return int(running.tell("evaluate", **values)["id"])

    def until_answered(self, count: int) -> None:
        wait_until(lambda: self.answered() == count, timeout=120, what=f"{count} answers")


def listed(home: Home) -> list[Job]:
    with open_state(home) as state:
        found = [*jobs.unfinished(state), *jobs.ended(state, 100)]
    return sorted(found, key=lambda job: job.id)


def one(home: Home, number: int) -> Job:
    return next(job for job in listed(home) if job.id == number)


def wait_for(home: Home, number: int, *states: JobState) -> Job:
    def there() -> Job | None:
        job = one(home, number)
        return job if job.state in states else None

    return wait_until(there, timeout=120, what=f"job {number} {states}, {one(home, number)}")


def all_ended(home: Home, count: int) -> list[Job]:
    def ended() -> list[Job]:
        found = listed(home)
        return found if len(found) >= count and all(j.ended for j in found) else []

    return wait_until(ended, timeout=120, what="the jobs' end")


def told(home: Home, number: int) -> list[str]:
    """The states that the journal tells of a job."""
    with open_state(home) as state:
        events = journal.events(state, 0, 5000)
        kinds = [e.kind for e in events if e.data.get("job") == number]
    return [kind.removeprefix("evaluation.") for kind in kinds]


def children() -> list[psutil.Process]:
    """The processes of jobs and looks."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if CHILD in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found
