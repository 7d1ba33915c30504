"""One session with a worker: greet it, bring a model, have it load that model and prove it, ask.

What the worker says is checked against what was asked: another digest, an unknown item, a value
of another type is a failure of the host, never an answer.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.host import bundle
from evaluation.host.channel import expect
from evaluation.host.errors import HostFailure
from evaluation.host.machine import Machine
from evaluation.host.shipment import Shipment
from evaluation.host.shipped.frames import PROTO, Message
from evaluation.host.shipping import Progress, ship
from queue_store.programs import Cancelled, never

HELLO_SECONDS = 60.0
LOAD_SECONDS = 3600.0
CANCEL_SECONDS = 30.0
LOOK_SECONDS = 0.2
CHUNK_BYTES = 8 << 20
"""Bytes of items that go in one frame."""
TOLERANCE = {"fp32": 0.02, "bf16": 0.35}
"""How far a log-probability of the probe may lie from the recorded one, in nats."""
PROBED = 8
"""Tokens of the recorded probe that are looked for."""

Event = Callable[[Message], None]


@dataclass(frozen=True)
class Answer:
    """What became of an item. `digest` is the version's weights digest, proven by the host before
    it answered. `finish`: "stop", "length" (max_tokens, or no context left), or "error": then
    `error` says why there is no answer, and `text` is "". `ms` is its share of the wall time of a
    batch of `batch` rows; `prompt_tokens` is what was read before it. `text` is foreign: through
    queue_store.safe before a terminal."""

    id: str
    digest: str
    text: str
    tokens: int
    finish: str
    ms: float
    batch: int
    backend: str
    error: str = ""
    prompt_tokens: int = 0


@dataclass(frozen=True)
class Loaded:
    """A model that a worker loaded: device, precision ("fp32", "bf16"), its probe [[token,
    log-probability]…], seconds it took, and bytes that had to be sent for it."""

    digest: str
    device: str
    precision: str
    probe: tuple[tuple[int, float], ...]
    seconds: float
    sent: int


@dataclass(frozen=True)
class Done:
    """The end of a job: answers told, tokens of them, seconds, and the last batch's size."""

    told: int
    tokens: int
    seconds: float
    batch: int
    backend: str
    cancelled: bool


