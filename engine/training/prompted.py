"""A person's prompt, answered by the model as it stands: what it must fit, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engine.training.controls import Prompt
from engine.training.model import LoadedModel
from engine.training.sampler import Drawing, Grown, answer, context_of, encode_prompt
from queue_store.errors import Refused


@dataclass(frozen=True)
class Question:
    """`longest`: tokens that the prompt may have, None for any number; `drawing` None: greedy."""

    prompt: Prompt
    max_tokens: int
    longest: int | None
    drawing: Drawing | None


def prompted(
    loaded: LoadedModel, asked: Question, end: Callable[[], str], grown: Grown | None
) -> dict[str, Any]:
    """{answer, stop, tokens, prompt_tokens, max_tokens, temperature, top_p, seed}. `end` says
    between two tokens why the answer has to end there, "" while it need not; that is its `stop`
    then, else "end" or "limit".

    Raises Refused where the prompt does not fit.
    """
    length = len(encode_prompt(loaded.tokenizer, asked.prompt))
    context = context_of(loaded.model)
    if length >= context:
        raise Refused(
            f"the prompt has {length} tokens, and the model takes {context} with the answer",
            mend="shorten it",
        )
    if asked.longest is not None and length > asked.longest:
        # Read in one go, between no two tokens of which it could end: no longer than a row.
        raise Refused(
            f"the prompt has {length} tokens, more than a row has in training"
            f" (training.max_length = {asked.longest})",
            mend="pause first, then longer ones are answered",
        )
    most = min(asked.max_tokens, context - length)
    told = {
        **{"prompt_tokens": length, "max_tokens": most, "temperature": 0.0},
        **(vars(asked.drawing) if asked.drawing else {}),
        **loaded.base_precision,
    }
    why = end()
    if why:
        return {"answer": "", "stop": why, "tokens": 0, **told}

    def ends() -> bool:
        nonlocal why
        why = why or end()
        return bool(why)

    try:
        found = answer(
            loaded.model,
            loaded.tokenizer,
            [asked.prompt],
            max_tokens=most,
            drawing=asked.drawing,
            until=ends,
            grown=grown,
        )
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise Refused(
            f"the memory does not suffice for {length} tokens and {most} of an answer"
            " beside training",
            mend="ask for fewer tokens, or shorten the prompt",
        ) from error
    assert found is not None  # nothing but `until` ends it
    said = found[0]
    stop = "end" if said.ended else "limit" if said.tokens >= most else why
    return {"answer": said.text, "stop": stop, "tokens": said.tokens, **told}
