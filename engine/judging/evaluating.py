"""A model of the home asked the held-out sets, on a host or in a process of its own here.

The same rendering as training's (template, profile, system prompt, thinking) makes text of the
rows here; the worker gets text. Only what has no answer yet is asked, and each answer is judged
and kept as it comes, so that a broken or interrupted evaluation goes on where it stood.
Must never run a model in this process.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.prepare import profiles
from engine.prepare.render import Renderer
from engine.prepare.template import ModelText, RowRefused
from engine.training.base import base_here
from evaluation.host import memory, shipment
from evaluation.host.errors import HostFailure
from evaluation.host.evaluate import evaluate_on
from evaluation.host.machine import Machine
from evaluation.host.session import Answer, Event, Loaded
from evaluation.host.shipment import Weights
from evaluation.judging import judged, set_items
from evaluation.sets import EvalSet
from evaluation.standing import standing
from queue_store import records
from queue_store.config import Config
from queue_store.database import State
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.programs import BrokenOff, Cancelled, never
from queue_store.results import Result, Results, SetItem
from snapshots import named, versions
from snapshots.checkpoints import folder_of
from snapshots.digest import weights_digest
from snapshots.manifest import read_manifest
from snapshots.method import beside_4_bit

Json = dict[str, Any]
KEEP_SECONDS = 1.0
"""How long an answer may wait until it is kept: a commit is synced, and a batch brings dozens."""
BATCH = 32
REFUSED = "refused"
"""The kind of error of a row that the template, the profile or the model's context refuses."""
BESIDE = (
    "it trained beside a 4-bit base (model.method qlora), and is asked beside the full-precision"
    " one, as trainctl merge and a server have it; samples of training are answered beside the"
    " 4-bit one"
)
SHORT = 12
"""Characters of a digest in the settings: compare says which of them differ."""


@dataclass(frozen=True)
class Model:
    """A model that can be asked: its `name`, weights' `digest`, and where its files are. `base`:
    they are those of the base model. `rendering` is how its rows trained last, {} where that is
    not known."""

    name: str
    digest: str
    step: Any
    branch: Any
    folder: Path
    base: bool
    rendering: dict[str, str]


def model(state: State, config: Config, name: str | None) -> Model:
    """The model `name` (as snapshots.named has it), by default the newest verified version.
    Raises NotFound where it is not on this machine, Refused for a damaged version."""
    if name is None:
        verified = [one for one in versions.versions(state) if one.state == "verified"]
        if not verified:
            raise NotFound(
                "no verified version yet",
                mend="make one: trainctl snapshot; or ask the base model: trainctl evaluate base",
            )
        name = verified[-1].name
    found = named.named(state, name)
    told = (found.name, found.digest, found.step, found.branch)
    if found.name == named.BASE:
        return Model(*told, _base_folder(state, config), True, {})
    for checkpoint in records.checkpoints(state):
        if checkpoint.name == found.name:
            rendering = checkpoint.progress.rendering
            return Model(*told, folder_of(state.home, checkpoint), False, rendering)
    try:
        version = versions.get(state, found.name)
    except NotFound:
        raise NotFound(
            f"{found.name} is not on this machine any more", mend="trainctl models lists what is"
        ) from None
    if version.state in ("corrupt", versions.DELETING):
        raise Refused(f"{version.name} is {version.state}", mend="trainctl versions lists others")
    if version.scope == versions.BASE:
        return Model(*told, _base_folder(state, config), True, {})
    rendering = records.checkpoint(state, version.checkpoint).progress.rendering
    return Model(*told, versions.version_folder(state.home, version), False, rendering)


def _base_folder(state: State, config: Config) -> Path:
    folder = base_here(state.home, config.model.base, config.training.seed)
    if folder is None:
        raise NotFound(
            f"the base model {config.model.base} is not on this machine",
            where="model.base",
            mend="training fetches it",
        )
    return folder