class Session:
    """Open while the context lasts; the thread that opens it must outlive it. `lock` takes the
    store, which refuses a second worker; without it, one may only look. Raises HostFailure."""

    def __init__(self, machine: Machine, *, who: str = "trainctl", lock: bool = True) -> None:
        self.machine = machine
        self.on_event: Event = _ignore
        """Hears meters, and an answer while it grows."""
        self.channel = machine.open()
        try:
            self.channel.send(
                {
                    **{"kind": "hello", "proto": PROTO, "worker": bundle.digest(), "who": who},
                    **{"silence": machine.silence, "lock": lock, "keep": machine.keep},
                    **{"device": machine.device, "threads": machine.threads},
                    "precision": machine.precision,
                    "store": machine.place.path if machine.place else "",
                }
            )
            self.facts = expect(self.channel, "hello", HELLO_SECONDS + machine.start)
            if self.facts.get("proto") != PROTO:
                what = f"the worker speaks protocol {self.facts.get('proto')!r}, not {PROTO}"
                raise HostFailure("protocol", what, where=machine.where)
        except BaseException:
            self.channel.close()
            raise
        self._loaded: Shipment | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def load(
        self,
        shipment: Shipment,
        *,
        recorded: Loaded | None = None,
        cancelled: Cancelled = never,
        progress: Progress | None = None,
    ) -> Loaded:
        """Bring the model there and have it loaded, every byte compared and the probe with
        `recorded`, where there is one. What the store held damaged is sent again, once.

        Raises HostFailure (digest, probe, model, no_memory, disk_full …), BrokenOff.
        """
        if missing := self.facts.get("missing"):
            what = f"not installed for its Python: {', '.join(map(str, missing))}"
            raise HostFailure("no_packages", what, where=self.machine.where)
        sent = 0
        for last in (False, True):
            if self.machine.place is not None:
                sent += self._ship(shipment, not last, cancelled, progress)
            try:
                return self._load(shipment, recorded, sent)
            except HostFailure as failure:
                if failure.code != "digest" or last or self.machine.place is None:
                    raise
        raise AssertionError("the second turn returns or raises")

    def _ship(
        self, shipment: Shipment, linked: bool, cancelled: Cancelled, progress: Progress | None
    ) -> int:
        return ship(
            *(self.machine, self.channel, shipment),
            linked=linked,
            cancelled=cancelled,
            progress=progress,
        )

    def _load(self, shipment: Shipment, recorded: Loaded | None, sent: int) -> Loaded:
        paths = self.machine.place is None
        self.channel.send({"kind": "load", **_named(shipment, paths=paths)})
        told = expect(self.channel, "loaded", LOAD_SECONDS, self._other)
        try:
            loaded = Loaded(
                digest=str(told["digest"]),
                device=str(told["device"]),
                precision=str(told["precision"]),
                probe=tuple((int(token), float(value)) for token, value in told["probe"]),
                seconds=float(told["seconds"]),
                sent=sent,
            )
        except (KeyError, TypeError, ValueError):
            raise self._nonsense("loaded") from None
        if loaded.digest != shipment.digest:
            raise HostFailure("digest", "another model was loaded", where=self.machine.where)
        if recorded is not None and (why := differs(recorded, loaded)):
            raise HostFailure("probe", why, where=self.machine.where)
        self._loaded = shipment
        return loaded

    def deploy(
        self,
        shipment: Shipment,
        about: Mapping[str, str],
        *,
        cancelled: Cancelled = never,
        progress: Progress | None = None,
    ) -> Message:
        """Bring a model there and make it the one that is served from the host's store, every byte
        of it read there; needs no torch. `about` is its version and weights_digest. What the host
        says is deployed then. Raises HostFailure, BrokenOff."""
        assert self.machine.place is not None, "this machine has no store of its own"
        for last in (False, True):
            self._ship(shipment, not last, cancelled, progress)
            self.channel.send({"kind": "deploy", "about": dict(about), **_named(shipment)})
            try:
                told = expect(self.channel, "deployed", LOAD_SECONDS, self._other)
            except HostFailure as failure:
                if failure.code != "digest" or last:
                    raise
                continue
            if told.get("digest") != shipment.digest:
                raise HostFailure("digest", "another model is deployed", where=self.machine.where)
            return told
        raise AssertionError("the second turn returns or raises")

    def generate(
        self,
        items: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any],
        on_result: Callable[[Answer], None],
        *,
        cancelled: Cancelled = never,
    ) -> Done:
        """Have every item of {id, messages or text} answered by the loaded model; `on_result`
        hears each answer as it comes, on this thread. `config` is that of shipped/job.py.

        Raises HostFailure; what `on_result` heard until then stays true.
        """
        assert self._loaded is not None, "load a model first"
        whole = Done(0, 0, 0.0, 0, str(config.get("backend", "plain")), False)
        for some in _chunks(items):
            part = self._job(self._loaded, some, config, on_result, cancelled)
            whole = Done(
                told=whole.told + part.told,
                tokens=whole.tokens + part.tokens,
                seconds=whole.seconds + part.seconds,
                batch=part.batch,
                backend=part.backend,
                cancelled=part.cancelled,
            )
            if part.cancelled:
                break
        return whole

    def _job(
        self,
        loaded: Shipment,
        items: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any],
        on_result: Callable[[Answer], None],
        cancelled: Cancelled,
    ) -> Done:
        job = uuid.uuid4().hex
        waits = {str(item["id"]) for item in items}
        self.channel.send(
            {
                **{"kind": "generate", "job": job, "digest": loaded.digest},
                **{"items": list(items), "config": dict(config)},
            }
        )
        told, ends = 0, 0.0
        while True:
            message = self.channel.receive(LOOK_SECONDS)
            if message is None or message.get("job") != job:
                if message is not None:
                    self._other(message)
            elif message["kind"] == "result":
                answer = self._answer(message, loaded, waits)
                waits.discard(answer.id)
                told += 1
                on_result(answer)
            elif message["kind"] == "done":
                return self._done(message, told, waits)
            else:
                self._other(message)
            # Also where frames come without a pause: an answer that grows is one after another.
            if not ends and cancelled():
                self.channel.send({"kind": "cancel", "job": job})
                ends = time.monotonic() + CANCEL_SECONDS
            elif ends and time.monotonic() > ends:
                what = "the worker did not end a job that was cancelled"
                raise HostFailure("frozen", what, where=self.machine.where)

    def _answer(self, message: Message, loaded: Shipment, waits: set[str]) -> Answer:
        name, error = message.get("id"), message.get("error", "")
        if message.get("digest") != loaded.digest:
            raise HostFailure("digest", "another model answered", where=self.machine.where)
        if name not in waits:
            raise self._nonsense("result")
        digest = loaded.weights.weights_digest
        try:
            if error:
                return Answer(name, digest, "", 0, "error", 0.0, 0, "", _text(error))
            if message["finish"] not in ("stop", "length"):
                raise ValueError
            return Answer(
                id=name,
                digest=digest,
                text=_text(message["text"]),
                tokens=int(message["tokens"]),
                finish=message["finish"],
                ms=float(message["ms"]),
                batch=int(message["batch"]),
                backend=_text(message["backend"]),
                prompt_tokens=int(message["prompt_tokens"]),
            )
        except (KeyError, TypeError, ValueError):
            raise self._nonsense("result") from None

    def _done(self, message: Message, told: int, waits: set[str]) -> Done:
        try:
            done = Done(
                told=told,
                tokens=int(message["tokens"]),
                seconds=float(message["seconds"]),
                batch=int(message["batch"]),
                backend=_text(message["backend"]),
                cancelled=message["cancelled"] is True,
            )
        except (KeyError, TypeError, ValueError):
            raise self._nonsense("done") from None
        if waits and not done.cancelled:
            what = f"{len(waits)} items were not answered, and the job was called done"
            raise HostFailure("protocol", what, where=self.machine.where)
        return done

    def _other(self, message: Message) -> None:
        if message["kind"] in ("meters", "progress"):
            self.on_event(message)

    def _nonsense(self, kind: str) -> HostFailure:
        what = f"a {kind} frame that makes no sense"
        return HostFailure("protocol", what, where=self.machine.where)


