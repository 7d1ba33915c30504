"""What the model answers to prompts, many at once, and its loss on held-out rows.

Nothing here may move training: the generators are preserved and the model's mode is put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from engine.prepare.collate import IGNORED, collate
from engine.prepare.prepared import Sequence as Tokens
from engine.training.controls import Answer, Prompt
from engine.training.model import LoadedModel
from engine.training.position import Packs
from engine.training.rng import preserve_rng
from queue_store.errors import DataError

BATCH = 32
"""Prompts answered at once; halved where memory does not suffice."""

LOSS_BATCH_TOKENS = 2048
"""Tokens of the rows, padding included, whose loss is computed at once; as above."""


GROWN_SECONDS = 0.1
"""How often an answer is told while it grows."""

Grown = Callable[[str, int], None]
"""Hears an answer so far, and its tokens; the last characters may still change."""


@dataclass(frozen=True)
class Drawing:
    """Tokens drawn at a `temperature` above 0 from the likeliest that make up `top_p`; the same for
    the same `seed`."""

    temperature: float
    top_p: float
    seed: int


@contextmanager
def apart(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; generators and mode are as before afterwards."""
    training = model.training
    with preserve_rng(), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            model.train(training)


class _Interrupted(StoppingCriteria):
    """Ends a generation after the token at which `waiting` says so."""

    def __init__(self, waiting: Callable[[], bool]) -> None:
        self.waiting = waiting
        self.hit = False

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any
    ) -> torch.BoolTensor:
        self.hit = self.hit or self.waiting()
        full = torch.full((input_ids.shape[0],), self.hit, device=input_ids.device)
        return full  # type: ignore[return-value]


class _Growing(StoppingCriteria):
    """Ends nothing: it tells the answer of the one prompt while it grows."""

    def __init__(self, told: Grown, tokenizer: Any, prompt: int, ends: set[int]) -> None:
        self.told, self.tokenizer, self.prompt, self.ends = told, tokenizer, prompt, ends
        self.next = 0.0

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any
    ) -> torch.BoolTensor:
        now = time.monotonic()
        if now >= self.next:
            self.next = now + GROWN_SECONDS
            tokens = input_ids[0, self.prompt :].tolist()
            body = [token for token in tokens if token not in self.ends]
            self.told(self.tokenizer.decode(body, skip_special_tokens=True), len(tokens))
        going_on = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        return going_on  # type: ignore[return-value]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's and the generation config's."""
    ids = {tokenizer.eos_token_id}
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids.update(configured if isinstance(configured, list) else [configured])
    return sorted(i for i in ids if i is not None)


def heard_ends(loaded: LoadedModel) -> list[str]:
    """The tokens at which generation with this model stops."""
    ids = end_tokens(loaded.model, loaded.tokenizer)
    return [str(token) for token in loaded.tokenizer.convert_ids_to_tokens(ids)]


def ends_unheard(heard: Sequence[str], report: dict[str, Any]) -> str:
    """A warning where answers are trained to end with a token that is none of `heard`, at which no
    generation with the model stops (a base model under a chat template); "" where they are not."""
    trained = report["masks"].get("end_tokens", [])  # an earlier release did not note them
    if not trained or set(trained) & set(heard):
        return ""
    return (
        f"answers are trained to end with {', '.join(trained)}, and generation stops at"
        f" {', '.join(heard) or 'no token'}: set eos_token in the model's tokenizer_config.json, or"
        " eos_token_id in its generation_config.json"
    )


def context_of(model: Any) -> int:
    """The most tokens that the model takes, prompt and answer together."""
    return int(getattr(model.config, "max_position_embeddings", 0)) or 1 << 30


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The prompt's tokens up to where the answer begins: of its text as training writes it, else
    as the chat template writes its turns."""
    text = prompt.text or tokenizer.apply_chat_template(
        list(prompt.messages), add_generation_prompt=True, tokenize=False
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _never() -> bool:
    return False


def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    batch_size: int = BATCH,
    drawing: Drawing | None = None,
    waiting: Callable[[], bool] = _never,
    until: Callable[[], bool] = _never,
    grown: Grown | None = None,
) -> tuple[Answer, ...] | None:
    """Answers in the order of `prompts`, greedy without `drawing`; None if `waiting` broke it off.
    `until` ends what is being answered with what is there. `grown` hears of one prompt alone.

    Raises DataError where a prompt leaves no room for an answer in the model's context, and
    torch.OutOfMemoryError where not even one prompt fits.
    """
    encoded = [encode_prompt(tokenizer, p) for p in prompts]
    context = context_of(model)
    for prompt, ids in zip(prompts, encoded, strict=True):
        if len(ids) >= context:
            raise DataError(
                f"the prompt has {len(ids)} tokens, the model's context {context}",
                where=f"sample {prompt.id}",
            )
    answers: list[Answer] = []
    with apart(model):
        at = 0
        while at < len(prompts):
            some = encoded[at : at + batch_size]
            limit = min(max_tokens, context - max(map(len, some)))
            try:
                batch = _generate(
                    model,
                    tokenizer,
                    prompts[at : at + batch_size],
                    some,
                    limit,
                    drawing,
                    (waiting, until),
                    grown,
                )
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                batch_size = max(1, batch_size // 2)
                torch.cuda.empty_cache()
                continue
            if batch is None:
                return None
            answers += batch
            at += len(some)
    return tuple(answers)


def _generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    encoded: list[list[int]],
    max_tokens: int,
    drawing: Drawing | None,
    ends_it: tuple[Callable[[], bool], Callable[[], bool]],
    grown: Grown | None,
) -> list[Answer] | None:
    """One left-padded batch [B, L], padded on the left so that all answers begin together."""
    ends = end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    length = max(map(len, encoded))
    ids = torch.full((len(encoded), length), pad)
    mask = torch.zeros((len(encoded), length), dtype=torch.long)
    for row, tokens in enumerate(encoded):
        ids[row, length - len(tokens) :] = torch.tensor(tokens)
        mask[row, length - len(tokens) :] = 1
    broken_off, enough = map(_Interrupted, ends_it)
    criteria: list[StoppingCriteria] = [broken_off, enough]
    if grown is not None:
        criteria.append(_Growing(grown, tokenizer, length, set(ends)))
    if drawing is not None:
        # Not from training's generators, which are put back: asked twice at a step, it would draw
        # the same answer twice.
        torch.manual_seed(drawing.seed)
    started = time.perf_counter()
    out = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=GenerationConfig(
            max_new_tokens=max_tokens,
            use_cache=True,
            eos_token_id=ends,
            pad_token_id=pad,
            repetition_penalty=1.0,
            **_sampling(drawing),
        ),
        stopping_criteria=StoppingCriteriaList(criteria),
    )
    if broken_off.hit:
        return None
    seconds = (time.perf_counter() - started) / len(encoded)
    answers = []
    for prompt, tokens in zip(prompts, out[:, length:].tolist(), strict=True):
        end = next((i for i, token in enumerate(tokens) if token in ends), None)
        body = tokens if end is None else tokens[:end]
        count = len(tokens) if end is None else end + 1
        text = tokenizer.decode(body, skip_special_tokens=True)
        answers.append(Answer(prompt.id, text, count, end is not None, seconds))
    return answers


def _sampling(drawing: Drawing | None) -> dict[str, Any]:
    """How the next token is chosen, in GenerationConfig's words."""
    if drawing is None:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": drawing.temperature,
        "top_k": 0,
        "top_p": drawing.top_p,
        # Drawn from NaN, a GPU's process is of no more use.
        "remove_invalid_values": True,
    }


