"""The plain backend: `generate` over left-padded batches, the longest prompts first.

Left padding lets all answers of a batch begin together. Where memory does not suffice the batch
is halved, and stays so; each result names its batch.
"""

from __future__ import annotations

import time
from typing import Any

from evaluation.host.shipped.frames import Trouble
from evaluation.host.shipped.job import STREAM_SECONDS, Job
from evaluation.host.shipped.penalties import processors

NAME = "plain"


def available() -> bool:
    return True


def run(job: Job) -> None:
    """Answer every row of the job. Raises Trouble where not even one prompt fits."""
    import torch

    size, at = job.config.batch, 0
    if job.config.temperature:
        torch.manual_seed(job.config.seed)
    while at < len(job.rows) and not job.stopped():
        some = job.rows[at : at + size]
        started = time.monotonic()
        try:
            with torch.inference_mode():
                out = _generate(job, [ids for _, ids in some])
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise Trouble("no_memory", "not even one prompt fits into memory") from None
            size = max(1, min(size, len(some)) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        ms = (time.monotonic() - started) * 1000 / len(some)
        for (name, _), tokens in zip(some, out, strict=True):
            job.result(name, tokens, ms, len(some))
        at += len(some)
    job.done(size)


def _generate(job: Job, rows: list[list[int]]) -> list[list[int]]:
    """The new tokens of each row of one batch."""
    import torch
    from transformers import GenerationConfig

    loaded, config = job.loaded, job.config
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), loaded.pad)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, length - len(tokens) :] = torch.tensor(tokens)
        mask[row, length - len(tokens) :] = 1
    sampling: dict[str, Any] = {"do_sample": False}
    if config.temperature:
        sampling = {
            **{"do_sample": True, "temperature": config.temperature},
            **{"top_p": config.top_p, "top_k": config.top_k},
        }
    found = loaded.model.generate(
        input_ids=ids.to(loaded.model.device),
        attention_mask=mask.to(loaded.model.device),
        generation_config=GenerationConfig(
            max_new_tokens=min(config.max_tokens, loaded.context - length),
            use_cache=True,
            eos_token_id=loaded.ends,
            pad_token_id=loaded.pad,
            repetition_penalty=1.0,
            **sampling,
        ),
        logits_processor=processors(config.penalties, loaded.tokenizer, length, loaded.ends),
        stopping_criteria=[_Watch(job, length)],
    )
    answers: list[list[int]] = found[:, length:].tolist()
    return answers


class _Watch:
    """Called after each token of a batch: ends it where the job is cancelled, and a row where it
    said one of the job's stop texts; tells a growing answer."""

    def __init__(self, job: Job, prompt: int) -> None:
        self.job, self.prompt = job, prompt
        self.told = 0.0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        job = self.job
        rows = input_ids.shape[0]
        over = [job.stopped()] * rows
        if job.config.stop and not over[0]:
            # A text may begin in an earlier token: its length in tokens is at most in bytes.
            window = max(len(text.encode()) for text in job.config.stop) + 1
            tails = input_ids[:, self.prompt :][:, -window:].tolist()
            texts = [job.loaded.tokenizer.decode(tail) for tail in tails]
            over = [any(stop in text for stop in job.config.stop) for text in texts]
        if job.config.stream and rows == 1 and time.monotonic() > self.told + STREAM_SECONDS:
            self.told = time.monotonic()
            text, count, _ = job.read(input_ids[0, self.prompt :].tolist())
            job.send({"kind": "progress", "job": job.id, "text": text, "tokens": count})
        return torch.tensor(over, dtype=torch.bool, device=input_ids.device)
