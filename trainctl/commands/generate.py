"""generate: a prompt to the model that trains now, or to models of the home, side by side.

The model that trains answers on the engine thread; all others in a worker's process, on a host or
here, never in this one. A model that is not there is refused: no other one takes its place.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queue_store.errors import NotFound, Refused, TrainctlError, UsageError
from queue_store.safe import safe
from trainctl import columns
from trainctl.context import Context
from trainctl.growing import Growing
from trainctl.output import count, counted, duration, known, text
from trainctl.progress import Progress

if TYPE_CHECKING:
    from engine.judging.evaluating import Model
    from engine.sessions.session import Session
    from evaluation.host.machine import Machine

Json = dict[str, Any]
STOPS = {
    "end": "ended by itself",
    "limit": "ended at the limit of tokens",
    "time": "ended at the limit of time",
    "cancelled": "cancelled",
    "interrupted": "broken off for another command",
}
LOOK_SECONDS = 0.1
MOST_CHARACTERS = 200_000
HOTTEST = 10.0
SEED_BITS = 32


def generate(context: Context, arguments: argparse.Namespace) -> int:
    """The answer, and what it took. JSON: see --help."""
    if not 0 <= arguments.temperature <= HOTTEST:  # nor is NaN
        what = f"--temperature is no number from 0 to {HOTTEST:g}"
        raise UsageError(what, mend="0 is greedy, 1 draws as it learnt")
    if not 0 < arguments.top_p <= 1:
        raise UsageError("--top-p is no number above 0 and up to 1", mend="1 leaves nothing out")
    prompt = _prompt(arguments)
    chosen = arguments.local or arguments.host is not None
    if not arguments.model:
        session = context.engine_if_any()
        if session is not None and chosen:
            raise Refused(
                "the model that trains now is in the engine's memory, and answers there",
                mend="name a version, a checkpoint or base, or leave --host and --local out",
            )
        if session is not None:
            return _of_the_engine(context, session, arguments, prompt)
    return _of_workers(context, arguments, prompt)


def _prompt(arguments: argparse.Namespace) -> str:
    """The words of --prompt, or a file's. Raises UsageError, NotFound."""
    if arguments.prompt is not None:
        found, where = str(arguments.prompt), "--prompt"
    else:
        where = arguments.file
        try:
            raw = sys.stdin.buffer.read() if where == "-" else Path(where).read_bytes()
            found = raw.decode()
        except UnicodeDecodeError:
            raise UsageError("this is no UTF-8 text", where=where) from None
        except OSError as error:
            raise NotFound(str(error.strerror or error), where=where) from None
    if not found.strip() or len(found) > MOST_CHARACTERS:
        what = f"a prompt has 1 to {MOST_CHARACTERS:,} characters, not {len(found):,}"
        raise UsageError(what, where=where)
    return found


# -- the model that trains ---------------------------------------------------------------------


def _of_the_engine(
    context: Context, session: Session, arguments: argparse.Namespace, prompt: str
) -> int:
    """The engine's answer, written while it grows. Raises what the engine refuses with."""
    key = f"command-{secrets.token_hex(8)}"
    request = _Asked(
        session,
        prompt=prompt,
        system=arguments.system,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p if arguments.top_p < 1 else None,
        seed=arguments.seed,
        key=key,
    )
    growing = Growing() if not context.json and sys.stdout.isatty() else None
    try:
        looks = growing is not None
        while not request.ended.wait(LOOK_SECONDS):
            try:
                if growing is not None and looks:
                    growing.grow(session.request("prompt_progress", key=key)["answer"])
            except TrainctlError:
                looks = False  # an engine of before; if it is gone, the answer says so
    except KeyboardInterrupt:
        # Without this the engine would give the answer to nobody, and training wait for it.
        session.request("cancel_generate", key=key)
        if growing is not None:
            print()
        raise
    result = {**request.result(), "host": "local"}
    if growing is None:
        context.show(result, lambda: _block(result))
    else:
        growing.finish(result["answer"])
        print(_told(result))
    return 0