def validation_loss(
    model: Any,
    packs: Packs,
    *,
    batch_size: int,
    pad_id: int = 0,
    waiting: Callable[[], bool] = _never,
) -> tuple[float, int] | None:
    """(mean loss in nats a trained token, trained tokens) over all packs; None if broken off.

    The mean is over tokens, not over packs or batches.
    """
    total = torch.zeros((), dtype=torch.float64)
    tokens = 0
    one = torch.ones((), device=model.device)
    with apart(model):
        for at in range(0, int(packs.packs), batch_size):
            if waiting():
                return None
            some = [packs.sequence(p) for p in range(at, min(at + batch_size, int(packs.packs)))]
            batch = collate(some, pad_id=pad_id)
            count = int((batch["labels"][:, 1:] != -100).sum())
            if not count:
                continue
            moved = {key: value.to(model.device) for key, value in batch.items()}
            # Divided by one item, the model's loss is the sum over the batch's tokens.
            out = model(**moved, num_items_in_batch=one, use_cache=False)
            total += out.loss.double().cpu()
            tokens += count
    return (float(total) / tokens, tokens) if tokens else (float("nan"), 0)


def expected_loss(
    model: Any,
    rows: Sequence[Tokens],
    *,
    pad_id: int = 0,
    batch_tokens: int = LOSS_BATCH_TOKENS,
    waiting: Callable[[], bool] = _never,
) -> list[float | None] | None:
    """For each row the mean loss (nats a token) of its `trained` tokens, each given all before it
    (teacher forcing); None for a row with none, or longer than the model's context. None for all
    if `waiting` broke it off.

    Raises torch.OutOfMemoryError where not even one row fits.
    """
    context = context_of(model)
    found: list[float | None] = [None] * len(rows)
    # Those of like length together: little padding. The order of what is given back stays.
    left = sorted(
        (
            n
            for n, row in enumerate(rows)
            if row.trained[1:].any() and len(row.input_ids) <= context
        ),
        key=lambda n: len(rows[n].input_ids),
    )
    with apart(model):
        while left:
            if waiting():
                return None
            longest = len(rows[left[-1]].input_ids)
            some = left[-max(1, batch_tokens // longest) :]
            try:
                losses = _row_losses(model, [rows[n] for n in some], pad_id)
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                batch_tokens = longest * (len(some) // 2)
                torch.cuda.empty_cache()
                continue
            for number, loss in zip(some, losses, strict=True):
                found[number] = loss
            del left[-len(some) :]
    return found


def _row_losses(model: Any, rows: Sequence[Tokens], pad_id: int) -> list[float]:
    """The mean loss of each row's trained tokens."""
    batch = collate(rows, pad_id=pad_id)
    labels = batch.pop("labels")[:, 1:]
    # Only where an answer is expected of any row: of a large vocabulary the rest would take more
    # memory than the model's own layers.
    places = (labels != IGNORED).any(dim=0).nonzero()[:, 0]
    moved = {key: value.to(model.device) for key, value in batch.items()}
    places_there = places.to(model.device)
    only = {"logits_to_keep": places_there} if model._supports_logits_to_keep() else {}
    logits = model(**moved, **only, use_cache=False).logits
    if logits.shape[1] != len(places):
        logits = logits[:, places_there]
    wanted = labels[:, places].to(model.device)
    loss = torch.nn.functional.cross_entropy(
        logits.float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none"
    )
    counts = (wanted != IGNORED).sum(dim=1)
    result: list[float] = (loss.double().sum(dim=1) / counts).tolist()
    return result
