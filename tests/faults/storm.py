"""Random SIGKILLs of an engine under load: adds, training, snapshots, prunes, rollbacks at once.

    python -m tests.faults.storm [--kills N] [--seed N] [--rollbacks]

The engine (its thread, its socket, its lock: the same code as the daemon's) runs in forks of this
process, which has imported torch once; this process is the person outside, who adds files and
asks over the socket, and remembers what was acknowledged. At the end the rest is trained, the
checker looks, and without rollbacks the weights are those of an undisturbed run over the same
files in the order in which they trained. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from engine.sessions import client
from queue_store import config as configuration
from queue_store import intake, queue, transitions
from queue_store.database import open_state
from queue_store.errors import NoEngine, TrainctlError
from queue_store.home import Home
from queue_store.items import ItemState
from queue_store.lock import EngineLock
from tests import engine_kit as kit
from tests.faults.bench import scratch
from tests.faults.checker import check
from tests.faults.looked import Ack
from tests.waiting import wait_until

ROWS = 6
MAX_WAITING = 6
LIFE_SECONDS = 30.0
"""After which an engine that does not train is killed all the same."""


def engine_process(home: Home) -> None:
    """What the daemon's training process is, in this fork."""
    from trainctl.host import Host

    host = Host(home, configuration.load(home.config), EngineLock.acquire(home, "storm"), "daemon")
    host.start()
    host.ended.wait()


@contextmanager
def running(act: Callable[[], object]) -> Iterator[int]:
    """A fork that runs `act`, killed at the end of the block if it still lives."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


class Outside:
    """The person at the terminal: acts at random, and writes down what was acknowledged."""

    def __init__(self, home: Home, draw: random.Random, *, rollbacks: bool) -> None:
        self.home = home
        self.draw = draw
        self.rollbacks = rollbacks
        self.acks: list[Ack] = []
        self.acted: dict[str, int] = {}
        self.files = 0

    def add(self) -> None:
        if self._waiting() >= MAX_WAITING:
            return
        self.files += 1
        path = kit.write_rows(self.home.root / f"f{self.files}.jsonl", ROWS, self.files)
        with open_state(self.home) as state:
            item = intake.add_file(state, path)
        self.acks.append({"kind": "item", "id": item.id, "name": item.name, "digest": item.digest})

    def drop(self) -> None:
        """A file into the inbox, as rsync does: under its last name at once."""
        if self._waiting() >= MAX_WAITING:
            return
        self.files += 1
        path = kit.write_rows(self.home.root / "new", ROWS, self.files)
        path.rename(self.home.inbox / f"f{self.files}.jsonl")

    def snapshot(self, session: client.SocketSession) -> None:
        made = session.request("snapshot_version", timeout=10)
        self.acks.append(
            {
                "kind": "version",
                "name": made["name"],
                "weights_digest": made["weights_digest"],
                "verified": True,
            }
        )

    def save(self, session: client.SocketSession) -> None:
        made = session.request("save", timeout=10)
        with open_state(self.home) as state:
            row = state.db.execute(
                "SELECT * FROM checkpoints WHERE name = ?", (made["checkpoint"],)
            ).fetchone()
        self.acks.append(
            {
                "kind": "checkpoint",
                "name": row["name"],
                "weights_digest": row["weights_digest"],
                "step": row["step"],
            }
        )

    def pause(self, session: client.SocketSession) -> None:
        session.request("pause", timeout=10)
        session.request("resume", timeout=10)

    def roll_back(self, session: client.SocketSession) -> None:
        if not self.rollbacks:
            return
        told = session.request("rollback_plan", timeout=10)
        done = session.request("rollback", timeout=10, version=told["version"], plan=told["plan"])
        self.acks.append({"kind": "rollback", "branch": done["branch"], "step": done["step"]})

    def act(self, session: client.SocketSession | None) -> None:
        """One thing, drawn; what is refused or cut off was not acknowledged."""
        acts: list[tuple[str, int]] = [("add", 4), ("drop", 2)]
        if session is not None:
            acts += [("snapshot", 2), ("save", 3), ("pause", 1), ("roll_back", 1)]
        name = self.draw.choices([a for a, _ in acts], [w for _, w in acts])[0]
        try:
            if name in ("add", "drop"):
                getattr(self, name)()
            else:
                getattr(self, name)(session)
            self.acted[name] = self.acted.get(name, 0) + 1
        except TrainctlError as error:
            self.acted[f"{name} refused"] = self.acted.get(f"{name} refused", 0) + 1
            if isinstance(error, NoEngine):
                raise

    def revive(self) -> None:
        """Retry, as a person does, what failed by crashes alone: kills that come in a row."""
        with open_state(self.home) as state:
            for item in queue.items(state, ItemState.FAILED):
                if item.reason == "crashes":
                    transitions.retry(state, item.id)
                    self.acted["retry"] = self.acted.get("retry", 0) + 1

    def _waiting(self) -> int:
        with open_state(self.home) as state:
            counts = queue.counts(state)
        return counts["queued"] + counts["paused"] + len(list(self.home.inbox.glob("*.jsonl")))


def alive(pid: int) -> bool:
    """Whether a fork of this process has not ended (it stays to be waited for)."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def connected(home: Home) -> client.SocketSession | None:
    """A session with the engine, if it answers already."""
    try:
        return client.connect(home, timeout=1.0)
    except TrainctlError:
        return None