class _Asked:
    """A request under way in a thread of its own."""

    def __init__(self, session: Session, **words: Any) -> None:
        self.ended = threading.Event()
        self._session, self._words = session, words
        self._result: Json | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="generate", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._session.request("generate", **self._words)
        except BaseException as error:
            self._error = error
        finally:
            self.ended.set()

    def result(self) -> Json:
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


# -- models of the home ------------------------------------------------------------------------


def _of_workers(context: Context, arguments: argparse.Namespace, prompt: str) -> int:
    from engine.judging import asking
    from evaluation.host import machine
    from evaluation.host.choice import on_first_free
    from evaluation.host.machine import LOCAL

    config, home = context.config, context.home
    models = asking.resolve(context.state, config, arguments.model)
    if arguments.host is not None:
        machine.machine(home, config.hosts, arguments.host)  # unknown is unknown
    asked = asking.Question(
        prompt=prompt,
        system=arguments.system,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=secrets.randbits(SEED_BITS) if arguments.seed is None else arguments.seed,
    )
    live = _Live(len(models), streams=not context.json and sys.stdout.isatty())
    with live.meter:

        def ask(on: Machine) -> list[Json]:
            return asking.ask(context.state, config, on, models, asked, live)

        found = on_first_free(home, config.hosts, LOCAL if arguments.local else arguments.host, ask)
    if not live.streams:
        context.show(found if len(found) > 1 else found[0], lambda: _text(found))
    return int(any("error" in one for one in found))


class _Live:
    """What a person sees while models are asked: each answer as it grows, or how far it is where
    they come beside each other or go elsewhere."""

    def __init__(self, count: int, *, streams: bool) -> None:
        self.streams = streams and not columns.fits(count, _width())
        self.meter = Progress()
        self._several = count > 1
        self._name = ""
        self._growing = Growing()

    def turn(self, of: Model) -> None:
        self._name = of.name
        if self.streams and self._several:
            print(f"{text(of.name)}:", flush=True)

    def sent(self, done: int, whole: int) -> None:
        self.meter(f"weights of {self._name}", done, whole)

    def grown(self, text: str, tokens: int) -> None:
        if self.streams:
            self.meter.clear()
            self._growing.grow(text)
        else:
            self.meter.say(f"{self._name}: {counted(tokens, 'token')}")

    def answered(self, said: Json) -> None:
        if not self.streams:
            return
        self.meter.clear()
        if "error" in said:
            print(f"not asked: {text(said['error'])}")
        else:
            self._growing.finish(said["answer"])
            print(_told(said))
        self._growing = Growing()


def _width() -> int:
    return shutil.get_terminal_size().columns


# -- in words ----------------------------------------------------------------------------------


def _text(answers: list[Json]) -> str:
    """The answers whole: beside each other where they have room."""
    if sys.stdout.isatty() and columns.fits(len(answers), _width()):
        return columns.beside([_block(one) for one in answers], _width()).rstrip()
    if len(answers) == 1:
        return _block(answers[0])
    return "\n\n".join(f"{text(one['model'])}:\n{_block(one)}" for one in answers)


def _block(one: Json) -> str:
    if "error" in one:
        return f"not asked: {safe(one['error'])}"
    return f"{safe(one['answer'])}\n{_told(one)}"


def _told(one: Json) -> str:
    """Who answered, and what it took."""
    name = [text(one["model"])] if known(one["model"]) else []
    digest = one["digest"][:12] if known(one["digest"]) else text(one["digest"])
    speed = one["tokens_per_second"]
    parts = [
        *name,
        *(f"step {count(one['step'])}", digest),
        f"{counted(one['tokens'], 'token')} in {duration(one['seconds'])}",
        f"{speed:.0f} tokens/s" if known(speed) else text(speed),
        f"{text(one['backend'])} on {text(one['host'])}",
        STOPS[one["stop"]],
    ]
    if "base_precision" in one:
        parts.append(f"base in {text(one['base_precision'])}")
    if "seed" in one:
        parts.append(f"seed {one['seed']}")
    return " · ".join(parts)
