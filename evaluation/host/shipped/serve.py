"""The worker's loop: frames in from stdin, frames out on what was stdout.

Libraries print: stdout is pointed at stderr before any is imported, and the frames have a
descriptor of their own. A thread hears the other side; another ends this process when nothing
was heard for too long, so that a dead link leaves no model in a card's memory.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from evaluation.host.shipped import continuous, meters, plain
from evaluation.host.shipped.frames import MAGIC, PROTO, BadFrame, Message, Trouble, pack, read
from evaluation.host.shipped.job import Job
from evaluation.host.shipped.model import Loaded, load, prepare_process, seconds_since
from evaluation.host.shipped.store import Store, checked, linked

SILENCE = 60.0
"""Seconds without a frame after which the worker ends, until the other side says another."""
METERS_SECONDS = 5.0
BYE, SILENT, GARBAGE = 0, 5, 6
"""Exit codes: told to go or the link is closed; nothing heard for too long; no frames."""
BACKENDS = (plain, continuous)


class Worker:
    """One connection: at most one store, one loaded model, one job at a time."""

    def __init__(self, stdin: BinaryIO, out: int) -> None:
        self.stdin, self.out = stdin, out
        self.writing = threading.Lock()
        self.heard = time.monotonic()
        self.silence = SILENCE
        self.asked: queue.Queue[Message] = queue.Queue()
        self.cancelled: set[str] = set()
        self.store: Store | None = None
        self.loaded: Loaded | None = None
        self.settings: Message = {}

    def send(self, message: Message) -> None:
        data = memoryview(pack(message))
        with self.writing:
            while data:
                data = data[os.write(self.out, data) :]

    def run(self) -> None:
        """Until the other side is gone; never returns."""
        for target in (self._listen, self._watch, self._measure):
            threading.Thread(target=target, daemon=True).start()
        while True:
            message = self.asked.get()
            try:
                handler = getattr(self, f"on_{message['kind']}", None)
                if handler is None:
                    raise Trouble("protocol", f"unknown frame {message['kind'][:50]}")
                handler(message)
            except Trouble as trouble:
                self._complain(message, trouble.trouble, trouble.text, trouble.names)
            except OSError as error:
                full = error.errno in (28, 122)  # ENOSPC, EDQUOT
                text = f"{error.filename or ''}: {error.strerror or error}"
                self._complain(message, "disk_full" if full else "failed", text)
            except Exception as error:
                import traceback

                traceback.print_exc()
                self._complain(message, "failed", f"{type(error).__name__}: {error}"[:500])

    # -- what is asked ---------------------------------------------------------------------

    def on_hello(self, message: Message) -> None:
        """{proto, silence, store, keep, device, threads, lock}: who asks, and with what."""
        if message.get("proto") != PROTO:
            raise Trouble("protocol", f"protocol {message.get('proto')}; this worker has {PROTO}")
        self.settings = message
        self.silence = float(message.get("silence", SILENCE))
        prepare_process(str(message.get("device", "auto")), int(message.get("threads", 0)))
        facts: Any = {"unknown": "the weights are read where they are"}
        holder = ""
        if message.get("store"):
            store = Store(str(message["store"]))
            holder = store.holder()
            if message.get("lock"):
                store.open(f"process {os.getpid()} for {message.get('who', 'somebody')}")
                self.store = store
            facts = store.facts()
        self.send(
            {
                **{"kind": "hello", "proto": PROTO, "worker": message.get("worker", "")},
                **{"pid": os.getpid(), "busy": holder, "store": facts, "gpu": meters.cards()},
                **{"ram": meters.memory(), **meters.machine()},
                "missing": meters.missing(),
                "backends": [backend.NAME for backend in BACKENDS if backend.available()],
            }
        )

    def on_prepare(self, message: Message) -> None:
        """{digest, bytes, spare[]}: room for a model that is to come."""
        digest = str(message.get("digest"))
        keep = int(self.settings.get("keep", 3))
        size, spare = int(message["bytes"]), [str(one) for one in message.get("spare", ())]
        self.send({"kind": "prepared", **self._its_store().prepare(digest, size, keep, spare)})

    def on_load(self, message: Message) -> None:
        """{digest, files, base, base_files, device, precision}: verify and load a model; with a
        `path` in each file it is read where it lies."""
        started = time.monotonic()
        digest, files, base = checked(message)
        self._unload()
        with contextlib.ExitStack() as stack:
            folder, adapter = self._folder(digest, files, stack), None
            if base:
                adapter = folder
                found, listed, _ = checked({"digest": base, "files": message.get("base_files")})
                folder = self._folder(found, listed, stack)
            precision = str(self.settings.get("precision", "auto"))
            device = str(self.settings.get("device", "auto"))
            self.loaded = load(folder, adapter, digest, device, precision)
        self.send(
            {
                **{"kind": "loaded", "digest": digest, "probe": self.loaded.probe()},
                **{"device": self.loaded.device, "precision": self.loaded.dtype},
                "seconds": seconds_since(started),
            }
        )

    def on_deploy(self, message: Message) -> None:
        """{digest, files, base, base_files, about{version, weights_digest}}: verify a model and
        make it the one that is served from the store."""
        digest, files, base = checked(message)
        store = self._its_store()
        if base:
            found, listed, _ = checked({"digest": base, "files": message.get("base_files")})
            store.verified(found, listed)
        store.verified(digest, files)
        self.send({**store.deploy(digest, base, message.get("about")), "kind": "deployed"})

    def on_generate(self, message: Message) -> None:
        """{job, items[{id, messages or text}], config}: answers, each in a frame of its own."""
        if self.loaded is None:
            raise Trouble("config", "no model is loaded")
        if message.get("digest") != self.loaded.digest:
            raise Trouble("digest", "another model is loaded than the one that is asked")
        name = str(message.get("job"))
        job = Job(message, self.loaded, self.send, lambda: name in self.cancelled)
        for backend in BACKENDS:
            if job.config.backend == backend.NAME and backend.available():
                return backend.run(job)
        raise Trouble("config", f"this host has no backend {job.config.backend[:50]!r}")

    # -- threads ---------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while (message := read(self.stdin)) is not None:
                self.heard = time.monotonic()
                if message["kind"] == "ping":
                    self.send({**message, "kind": "pong"})
                elif message["kind"] == "cancel":
                    self.cancelled.add(str(message.get("job")))
                elif message["kind"] == "bye":
                    self.send({"kind": "bye"})
                    break
                else:
                    self.asked.put(message)
        except BadFrame as error:
            self._last_words("protocol", f"the worker was sent {error}")
            _leave(GARBAGE)
        except OSError:
            pass
        _leave(BYE)

    def _watch(self) -> None:
        while True:
            time.sleep(min(0.2, self.silence / 4))
            if time.monotonic() - self.heard > self.silence:
                print(f"nothing heard for {self.silence:g} s: the worker ends", file=sys.stderr)
                _leave(SILENT)

    def _measure(self) -> None:
        while True:
            time.sleep(METERS_SECONDS)
            try:
                self.send({"kind": "meters", **meters.now()})
            except OSError:
                return  # the link is gone; who listens notices too

    def _last_words(self, trouble: str, text: str) -> None:
        with contextlib.suppress(OSError):
            self.send({"kind": "error", "trouble": trouble, "text": text})

    def _complain(
        self, message: Message, trouble: str, text: str, names: tuple[str, ...] = ()
    ) -> None:
        about = {"about": message["kind"], "job": message.get("job", "")}
        self.send(
            {"kind": "error", "trouble": trouble, "text": text, "names": list(names), **about}
        )

    def _its_store(self) -> Store:
        if self.store is None:
            raise Trouble("store", "no store was opened")
        return self.store

    def _folder(
        self, digest: str, files: list[dict[str, Any]], stack: contextlib.ExitStack
    ) -> Path:
        """Where the verified files of a model are, for as long as the stack lasts."""
        if all("path" in file for file in files):
            return stack.enter_context(linked(files))
        return self._its_store().verified(digest, files)

    def _unload(self) -> None:
        if self.loaded is None:
            return
        self.loaded = None
        import gc

        gc.collect()
        torch: Any = importlib.import_module("torch")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _leave(code: int) -> None:
    """End at once, whatever other threads do: a library's exit handlers may hang on a card."""
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Become a worker. stdin has been read up to the first frame."""
    out = os.dup(1)
    os.dup2(2, 1)
    os.write(out, MAGIC)
    try:
        Worker(sys.stdin.buffer, out).run()
    except OSError:
        _leave(BYE)
