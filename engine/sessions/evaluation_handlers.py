"""Answers to the commands about evaluation: on threads of the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.reading import judged

HANDLERS: dict[str, Callable[..., Any]] = {
    "compare_answers": judged.answer,
    "compared_item": judged.item,
}
