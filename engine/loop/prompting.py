"""A person's prompt, answered by the model as it stands, on the engine thread.

Between two steps, or at once while nothing steps. Training goes on bit-identically afterwards
(see sampler.apart) and waits at most PROMPT_SECONDS, beside the reading of the prompt itself, which
is then no longer than a row.
A prompt does not wait for the monitoring budget, as a person waits for it; it may overdraw the
budget by DEBT_SECONDS, and ticks are put off until training has made up for that.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from engine.loop.requests import Request, Requests
from engine.messages import PROMPT_SECONDS, unknown
from engine.prepare.question import question
from engine.prepare.render import Renderer
from engine.prepare.template import ModelText
from engine.training.controls import Prompt
from engine.training.prompted import Question
from engine.training.sampler import Drawing
from queue_store import records
from queue_store.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path

    from engine.loop.worker import Worker
    from engine.ranks.held import HeldModel

DEBT_SECONDS = 30.0
"""How far prompts may overdraw the monitoring budget before one is refused."""

SEED_BITS = 32
"""Of a seed that nobody gave: short enough to be typed again."""

BACKEND = "engine"
"""Who answers, beside the workers' backends: the engine thread, with the model that trains."""

NO_MODEL = "no model is loaded: training is parked, or was paused when the engine started"


class Prompting:
    """Answers `generate`. Engine thread only."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._renderer: tuple[object, Renderer] | None = None

    def answer(self, request: Request) -> dict[str, Any]:
        """{answer, stop, tokens, prompt_tokens, max_tokens, temperature, top_p, seed, seconds,
        tokens_per_second, branch, step, model, digest, device, backend, base_precision (of an
        adapter)}. `stop` is "end" (an end token), "limit" (max_tokens), "time", "cancelled", or
        "interrupted" by a command that waits. While it is given, `prompt_progress` tells how far
        it is.

        Raises Refused: no model, a prompt that the context does not hold, too little memory, or
        training in debt with too many prompts.
        """
        worker, asked = self.worker, request.arguments
        if worker.live is None:
            raise Refused(NO_MODEL, mend="resume, then it is loaded again")
        trains = worker.item is not None and not worker.board.paused
        if trains:
            self._within_debt()
        end = _End(
            worker.requests,
            asked.get("key"),
            PROMPT_SECONDS["training" if trains else "standing"],
        )
        board = worker.board
        before = board.phase, board.progress
        growing, key = worker.engine.growing, asked.get("key") or ""
        growing.begin(key)
        board.set(board.state, "answering a prompt")
        worker.publish(force=True)
        started = time.perf_counter()
        try:
            longest = worker.config.training.max_length if trains else None
            result = self._generate(worker.live, asked, end, longest)
        finally:
            growing.end()
            seconds = time.perf_counter() - started
            board.set(board.state, *before)
            worker.publish(force=True)
            if trains:
                worker.watch.monitor.asked(seconds)
        return {
            **result,
            **{"seconds": seconds, "tokens_per_second": result["tokens"] / seconds},
            **{"branch": board.branch, "step": board.global_step, **self._which()},
            **{"device": worker.live.loaded.device, "backend": BACKEND},
        }

    def _which(self) -> dict[str, Any]:
        """{model, digest} of the weights that answered: the head's, where it is saved as it is."""
        head = records.head(self.worker.state)
        if head is None or self.worker.changes != self.worker.saved:
            since = head.checkpoint.name if head else "its beginning"
            why = f"it trained on since {since}: these weights are in no checkpoint"
            return dict.fromkeys(("model", "digest"), unknown(why))
        base = head.checkpoint.kind == "base"
        name = "base" if base else head.checkpoint.name
        return {"model": name, "digest": head.checkpoint.weights_digest}

    def _within_debt(self) -> None:
        monitor = self.worker.watch.monitor
        debt = monitor.prompts_debt
        over = debt - DEBT_SECONDS
        if over <= 0:
            return
        what = f"prompts took {debt:.0f} s more than training.monitoring_budget allows"
        if not monitor.budget:
            raise Refused(f"{what} (it is 0)", mend="pause, then ask")
        wait = over / monitor.budget
        raise Refused(what, mend=f"ask again after {wait:.0f} s of training, or pause first")

    def _generate(
        self, live: HeldModel, asked: dict[str, Any], end: _End, longest: int | None
    ) -> dict[str, Any]:
        prompt = self._prompt(live.loaded.folder, str(asked["prompt"]), asked.get("system"))
        most = int(asked.get("max_tokens", 256))
        growing, key = self.worker.engine.growing, asked.get("key") or ""
        return live.answer(
            Question(prompt, most, longest, _drawing(asked)),
            end,
            lambda text, tokens: growing.grow(key, text, tokens),
        )

    def _prompt(self, folder: Path, text: str, system: str | None) -> Prompt:
        """The prompt in the form in which rows of the home train, without their profile."""
        data = self.worker.config.data
        system = data.system_prompt if system is None else system
        renderer = self._renderer_of(ModelText(folder), system, data.thinking)
        return Prompt("prompt", (), question(renderer, text, system))

    def _renderer_of(self, model: ModelText, system: str, how: str) -> Renderer:
        """Kept while nothing of it changes: a large vocabulary takes up to a second to load."""
        made_of = (model.fingerprint, system, how)
        if self._renderer is None or self._renderer[0] != made_of:
            self._renderer = made_of, Renderer(model, system, how)
        return self._renderer[1]


def _drawing(asked: dict[str, Any]) -> Drawing | None:
    temperature, seed = float(asked.get("temperature", 0.0)), asked.get("seed")
    if not temperature:
        return None
    seed = secrets.randbits(SEED_BITS) if seed is None else int(seed)
    return Drawing(temperature, float(asked.get("top_p", 1.0)), seed)


class _End:
    """Says, between two tokens, why an answer has to end there, in one word; "" to go on."""

    def __init__(self, requests: Requests, key: str | None, seconds: float) -> None:
        self._why = ""
        self._requests = requests
        self._key = key
        self._deadline = time.perf_counter() + seconds

    def __call__(self) -> str:
        self._why = self._why or self._look()
        return self._why

    def _look(self) -> str:
        if self._requests.waiting():
            if self._key is not None and self._requests.holds("cancel_generate", key=self._key):
                return "cancelled"
            if set(self._requests.commands()) - {"generate", "cancel_generate"}:
                return "interrupted"
        return "time" if time.perf_counter() >= self._deadline else ""
