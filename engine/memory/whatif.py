"""What training would take with other settings: what may be changed, and what each change comes to.

Nothing of a home is changed here: it ends in lines for config.toml. `begin` and `WhatIf.measure`
may take seconds and are for a thread; all else is arithmetic over what they found. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from engine.memory import cards, fitting, records
from engine.memory.asking import Estimator, Needs, processes
from engine.memory.cards import Device
from engine.memory.estimate import Estimate
from engine.memory.fitting import Proposal
from engine.training.base import base_here, text_folder
from queue_store import config as configuration
from queue_store import lock
from queue_store import records as store_records
from queue_store.config import LOCKED, Config
from queue_store.database import read_only
from queue_store.errors import TrainctlError
from queue_store.home import Home
from snapshots import child

HERE = "here"
CARD = "card"
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit")
CHUNKS = ("auto", "on", "off")
ROUNDINGS = ("auto", "nearest")
METHODS = ("full", "lora", "qlora")
PRECISIONS = ("auto", "bf16", "fp32")
AHEAD = 10
"""The priority of what is measured before it is asked for."""
LENGTHS = tuple(1 << n for n in range(8, 18))
"""Sequence lengths that are offered, beside the one of config.toml."""
PROCESSES = (2, 4, 8)
"""Numbers of processes that are offered, beside that of config.toml."""
LARGER = 3
"""Doublings of the effective batch that are offered as a batch."""


@dataclass(frozen=True)
class Choice:
    """One value of a row: how it is called, and the keys of config.toml that it sets."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A setting that may be changed: `at` is the place of the present value in `choices`."""

    name: str
    choices: tuple[Choice, ...]
    at: int

    @property
    def value(self) -> str:
        return self.choices[self.at].name


def _row(name: str, config: Config, choices: list[Choice]) -> Row:
    """The row; its present value is the choice that changes nothing."""
    now = _values(config)
    fits = [all(now[key] == value for key, value in one.settings.items()) for one in choices]
    return Row(name, tuple(choices), fits.index(True))


def _values(config: Config) -> dict[str, Any]:
    return configuration.flat(configuration.to_dict(config))


def rows(config: Config, base: Config, gpu: bool = True) -> list[Row]:
    """What may be changed of `config`; `base` is what config.toml says, whose values are always
    among the choices. `gpu`: whether it is looked at on a card, from which activations may go."""
    training, was = config.training, base.training
    lengths = sorted({*LENGTHS, was.max_length, training.max_length})
    offload = {"training.gradient_checkpointing": True, "training.activation_offload": True}
    return [
        _row("max_length", config, [_one("training.max_length", n) for n in lengths]),
        _row("batch_size", config, _batches(config, base)),
        _row("precision", config, [_one("model.precision", n) for n in PRECISIONS]),
        _row("optimizer", config, _optimizers()),
        _row("in_backward", config, _in_backward(config, base)),
        _row("rounding", config, _roundings(config, base)),
        _row(
            "checkpointing",
            config,
            [
                Choice("off", {key: False for key in offload}),
                Choice("on", {"training.gradient_checkpointing": True}),
            ],
        ),
        _row(
            "offload",
            config,
            [
                Choice("off", {"training.activation_offload": False}),
                *([Choice("on", offload)] if gpu or training.activation_offload else []),
            ],
        ),
        _row("chunked_loss", config, [_one("training.chunked_loss", n) for n in CHUNKS]),
        _row("method", config, [_one("model.method", n) for n in METHODS]),
        _row("processes", config, _processes(config, base)),
    ]


def _one(key: str, value: Any) -> Choice:
    return Choice(str(value), {key: value})


def _optimizers() -> list[Choice]:
    """Each by its name; Muon also with the states of all that is no hidden matrix in 8 bits."""
    plain = [_one("training.optimizer", n) for n in OPTIMIZERS]
    muon = {"training.optimizer": "muon", "training.muon.rest": "adamw"}
    eight = {"training.optimizer": "muon", "training.muon.rest": "adamw_8bit"}
    return [*plain, Choice("muon", muon), Choice("muon, 8-bit rest", eight)]


def _roundings(config: Config, base: Config) -> list[Choice]:
    """Of weights in bf16. To insist on "stochastic" is no other than "auto" for them."""
    more = {base.training.rounding, config.training.rounding} - set(ROUNDINGS)
    return [_one("training.rounding", n) for n in (*ROUNDINGS, *sorted(more))]