def model_text(state: State, config: Config, of: Model) -> ModelText:
    """The model's tokenizer and template. Raises NotFound."""
    folder = of.folder
    if not (folder / "tokenizer.json").is_file():  # an adapter's may be that of its base
        folder = _base_folder(state, config)
    return ModelText(folder)


def weights_of(state: State, config: Config, of: Model) -> Weights:
    """What goes to a worker. Raises VerificationFailed where the base model is another."""
    if of.base:
        return _base_weights(state, config, of.digest)
    blake3 = {entry.name: entry.blake3 for entry in read_manifest(of.folder).files}
    base = None
    if (of.folder / shipment.ADAPTER).is_file():
        base = _base_weights(state, config, named.named(state, named.BASE).digest)
    return shipment.of_folder(
        of.folder, name=of.name, weights_digest=of.digest, blake3=blake3, base=base
    )


def _base_weights(state: State, config: Config, digest: str) -> Weights:
    folder = _base_folder(state, config)
    if weights_digest(folder) != digest:
        raise VerificationFailed(
            "this is not the base model that the home was trained from",
            where=str(folder),
            mend="put back the one of before, or see model.base in config.toml",
        )
    return shipment.of_folder(folder, name=named.BASE, weights_digest=digest)


class Evaluating:
    """One model and some sets. `settings` is the generation configuration that the answers are
    kept under; `waiting` how many items are still to be asked. One thread; use as a context."""

    def __init__(
        self,
        state: State,
        config: Config,
        of: Model,
        sets: Sequence[EvalSet],
        *,
        max_tokens: int | None = None,
        limit: int | None = None,
    ) -> None:
        """`limit`: of each set only its first so many items. Rows that the template or the
        profile refuses are kept as errors at once. Raises DataError (no template), ConfigError
        (the profile), OSError."""
        self.state, self.config, self.model = state, config, of
        self.profile = profiles.find(config.data.profile)
        made_of, data = model_text(state, config, of), config.data
        self._renderer = Renderer(made_of, data.system_prompt, data.thinking, self.profile)
        self.settings: Json = {
            "temperature": 0.0,
            "max_tokens": max_tokens or config.samples.max_tokens,
            # No texts: an answer ends with the model's own end tokens.
            "stop": [],
            "profile": self.profile.name,
            "profile_digest": profiles.digest(self.profile)[:SHORT],
            "thinking": data.thinking,
            "system_prompt": data.system_prompt,
            "template": made_of.fingerprint.template[:SHORT],
        }
        self._work: dict[str, tuple[int, SetItem, str]] = {}
        self._kept_at = 0.0
        self._buffer: list[tuple[int, Result]] = []
        # metrics.db needs no lock of the home, unlike checkpoints: a writer's transaction is
        # short (WAL, BEGIN IMMEDIATE, and 30 s of patience on either side), and rows of results
        # are added under keys of their own or replace an error, so two writers cannot disagree.
        self._results = Results(state.home)
        try:
            self._evaluations = [self._begin(one, limit) for one in sets]
            self._of_set = dict(zip((s.digest for s in sets), self._evaluations, strict=True))
        except BaseException:
            self.close()
            raise

    def _begin(self, one: EvalSet, limit: int | None) -> int:
        """The id of the set's evaluation; its items without an answer are work from now on."""
        items = set_items(one)
        made = (self.model.digest, one.digest, one.name, items, self.settings)
        evaluation = self._results.begin(*made)
        missing = set(self._results.missing(evaluation))
        for outcome in self._results.outcomes(evaluation):
            # The same text for the same model: it would be refused again, and load a model for it.
            if outcome.error_kind == REFUSED:
                missing.discard(outcome.item)
        refused = []
        for item, example in list(zip(items, one.examples, strict=True))[:limit]:
            if item.id not in missing:
                continue
            try:
                text = self._renderer.prompt(example.row, len(example.prompt))
            except RowRefused as refusal:
                refused.append(Result(item.id, error_kind=REFUSED, error=str(refusal)))
            else:
                self._work[f"{evaluation}/{item.id}"] = evaluation, item, text
        if refused:
            self._results.put(evaluation, refused)
        return evaluation

    @property
    def waiting(self) -> int:
        return len(self._work)

    def notes(self) -> list[str]:
        """How the model and its rows trained otherwise than it is asked."""
        trained = self.model.rendering
        beside = [] if self.model.base or not beside_4_bit(self.model.folder) else [BESIDE]
        return beside + [
            f"{self.model.name} trained with {key} {trained[key]}, and is asked with"
            f" {self.settings[key]}, as config.toml says now"
            for key in ("profile", "thinking")
            if trained.get(key, self.settings[key]) != self.settings[key]
        ]

    def ask(
        self,
        machine: Machine,
        *,
        cancelled: Cancelled = never,
        told: Callable[[int], None] = lambda left: None,
        sent: Callable[[int, int], None] | None = None,
        on_event: Event | None = None,
        batch: int = BATCH,
    ) -> None:
        """Have what waits answered on `machine`; returns when nothing waits, or `cancelled`.
        `told` hears how many still wait, once the model is loaded and at each answer; `sent`
        (bytes, of) of the weights on their way; `on_event` the host's meters.

        Raises HostFailure, VerificationFailed, OSError; what was answered until then is kept.
        """
        items = [{"id": key, "text": text} for key, (_, _, text) in self._work.items()]
        keys = ("temperature", "max_tokens", "stop")
        config = {**{key: self.settings[key] for key in keys}, "batch": batch}
        plain = functools.partial(profiles.scored, self.profile)

        def heard(answer: Answer) -> None:
            evaluation, item, _ = self._work.pop(answer.id)
            result = _result(item.id, answer, machine.name)
            self._buffer.append((evaluation, judged(item, result, plain)))
            told(self.waiting)

        def loaded(found: Loaded) -> None:
            memory.keep_probe(self.state, found)
            told(self.waiting)

        def ending() -> bool:
            # Asked several times a second, also while a batch takes minutes.
            if time.monotonic() - self._kept_at >= KEEP_SECONDS:
                self._keep()
            return cancelled()

        try:
            packed = memory.packed(
                self.state, weights_of(self.state, self.config, self.model), cancelled=cancelled
            )
            probe = memory.probe(self.state, packed.digest)
            evaluate_on(
                *(machine, packed, items, config, heard),
                cancelled=ending,
                on_event=on_event,
                on_loaded=loaded,
                progress=sent,
                recorded=probe,
                who="trainctl evaluate",
            )
        except (BrokenOff, HostFailure):
            # ctrl+c reaches ssh and a worker of this terminal, too: their end is no failure then.
            if not cancelled():
                raise
        finally:
            self._keep()

    def _keep(self) -> None:
        """Write down what was answered."""
        by: dict[int, list[Result]] = {}
        for evaluation, result in self._buffer:
            by.setdefault(evaluation, []).append(result)
        for evaluation, results in by.items():
            self._results.put(evaluation, results)
        self._buffer.clear()
        self._kept_at = time.monotonic()

    def standing(self) -> list[Json]:
        """What is stored of each set, in the order given (see evaluation.standing)."""
        return [standing(self._results, evaluation) for evaluation in self._evaluations]

    def answers(self, set_digest: str, items: Sequence[str]) -> dict[str, Result]:
        """The stored answers to some items of a set, by item; none of one that was not asked."""
        evaluation = self._of_set.get(set_digest)
        if evaluation is None:
            return {}
        found = self._results.results(evaluation, items)
        return {one.item: one for one in found if one.complete}

    def close(self) -> None:
        self._results.close()

    def __enter__(self) -> Evaluating:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _result(item: str, answer: Answer, host: str) -> Result:
    if answer.error:
        return Result(item, host=host, error_kind=REFUSED, error=answer.error)
    return Result(
        *(item, answer.text, answer.finish, answer.tokens, answer.ms, answer.batch),
        *(answer.backend, host),
    )