def _named(shipment: Shipment, *, paths: bool = False) -> Message:
    """A shipment, and the base of an adapter, as a frame tells it."""
    found: Message = {"digest": shipment.digest, "files": shipment.listed(paths=paths)}
    if shipment.base is not None:
        found["base"] = shipment.base.digest
        found["base_files"] = shipment.base.listed(paths=paths)
    return found


def differs(recorded: Loaded, now: Loaded) -> str:
    """Why a probe is not that of the recorded model; "" where it is, within the tolerance of the
    coarser precision of the two."""
    tolerance = max(TOLERANCE.get(one.precision, 0.35) for one in (recorded, now))
    found = dict(now.probe)
    least = min(found.values(), default=0.0)
    for token, value in recorded.probe[:PROBED]:
        # A token that is not among the likeliest now lies below the last of them.
        gap = abs(value - found[token]) if token in found else value - least
        if gap > tolerance:
            return (
                f"the loaded model computes something else: token {token} of the probe is"
                f" {gap:.2f} nats off, {tolerance:g} are allowed"
            )
    return ""


def _chunks(items: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The items in portions that fit a frame."""
    parts: list[list[Mapping[str, Any]]] = []
    room = 0
    for item in items:
        size = len(json.dumps(item))
        if size > room or not parts:
            parts.append([])
            room = CHUNK_BYTES
        parts[-1].append(item)
        room -= size
    return parts


def _text(value: Any) -> str:
    """A host's text, fit to be stored: no lone surrogates. Raises TypeError for other values."""
    if not isinstance(value, str):
        raise TypeError
    return value.encode("utf-8", "replace").decode()


def _ignore(message: Message) -> None:
    """What nobody listens to."""
