"""What a change of a locked key would mean, in words: why it is refused."""

from __future__ import annotations

BESIDE = {"lora": "the full-precision base", "qlora": "the 4-bit base"}
"""What an adapter of each model.method trains beside."""


def would_mean(key: str, before: object, now: object) -> str:
    """Why what trained with `before` does not go on with `now`; "" where nothing is to be said
    beyond that they differ."""
    if key != "model.method":
        return ""
    if before in BESIDE and now in BESIDE:
        return (
            f"the adapter here was trained beside {BESIDE[str(before)]}: beside"
            f" {BESIDE[str(now)]} it would be another model, and its losses would not compare"
        )
    return "a full model and an adapter share no weights and no optimizer's state"
