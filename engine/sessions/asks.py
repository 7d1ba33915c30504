"""Prompts to models of the home that do not train now, asked for over a session.

A worker's process answers, started from a thread of ours, which outlives it: nothing of it touches
the engine thread. How far it is is asked with `prompt_progress`, as nothing is pushed; who asked
may cancel it, and it ends with the engine.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

from engine.messages import ASK_SECONDS
from queue_store import config as configuration

if TYPE_CHECKING:
    from engine.judging.evaluating import Model
    from engine.reading.views import Views
    from evaluation.host.machine import Machine

Json = dict[str, Any]
SEED_BITS = 32


class Ask:
    """One prompt under way: what is known of its answers. Any thread reads, one writes."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing
        self._cancelled = threading.Event()
        self._ends = time.monotonic() + ASK_SECONDS
        self._said: tuple[Json, ...] = ()
        self._now: Json = {"model": "", "answer": "", "tokens": 0, "doing": "looking for a host"}

    def cancel(self) -> None:
        self._cancelled.set()

    def over(self) -> bool:
        """Whether it has to end: cancelled, out of time, or the engine ends."""
        late = time.monotonic() > self._ends
        return late or self._cancelled.is_set() or self._closing.is_set()

    def progress(self) -> Json:
        return {"answering": True, **self._now, "said": list(self._said)}

    # -- asking.Listener

    def turn(self, of: Model) -> None:
        self._now = {"model": of.name, "answer": "", "tokens": 0, "doing": "loading"}

    def sent(self, done: int, whole: int) -> None:
        share = f"sending its weights, {100 * done // whole if whole else 100} %"
        self._now = {**self._now, "doing": share}

    def grown(self, text: str, tokens: int) -> None:
        self._now = {**self._now, "answer": text, "tokens": tokens, "doing": "answering"}

    def answered(self, said: Json) -> None:
        self._said = (*self._said, said)


class Asks:
    """Those under way, by the keys that their askers gave them. Any thread."""

    def __init__(self) -> None:
        self._under_way: dict[str, Ask] = {}

    def answer(self, views: Views, key: str | None, **words: Any) -> list[Json]:
        """The command `ask`: as `asking.ask`. Blocks. Raises NotFound, Refused, HostFailure, …"""
        ask = Ask(views.closing)
        name = key or secrets.token_hex(8)
        self._under_way[name] = ask
        try:
            return _answer(views, ask, **words)
        finally:
            self._under_way.pop(name, None)

    def progress(self, key: str) -> Json | None:
        """{answering, model, answer, tokens, doing, said} of what is asked by this key, None where
        nothing is. `doing` is in words; `said` are the answers that are whole."""
        ask = self._under_way.get(key)
        return ask.progress() if ask is not None else None

    def cancel(self, key: str) -> None:
        """End it after the token it is at; what there is of an answer is told."""
        if (ask := self._under_way.get(key)) is not None:
            ask.cancel()


def _answer(
    views: Views, ask: Ask, models: list[str], host: str | None, seed: int | None, **words: Any
) -> list[Json]:
    # Imported late: the server is light, and this reads tokenizers.
    from engine.judging import asking
    from evaluation.host.choice import on_first_free

    config = configuration.load(views.home.config)
    found = asking.resolve(views.state, config, models)
    drawn = secrets.randbits(SEED_BITS) if seed is None else seed
    question = asking.Question(seed=drawn, **words)

    def on(machine: Machine) -> list[Json]:
        return asking.ask(views.state, config, machine, found, question, ask, cancelled=ask.over)

    return on_first_free(views.home, config.hosts, host, on)


ASKS = Asks()
"""Those of this process: askers' keys are their own."""
