"""One prompt asked of models of the home, one after another, in a worker's process.

The worker recomputes the digest of what it loads, so every answer carries the digest of the model
that gave it. Must never take another model for one that is not there, and never run one in this
process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.judging.evaluating import Model, model, model_text, weights_of
from engine.prepare.question import question
from engine.prepare.render import Renderer
from evaluation.host import memory
from evaluation.host.errors import HostFailure
from evaluation.host.machine import Machine
from evaluation.host.session import Answer, Session
from evaluation.host.shipped.frames import Message
from queue_store import records
from queue_store.config import Config
from queue_store.database import State
from queue_store.errors import NotFound, Refused, TrainctlError, VerificationFailed
from queue_store.programs import BrokenOff, Cancelled, never
from snapshots import inuse, named

Json = dict[str, Any]
OF_THE_MODEL = {"digest", "probe", "model", "no_memory"}
"""Kinds of failures that are one model's: another can be asked after it."""
STOPS = {"stop": "end", "length": "limit"}
"""The worker's words for the end of an answer, as `generate` says them everywhere."""


@dataclass(frozen=True)
class Question:
    """What is asked. `system` None is data.system_prompt, "" none; `temperature` 0 is greedy, else
    what is drawn follows from `seed` (with the same model, device and packages)."""

    prompt: str
    system: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def told(self) -> Json:
        """What of it stands in an answer."""
        drawn = {"top_p": self.top_p, "seed": self.seed} if self.temperature else {}
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, **drawn}


class Listener(Protocol):
    """Hears how it goes, on the thread that asks."""

    def turn(self, of: Model) -> None:
        """This model is brought, loaded and asked now."""
        ...

    def sent(self, done: int, whole: int) -> None:
        """Bytes of its weights on their way to a host."""
        ...

    def grown(self, text: str, tokens: int) -> None:
        """The answer so far; foreign text, of which the last characters may still change."""
        ...

    def answered(self, said: Json) -> None:
        """A model's answer whole, as `ask` gives it back."""
        ...


def resolve(state: State, config: Config, names: Sequence[str]) -> list[Model]:
    """The models of these names, each once; all of them or none: NotFound for one that is not
    there, Refused for a damaged one. Without a name the one that training stands on."""
    if not names:
        return [_head(state, config)]
    found: dict[str, Model] = {}
    for name in names:
        one = model(state, config, name)
        found.setdefault(one.name, one)
    return list(found.values())


def _head(state: State, config: Config) -> Model:
    at = records.head(state)
    if at is None:
        raise NotFound("nothing has trained in this home yet", mend="there is no model to ask")
    base = at.checkpoint.kind == "base"
    return model(state, config, named.BASE if base else at.checkpoint.name)


def ask(
    state: State,
    config: Config,
    machine: Machine,
    models: Sequence[Model],
    asked: Question,
    listener: Listener,
    *,
    cancelled: Cancelled = never,
) -> list[Json]:
    """The answers in the order of `models`: {model, step, branch, digest, host, device, precision,
    base_precision (of an adapter), backend, answer, stop, tokens, prompt_tokens, max_tokens,
    temperature, top_p, seed, seconds, tokens_per_second}. `stop` is "end", "limit" or "cancelled"
    (with what there was). Where several are asked, one that fails by itself has `error` in place of
    its answer.

    Blocks; on a thread that outlives it. Raises HostFailure, Refused, VerificationFailed, OSError.
    """
    found: list[Json] = []
    with Session(machine, who="trainctl generate") as session:
        for of in models:
            if cancelled():
                break
            listener.turn(of)
            told = {key: getattr(of, key) for key in ("step", "branch", "digest")}
            said: Json = {"model": of.name, **told, "host": machine.name}
            try:
                # Nobody removes the version from under the reading.
                with inuse.holding(of.name):
                    said |= _Turn(state, config, session, asked, listener, cancelled).ask(of)
            except BrokenOff:
                break
            except TrainctlError as error:
                if len(models) == 1 or not _of_the_model(error):
                    raise
                said["error"] = str(error)
            listener.answered(said)
            found.append(said)
    return found


def _of_the_model(error: TrainctlError) -> bool:
    if isinstance(error, HostFailure):
        return error.code in OF_THE_MODEL
    return isinstance(error, Refused | VerificationFailed | NotFound)


@dataclass
class _Turn:
    """One model's turn in a session."""

    state: State
    config: Config
    session: Session
    asked: Question
    listener: Listener
    cancelled: Cancelled
    text: str = ""
    tokens: int = 0

    def ask(self, of: Model) -> Json:
        try:
            item = {"id": "prompt", "text": self._text(of)}
            weights = weights_of(self.state, self.config, of)
            packed = memory.packed(self.state, weights, cancelled=self.cancelled)
        except FileNotFoundError:  # a checkpoint that retention took meanwhile
            raise NotFound(f"{of.name} is not on this machine any more") from None
        loaded = self.session.load(
            packed,
            recorded=memory.probe(self.state, packed.digest),
            cancelled=self.cancelled,
            progress=self.listener.sent,
        )
        memory.keep_probe(self.state, loaded)
        answers: list[Answer] = []
        self.session.on_event = self._grown
        keys = ("max_tokens", "temperature", "top_p", "seed")
        settings = {key: getattr(self.asked, key) for key in keys}
        done = self.session.generate(
            [item], {**settings, "stream": True}, answers.append, cancelled=self.cancelled
        )
        where = {"device": loaded.device, "precision": loaded.precision, "backend": done.backend}
        if weights.base is not None:  # a worker has it in full, whatever it trained beside
            where["base_precision"] = loaded.precision
        if not answers:
            return {**where, **self._cut(done.seconds)}
        (answer,) = answers
        if answer.error:
            raise Refused(answer.error, mend="shorten it")
        seconds = answer.ms / 1000
        return {
            **{**where, "digest": answer.digest, "answer": answer.text},
            **{"stop": STOPS[answer.finish], "tokens": answer.tokens},
            **{"prompt_tokens": answer.prompt_tokens, **self.asked.told()},
            **{"seconds": seconds, "tokens_per_second": rate(answer.tokens, seconds)},
        }

    def _cut(self, seconds: float) -> Json:
        """What there was of an answer when it was cancelled."""
        return {
            **{"answer": self.text, "stop": "cancelled", "tokens": self.tokens},
            **{"prompt_tokens": {"unknown": "it was cancelled"}, **self.asked.told()},
            **{"seconds": seconds, "tokens_per_second": rate(self.tokens, seconds)},
        }

    def _text(self, of: Model) -> str:
        data = self.config.data
        system = data.system_prompt if self.asked.system is None else self.asked.system
        renderer = Renderer(model_text(self.state, self.config, of), system, data.thinking)
        return question(renderer, self.asked.prompt, system)

    def _grown(self, message: Message) -> None:
        text, tokens = message.get("text"), message.get("tokens")
        if message["kind"] == "progress" and isinstance(text, str) and type(tokens) is int:
            self.text, self.tokens = text.encode("utf-8", "replace").decode(), tokens
            self.listener.grown(self.text, tokens)


def rate(tokens: int, seconds: float) -> Any:
    """Tokens a second, reading the prompt included; unknown where it took no time."""
    return tokens / seconds if seconds > 0 else {"unknown": "it took no time"}