def _processes(config: Config, base: Config) -> list[Choice]:
    """On each host, with copies of the model or with parts of it. Each trains as many sequences of
    a step as the others: where another number needs it, the batches follow."""
    now, was = ((of.training.processes, of.training.parallel) for of in (config, base))
    pairs = {(1, was[1]), was, now}
    if not config.training.in_backward:  # whose gradients are never there to be summed
        pairs |= {(n, kind) for n in PROCESSES for kind in ("ddp", "fsdp")}
    ordered = sorted(pairs, key=lambda pair: (0 if pair[0] == "auto" else pair[0], pair[1]))
    # Where only the processes made the batches what they are, they come back with them.
    present = fitting.shared(config, processes(config))
    source = base if fitting.shared(base, processes(config)) == present else config
    found = []
    for count, kind in ordered:
        settings = {"training.processes": count, "training.parallel": kind}
        if (count, kind) != now and isinstance(count, int):
            settings |= fitting.shared(source, count * config.launch.nodes)
        alone = count == 1 or kind == "auto"
        found.append(Choice(str(count) if alone else f"{count} {kind}", settings))
    return found


def _in_backward(config: Config, base: Config) -> list[Choice]:
    """Needs the whole step as one batch, and no clipping; both come back with it."""
    key, now, was = "training.in_backward", config.training, base.training
    if now.in_backward:
        back = {
            "training.batch_size": was.batch_size,
            "training.effective_batch": was.effective_batch,
            "training.max_grad_norm": was.max_grad_norm,
        }
        back = {} if was.in_backward else back
        return [Choice("off", {**back, key: False}), Choice("on", {key: True})]
    if processes(config) > 1:  # gradients are summed before a parameter can be stepped
        return [Choice("off", {key: False})]
    whole = {"training.batch_size": now.effective_batch, "training.max_grad_norm": 0.0}
    return [Choice("off", {key: False}), Choice("on", {**whole, key: True})]


