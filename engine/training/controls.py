"""What a training run exchanges with whoever drives it: plain data, and two protocols.

The run never imports the thread, the store or a face: it asks its `Controls` once a step and
tells its `Reporter` what happened, so that the same run can be rank 0 of several processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from queue_store.metrics import StepMetric


@dataclass(frozen=True)
class Place:
    """A moment of the training: `global_step` optimizer steps done on the line of `branch`."""

    branch: int
    global_step: int


@dataclass(frozen=True)
class RunItem:
    """The item that trains. `cursor` counts trained rows, on through its `epochs`."""

    id: int
    name: str
    cursor: int
    epochs: int


@dataclass(frozen=True)
class ValidationResult:
    """Mean loss (nats a token) over the `tokens` trained tokens of the held-out rows of the set
    `name`, and what it cost in seconds."""

    place: Place
    item: int
    name: str
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Prompt:
    """A fixed example that is answered at every sample tick: the turns before the answer, each
    {"role", "content"}, as the chat template takes them. `text`: the same as training writes it
    (profile, system prompt, thinking); "" leaves it to the tokenizer's template."""

    id: str
    messages: tuple[dict[str, str], ...]
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """What the model answered: decoded `text` without the end token, `tokens` generated (the end
    token included), whether it ended by itself within the limit, and its share of the seconds."""

    id: str
    text: str
    tokens: int
    ended: bool
    seconds: float


@dataclass(frozen=True)
class SampleResult:
    """All answers of one sample tick, and what it cost. `expected_loss`: by the example's id, the
    mean loss (nats a token) of the expected answer given the prompt; none where none was measured.
    `due` is where the tick fell due: before `place` where it was put off; `item_step` the item's
    own step.
    """

    place: Place
    item: int
    answers: tuple[Answer, ...]
    seconds: float
    expected_loss: Mapping[str, float] = field(default_factory=dict)
    due: Place | None = None
    item_step: int = 0


@dataclass(frozen=True)
class Halved:
    """The step that begins at `cursor` did not fit the card with `before` packs at once: from it on
    the item trains with `after`. `tokens` and `line` are of the longest row of the batch."""

    cursor: int
    before: int
    after: int
    tokens: int
    line: int


@dataclass(frozen=True)
class Directive:
    """The answer to "may I go on?": `leave` is "" to go on, else the reason to leave the run."""

    leave: str = ""


GO = Directive()


class Controls(Protocol):
    """Asked by the run at every step boundary, on the engine's thread."""

    def at_step(self, place: Place) -> Directive:
        """Called exactly once after every optimizer step. May block (pause), save, and take as
        long as it likes; the time is not counted as training."""
        ...

    def waiting(self) -> bool:
        """Whether a request waits for the next step boundary. Ticks are then put off or broken
        off, so that the reaction stays within one step. Cheap: asked for every sampled token."""
        ...


class Reporter(Protocol):
    """Told by the run what happened, on the engine's thread, between two steps in this order."""

    def step(self, metric: StepMetric) -> None:
        """Every step once, in order; up to `log_steps` late."""
        ...

    def looking(self, kind: str) -> None:
        """Before a tick of that kind that may take long; `kind` "" after it."""
        ...

    def validation(self, result: ValidationResult) -> None: ...

    def samples(self, result: SampleResult) -> None: ...

    def halved(self, place: Place, halved: Halved) -> None:
        """Within the step that follows `place`, before it is tried again: keep it durably, for a
        run of the item from before that cursor must be given it."""
        ...

    def after_step(self, place: Place, cursor: int) -> None:
        """After the step's ticks and before the controls: save here what is due. A save calls
        `TrainingRun.flush()` first, so that no bad state is ever saved."""
        ...


class Silent:
    """Controls and Reporter of a rank that is not rank 0: asked nothing, told nothing, it does
    what rank 0 was told to do."""

    def at_step(self, place: Place) -> Directive:
        return GO

    def waiting(self) -> bool:
        return False

    def step(self, metric: StepMetric) -> None: ...

    def looking(self, kind: str) -> None: ...

    def validation(self, result: ValidationResult) -> None: ...

    def samples(self, result: SampleResult) -> None: ...

    def halved(self, place: Place, told: Halved) -> None: ...

    def after_step(self, place: Place, cursor: int) -> None: ...


class NonFinite(Exception):
    """A loss or a gradient norm is NaN or infinite: the item's failure at global step `step`."""

    def __init__(self, step: int, what: str, value: float) -> None:
        self.step = step
        self.what = what
        self.value = value
        super().__init__(f"{what} is {value} at step {step}")
