"""Which tokens hold which characters of a text, without asking the tokenizer for offsets.

A byte-level tokenizer's tokens are the text's own bytes cut into pieces, so where the pieces,
joined, are the text, each token's place in it follows from their lengths, for certain; and
encoding without offsets costs a fifth less. Where they are not (a normalizer changed the text,
another kind of tokenizer), the row is encoded again with offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Encoding, Tokenizer

_TRIES = 256
"""Rows of which none could be aligned by bytes before it is not tried any more."""

_NEVER = b"\xff"
"""No UTF-8 text has this byte: a token that stands for no bytes never aligns."""


def _alphabet() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary (GPT-2's bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


_BYTE_OF = _alphabet()


@dataclass(frozen=True)
class Tokens:
    """A text's tokens: `ids` int32[n]."""

    ids: np.ndarray
    text: str

    def holding(self, start: int, end: int) -> tuple[int, int]:
        """[first, after) of the tokens that hold any character of text[start:end]; (0, 0) where
        none does."""
        raise NotImplementedError


@dataclass(frozen=True)
class _ByBytes(Tokens):
    ends: np.ndarray
    """int64[n]: the byte after each token."""

    def holding(self, start: int, end: int) -> tuple[int, int]:
        if start >= end:
            return 0, 0
        first = int(np.searchsorted(self.ends, self._bytes_before(start), "right"))
        after = int(np.searchsorted(self.ends, self._bytes_before(end), "left")) + 1
        return first, after

    def _bytes_before(self, place: int) -> int:
        return place if self._ascii else len(self.text[:place].encode())

    @cached_property
    def _ascii(self) -> bool:
        return self.text.isascii()


@dataclass(frozen=True)
class _ByOffsets(Tokens):
    encoding: Encoding

    def holding(self, start: int, end: int) -> tuple[int, int]:
        first = self._token_at(start, end)
        if first is None:
            return 0, 0
        # A character may be several tokens (bytes of an emoji), of which char_to_token gives
        # the first: so the end is looked up from the character after it.
        after = self._token_at(end, len(self.text))
        if after is None:
            return first, len(self.ids)
        return first, after + (after == self.encoding.char_to_token(end - 1))

    def _token_at(self, start: int, end: int) -> int | None:
        """The first token with a character in [start, end): a normalizer may have dropped some."""
        for place in range(start, end):
            token = self.encoding.char_to_token(place)
            if token is not None:
                return int(token)
        return None


class Aligner:
    """Encodes texts for one tokenizer, each with its alignment; on any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.get_added_tokens_decoder()
        self._pieces = _Pieces(self._piece)
        self._lengths = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), dtype=np.int64)
        self._aligned = self._tried = 0

    def encode(self, texts: list[str]) -> list[Tokens]:
        """The tokens of each text, no special ones added."""
        if self._tried >= _TRIES and not self._aligned:
            return self._with_offsets(texts)
        made: list[Tokens | None] = [
            self._by_bytes(text, encoding)
            for text, encoding in zip(
                texts,
                self._tokenizer.encode_batch_fast(texts, add_special_tokens=False),
                strict=True,
            )
        ]
        self._tried += len(texts)
        again = iter(
            self._with_offsets([t for t, one in zip(texts, made, strict=True) if one is None])
        )
        self._aligned += sum(one is not None for one in made)
        return [one or next(again) for one in made]

    def _with_offsets(self, texts: list[str]) -> list[Tokens]:
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False) if texts else []
        return [
            _ByOffsets(np.array(encoding.ids, dtype=np.int32), text, encoding)
            for text, encoding in zip(texts, found, strict=True)
        ]

    def _by_bytes(self, text: str, encoding: Encoding) -> Tokens | None:
        """None where the tokens' bytes are not those of the text."""
        ids = encoding.ids
        if b"".join(map(self._pieces.__getitem__, ids)) != text.encode():
            return None
        array = np.array(ids, dtype=np.int32)
        return _ByBytes(array, text, np.cumsum(self._lengths[array]))

    def _piece(self, token: int) -> bytes:
        added = self._added.get(token)
        if added is not None:
            piece = added.content.encode()
        else:
            letters = self._tokenizer.id_to_token(token) or ""
            known = letters and all(letter in _BYTE_OF for letter in letters)
            piece = bytes(_BYTE_OF[letter] for letter in letters) if known else _NEVER
        self._lengths[token] = len(piece)  # before the piece is found, by whatever thread
        return piece


class _Pieces(dict[int, bytes]):
    """The bytes of tokens, found when a token is met first: a vocabulary is large, a file's
    tokens are few."""

    def __init__(self, find: Callable[[int], bytes]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, token: int) -> bytes:
        piece = self[token] = self._find(token)
        return piece
