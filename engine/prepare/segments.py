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
    wanted = [int(one) for one in ids]
    starts = [0, *(np.flatnonzero(trained[1:] != trained[:-1]) + 1).tolist(), len(wanted)]
    text = tokenizer.decode(wanted, skip_special_tokens=False)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if encoding.ids == wanted:
        offsets = encoding.offsets
        cuts = [0]
        for start in starts[1:-1]:
            begin, end = offsets[start]
            shared = begin < offsets[start - 1][1]
            cuts.append(max(cuts[-1], end if shared else begin))
        cuts.append(len(text))
        texts = [text[a:b] for a, b in itertools.pairwise(cuts)]
    else:
        # The decoder does not give back what was encoded: each piece is then decoded by itself.
        texts = [
            tokenizer.decode(wanted[a:b], skip_special_tokens=False)
            for a, b in itertools.pairwise(starts)
        ]
    return [
        {"text": piece, "trained": bool(trained[start])}
        for piece, start in zip(texts, starts[:-1], strict=True)
        if piece
    ]