def kill_later(home: Home, pid: int, seconds: float, *, trains: bool) -> None:
    """The killer: `seconds` after now, or after the engine trains."""
    limit = time.monotonic() + LIFE_SECONDS
    session = None
    while trains and time.monotonic() < limit:
        session = session or connected(home)
        if session and session.request("snapshot", timeout=10)["state"] == "training":
            break
        time.sleep(0.02)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


def one_life(outside: Outside) -> None:
    """An engine, killed at a random moment by a process that nobody waits for."""
    trains = outside.draw.random() < 0.75
    seconds = outside.draw.uniform(0.0, 1.5 if trains else 1.0)
    with running(lambda: engine_process(outside.home)) as pid:
        kill = functools.partial(kill_later, outside.home, pid, seconds, trains=trains)
        with running(kill) as killer:
            session = None
            while alive(pid):
                try:
                    session = session or connected(outside.home)
                    outside.act(session)
                except NoEngine:
                    session = None
                time.sleep(outside.draw.uniform(0.0, 0.1))
            if session is not None:
                session.close()
            os.waitpid(killer, 0)


def train_rest(home: Home) -> None:
    with kit.Running(home) as running_engine:
        running_engine.unpause()
        wait_until(lambda: not list(home.inbox.glob("*.jsonl")), timeout=60)
        running_engine.wait_trained()


def finished(act: Callable[[], object]) -> int:
    with running(act) as pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def undisturbed(home: Home, folder: Path) -> str:
    """The weights of another home that trains the same files in the order in which they trained."""
    order: list[int] = []
    for step in kit.steps(home):
        if step["item"] not in order:
            order.append(step["item"])
    other = storm_home(folder)
    with open_state(home) as state, open_state(other) as there:
        for number in order:
            item = queue.get(state, number)
            intake.add_file(there, home.items / item.file, name=item.name)
    assert finished(lambda: train_rest(other)) == 0, "the undisturbed run fails"
    return kit.head(other).weights_digest


def storm_home(folder: Path) -> Home:
    return kit.make_home(folder, training={"save_steps": 2}, snapshots={"keep_checkpoints": 3})


def storm(folder: Path, kills: int, seed: int, *, rollbacks: bool) -> dict[str, Any]:
    home, draw = storm_home(folder / "home"), random.Random(seed)
    outside = Outside(home, draw, rollbacks=rollbacks)
    outside.add()
    for _ in range(kills):
        one_life(outside)
        outside.revive()
    wrong = [f"at once {v}" for v in check(home.root, outside.acks, recovered=False)]
    for _ in range(3):  # a last crash may still fail one
        if code := finished(lambda: train_rest(home)):
            wrong.append(f"the rest cannot be trained: {code}")
        outside.revive()
    wrong += [f"trained {v}" for v in check(home.root, outside.acks)]
    states = kit.states(home)
    wrong += [f"{n} is {s}" for n, s in states.items() if s not in ("done", "skipped")]
    if not rollbacks:
        has = kit.head(home).weights_digest
        expected = undisturbed(home, folder / "other")
        wrong += [f"weights {has[:12]}, undisturbed {expected[:12]}"] if has != expected else []
    with closing(open_state(home)) as state:
        crashes = state.db.execute(
            "SELECT COUNT(*) FROM attempts WHERE cause LIKE 'restart%'"
        ).fetchone()[0]
    return {
        "scenario": f"storm {seed}",
        "point": f"{kills} kills",
        "acted": outside.acted,
        "acknowledged": len(outside.acks),
        "items": len(states),
        "steps": kit.head(home).step,
        "killed_while_training": crashes,
        "wrong": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rollbacks", action="store_true")
    given = parser.parse_args()
    import torch

    import engine.loop.worker  # noqa: F401 - once, for all forks

    torch.set_num_threads(1)
    with scratch() as folder:
        told = storm(folder, given.kills, given.seed, rollbacks=given.rollbacks)
    print(json.dumps(told))


if __name__ == "__main__":
    sys.exit(main())
