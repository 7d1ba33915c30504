"""generate: a prompt to the model that trains now; needs a running engine (exit 3)."""

from __future__ import annotations

import argparse
import math
from typing import Any

from queue_store.errors import UsageError
from queue_store.safe import safe
from trainctl.context import Context
from trainctl.output import count, counted, duration

STOPS = {
    "end": "ended by itself",
    "limit": "ended at the limit of tokens",
    "time": "ended at the limit of time",
    "cancelled": "cancelled",
    "interrupted": "broken off for another command",
}


def generate(context: Context, arguments: argparse.Namespace) -> int:
    """The answer, and what it took. JSON: answer, stop, tokens, prompt_tokens, max_tokens, seconds,
    branch, step."""
    if not math.isfinite(arguments.temperature):
        raise UsageError("--temperature is no number", mend="0 is greedy, 1 draws as it learnt")
    result = context.engine().request(
        "generate",
        prompt=arguments.prompt,
        system=arguments.system,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
    )
    context.show(result, lambda: _text(result))
    return 0


def _text(result: dict[str, Any]) -> str:
    took = f"{counted(result['tokens'], 'token')} in {duration(result['seconds'])}"
    told = f"step {count(result['step'])} · {took} · {STOPS[result['stop']]}"
    return f"{safe(result['answer'])}\n{told}"
