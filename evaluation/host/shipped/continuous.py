"""The backend of transformers' continuous batching: a finished row's place is taken at once.

Worth it on a card and where answers differ in length. History-dependent penalties, stop texts
and streaming are not for it: the plain backend does those.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

from evaluation.host.shipped.frames import Trouble
from evaluation.host.shipped.job import Job

NAME = "continuous"
WAIT_SECONDS = 1.0
PAGE = 256
"""Tokens of a block of the cache, transformers' default."""
END_SECONDS = 30.0


def available() -> bool:
    """Whether transformers there has it; by its files, for an import takes seconds."""
    found = importlib.util.find_spec("transformers")
    places = (found.submodule_search_locations or ()) if found is not None else ()
    return any((Path(place) / "generation" / "continuous_batching").exists() for place in places)


def run(job: Job) -> None:
    """Answer every row of the job. Raises Trouble."""
    from transformers import GenerationConfig

    config, loaded = job.config, job.loaded
    if config.penalties or config.stop or config.stream or config.temperature:
        what = "penalties, stop texts, streaming and sampling need the plain backend"
        raise Trouble("config", what)
    if not job.rows:
        return job.done(0)
    attention = loaded.model.config._attn_implementation
    generation = GenerationConfig(
        max_new_tokens=config.max_tokens,
        do_sample=False,
        eos_token_id=loaded.ends,
        pad_token_id=loaded.pad,
    )
    names: dict[str, str] = {}
    try:
        with loaded.model.continuous_batching_context_manager(
            generation_config=generation,
            continuous_batching_config=_memory(job),
            block=True,
            timeout=END_SECONDS,
        ) as manager:
            for name, ids in job.rows:
                room = min(config.max_tokens, loaded.context - len(ids))
                names[manager.add_request(ids, max_new_tokens=room)] = name
            _collect(job, manager, names)
    except RuntimeError as error:
        raise Trouble("failed", f"continuous batching: {error}"[:300]) from None
    finally:
        loaded.model.set_attn_implementation(attention)
    job.done(len(job.rows))


def _memory(job: Job) -> Any:
    """On a card the library takes what is free; on a CPU that would be nearly all memory, and
    half a minute to reserve it, so there it is what a few of the longest rows need."""
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    if job.loaded.device != "cpu":
        return ContinuousBatchingConfig()
    longest = max(len(ids) for _, ids in job.rows) + job.config.max_tokens
    blocks = max(64, 8 * (longest // PAGE + 1))
    return ContinuousBatchingConfig(num_blocks=blocks, max_batch_tokens=512)


def _collect(job: Job, manager: Any, names: dict[str, str]) -> None:
    last = time.monotonic()
    while names and not job.stopped():
        found = manager.get_result(timeout=WAIT_SECONDS)
        if found is None:
            if not manager.is_running():
                raise Trouble("failed", "continuous batching ended before its answers were there")
            continue
        if not found.is_finished():
            continue
        name = names.pop(found.request_id)
        if found.error is not None:
            raise Trouble("failed", f"continuous batching: {found.error}"[:300])
        now = time.monotonic()
        job.result(name, list(found.generated_tokens), (now - last) * 1000, len(names) + 1)
        last = now
