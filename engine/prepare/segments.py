"""The text of a row's tokens, cut where training begins and ends: what a person looks at."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from tokenizers import Tokenizer


def segments(tokenizer: Tokenizer, ids: np.ndarray, trained: np.ndarray) -> list[dict[str, Any]]:
    """`ids` int[n] and `trained` bool[n] as [{"text", "trained"}], special tokens included.

    The texts after one another are what the tokens decode to: what the model reads, which may be
    a normalized form of what the file says. A character that is several tokens stays whole, in
    the segment of its first token.
    """
    wanted: list[int] = ids.tolist()
    starts = [0, *(np.flatnonzero(trained[1:] != trained[:-1]) + 1).tolist(), len(wanted)]
    text = tokenizer.decode(wanted, skip_special_tokens=False)
    pieces = [
        tokenizer.decode(wanted[a:b], skip_special_tokens=False)
        for a, b in itertools.pairwise(starts)
    ]
    if "".join(pieces) != text:
        # A border within a character, or a decoder that looks at what stands before.
        pieces = _by_offsets(tokenizer, text, wanted, starts) or pieces
    return [
        {"text": piece, "trained": bool(trained[start])}
        for piece, start in zip(pieces, starts[:-1], strict=True)
        if piece
    ]


def _by_offsets(
    tokenizer: Tokenizer, text: str, ids: list[int], starts: list[int]
) -> list[str] | None:
    """`text` cut where the tokens at `starts` begin; None where it does not encode to `ids`."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if encoding.ids != ids:
        return None
    cuts = [0]
    for start in starts[1:-1]:
        here, before = (encoding.token_to_chars(n) for n in (start, start - 1))
        if here is None or before is None:
            return None
        shared = here[0] < before[1]
        cuts.append(max(cuts[-1], here[1] if shared else here[0]))
    return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]
