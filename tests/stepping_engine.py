"""An engine without a model: a thread that counts steps and does commands between two of them.

It implements engine.sessions.controlport.Control for real (a thread, a queue of requests, an
immutable status), so that sessions are tested against the timing of an engine and not against a
fake's.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from engine.machine.meters import History
from engine.machine.telemetry import INTERVAL
from engine.messages import EngineState
from engine.reading.status import disk_status, engine_status, model_status, status
from queue_store.errors import Refused
from queue_store.home import Home


def make_home(root: Path) -> Home:
    home = Home(root)
    home.create()
    home.config.write_text("")
    return home


class SteppingEngine:
    """`step_seconds` is the length of a step: no command is done faster than that. Ended as a
    context or by end(); conftest tells the test that left one."""

    THREAD = "stepping engine"

    def __init__(self, home: Home, step_seconds: float = 0.01) -> None:
        self.home = home
        self.steps = 0
        self.woken = 0
        self.looks = 0
        self.done: list[tuple[str, dict[str, Any]]] = []
        self._step_seconds = step_seconds
        self._requests: queue.Queue[tuple[str, dict[str, Any], Future[Any]]] = queue.Queue()
        self._paused = False
        self._ended = threading.Event()
        self._started = time.time()
        self._status: dict[str, Any] = {}
        self._publish()
        self._thread = threading.Thread(target=self._run, name=self.THREAD, daemon=True)
        self._thread.start()

    # -- Control ---------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        return self._status

    def meters(self) -> dict[str, Any]:
        return History().shown(INTERVAL)

    def prompt_progress(self, key: str) -> dict[str, Any]:
        return {"answering": False, "answer": "", "tokens": 0}

    def submit(self, command: str, arguments: dict[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        self._requests.put((command, arguments, answer))
        return answer

    def look_at_hosts(self) -> None:
        self.looks += 1

    def wake(self) -> None:
        self.woken += 1

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.wait(self._step_seconds):
            if not self._paused:
                self.steps += 1
            while not self._requests.empty():
                command, arguments, answer = self._requests.get()
                self.done.append((command, arguments))
                try:
                    answer.set_result(self._do(command, arguments))
                except Exception as error:
                    answer.set_exception(error)
            self._publish()

    def _do(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "pause":
            self._paused = True
            return {"requested_step": self.steps, "step": self.steps}
        if command == "resume":
            if not self._paused:
                raise Refused("training is not paused", mend="nothing to do")
            self._paused = False
            return {"step": self.steps}
        if command == "save":
            raise ZeroDivisionError("a defect")
        if command == "handover":
            return {"path": Path("/"), "unwritable": object()}
        return {"scheduled": True, "step": self.steps}

    def _publish(self) -> None:
        self._status = status(
            state=EngineState.PAUSED if self._paused else EngineState.TRAINING,
            branch=1,
            global_step=self.steps,
            loss=float("nan"),
            queue={"high": 0, "normal": 0, "low": 0},
            head_checkpoint="base",
            head_version=None,
            model=model_status(name="none", method="full"),
            gpus=[],
            ram={"used": 1, "total": 2, "process": 1},
            disk=disk_status(self.home.store, None, 0),
            engine=engine_status(
                pid=os.getpid(), supervisor_pid=None, mode="console", started=self._started
            ),
            paused=self._paused,
        )

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> SteppingEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