def _batches(config: Config, base: Config) -> list[Choice]:
    """The parts of the effective batch of config.toml, and larger ones with a step of their own."""
    whole, now = base.training.effective_batch, config.training
    many = processes(config)
    whole = -(-whole // many) * many
    parts = [n for n in range(1, whole + 1) if whole % (n * many) == 0]
    pairs = {(n, n if now.in_backward else whole) for n in parts}
    pairs |= {((whole << n) // many, whole << n) for n in range(1, LARGER + 1)}
    pairs.add((now.batch_size, now.effective_batch))
    return [
        Choice(
            f"{batch} of {step}",
            {"training.batch_size": batch, "training.effective_batch": step},
        )
        for batch, step in sorted(pairs)
    ]


@dataclass
class WhatIf:
    """A configuration that is looked at. `base` is what config.toml says, `config` what is looked
    at now, on the device of the name `card`; `well` how well estimates did on this machine's device
    (records.summary). Its thread measures; all else is for one other."""

    base: Config
    estimator: Estimator
    devices: Mapping[str, Device]
    well: dict[str, Any] | None = None
    trained: bool = False
    """Whether the home has trained: then some keys are locked."""
    card: str = HERE
    config: Config = field(init=False)
    problems: dict[Needs, str] = field(default_factory=dict)
    """Why a profile could not be measured."""
    _near: tuple[object, list[Proposal]] = field(default=(None, []), init=False)
    """What nearest said last, and of what."""

    def __post_init__(self) -> None:
        self.config = self.base

    @property
    def device(self) -> Device:
        """What each process has."""
        each = self.config.training.processes
        return cards.share(self.devices[self.card], each if isinstance(each, int) else 1)

    @property
    def together(self) -> int:
        """Processes that share a step."""
        return processes(self.config)

    @property
    def rows(self) -> list[Row]:
        names = list(self.devices)
        devices = tuple(Choice(name, {}) for name in names)
        return [
            Row(CARD, devices, names.index(self.card)),
            *rows(self.config, self.base, self.device.gpu),
        ]

    def change(self, row: Row, by: int) -> None:
        """Take the choice so many places on, the last one at the end; where that does not go with
        the other settings, the next one that does. Raises ValueError where none goes."""
        last = len(row.choices) - 1
        at, end = max(0, min(last, row.at + by)), last if by > 0 else 0
        if row.name == CARD:
            self.card = row.choices[at].name
            return
        try:
            self.take(row.choices[at].settings)
        except ValueError:
            if at == end:
                raise
            self.change(replace(row, at=at), 1 if by > 0 else -1)

    def take(self, settings: Mapping[str, Any]) -> None:
        self.config = fitting.with_settings(self.config, settings)

    def reset(self) -> None:
        """What config.toml says, on this machine's device."""
        self.config, self.card = self.base, HERE

    # -- what it comes to

    @property
    def needs(self) -> Needs:
        """Which profile the present settings need."""
        return self.estimator.on(self.device).key(self.config)

    @property
    def precision(self) -> str:
        return "bf16" if self.needs[0] == 2 else "fp32"

    def estimate(self, config: Config | None = None) -> Estimate | None:
        """None where the model is not measured so far."""
        estimator, wanted = self.estimator.on(self.device), config or self.config
        return estimator(wanted) if estimator.known(wanted) else None

    def nearest(self) -> list[Proposal]:
        """What would fit, of what is measured so far; nothing where the present settings fit."""
        now = self.estimate()
        key = (self.config, self.card, self.estimator.measured)
        if key != self._near[0]:
            fits = now is None or now.total <= self.device.usable
            near = [] if fits else fitting.nearest(self.config, self.device, self.estimate)
            self._near = key, near
        return self._near[1]

    def changed(self) -> dict[str, Any]:
        """The keys whose values differ from config.toml's, and the values."""
        before = _values(self.base)
        return {key: value for key, value in _values(self.config).items() if before[key] != value}

    def lines(self) -> list[str]:
        """What to write into config.toml."""
        found: list[str] = []
        for key, value in self.changed().items():
            section, name = key.rsplit(".", 1)
            if f"[{section}]" not in found:
                found.append(f"[{section}]")
            found.append(f"{name} = {fitting.toml(value)}")
        return found

    def locked(self) -> list[str]:
        """Changed keys that stay as they are once a home has trained."""
        return [key for key in self.changed() if self.trained and key in LOCKED]

    # -- in a thread

    def wanting(self) -> Config | None:
        """What is not measured so far and may be asked for: the present settings first."""
        estimator, now = self.estimator.on(self.device), self.config
        for method in (now.model.method, *METHODS):
            for precision in (now.model.precision, *PRECISIONS):
                settings = {"model.method": method, "model.precision": precision}
                try:
                    config = fitting.with_settings(now, settings)
                except ValueError:
                    continue  # not with these processes
                if not estimator.known(config) and estimator.key(config) not in self.problems:
                    return config
        return None

    def measure(self, config: Config, stop: child.Stop, progress: child.Progress) -> None:
        """Measure the model as `config` has it; what keeps it from that is kept in `problems`."""
        estimator = self.estimator.on(self.device)
        # Somebody waits for the present settings; the others are measured ahead.
        nice = 0 if config == self.config else AHEAD
        try:
            estimator.measure(config, stop, progress, nice)
        except TrainctlError as error:
            self.problems[estimator.key(config)] = str(error)


def _engine(home: Home) -> list[int]:
    """The processes of the home's engine: also the ranks, which hold the model where several do."""
    who = lock.holder(home)
    if not who or not isinstance(who.get("pid"), int):
        return []
    try:
        below = psutil.Process(who["pid"]).children(recursive=True)
    except psutil.Error:
        below = []
    return [who["pid"], *(process.pid for process in below)]


@contextmanager
def begin(home: Home) -> Iterator[WhatIf]:
    """The configuration of a home as it is now, and the devices. It measures for as long as the
    context lasts. Raises TrainctlError: config.toml is wrong, the model is not on this machine."""
    config = configuration.load(home.config)
    device = cards.here(own=_engine(home))
    devices = {HERE: device, **{name: cards.card(name) for name in cards.CARDS}}
    with ExitStack() as stack:
        folder = base_here(home, config.model.base, config.training.seed)
        if folder is None:
            text = text_folder(home, config.model.base, config.training.seed)
            folder = stack.enter_context(text)
        with read_only(home) as state:
            well, head = records.summary(state, device.name), store_records.head(state)
        trained = head is not None and head.checkpoint.step > 0
        yield WhatIf(config, Estimator(home, folder, device), devices, well, trained)
