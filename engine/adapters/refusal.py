"""Why an adapter is not made into a full model, in a word that a person can act on."""

from __future__ import annotations


class CannotMerge(Exception):
    """The adapter is sound, and no sum of it and its base is the same model."""
