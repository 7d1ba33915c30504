"""Tokens found by their bytes hold the characters that the tokenizer's own offsets say."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from engine.prepare.alignment import Aligner, _ByBytes, _ByOffsets
from tests.prepare_model import tokenizer_json

PIECES = [
    "<|im_start|>",
    "<|im_end|>",
    "user",
    " the",
    "\n",
    "12",
    "é",
    "e\u0301",
    "漢字",
    "👩‍🚀",
    "ﬁ",
]
TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES)).map("".join))


@functools.cache
def byte_level() -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json())
    tokenizer.no_truncation()
    return tokenizer


def composing() -> Tokenizer:
    """As Qwen's: byte-level behind NFC, which changes some texts."""
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


KINDS = {"byte-level": byte_level(), "NFC": composing(), "words": words()}


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), draw=st.data())
@settings(max_examples=80, deadline=None)
def test_tokens_hold_the_characters_that_their_offsets_say(
    kind: str, texts: list[str], draw: st.DataObject
) -> None:
    aligner = Aligner(KINDS[kind])
    wanted = aligner._with_offsets(texts)
    for text, found, right in zip(texts, aligner.encode(texts), wanted, strict=True):
        assert found.ids.tolist() == right.ids.tolist()
        start = draw.draw(st.integers(0, len(text)))
        end = draw.draw(st.integers(start, len(text)))
        assert found.holding(start, end) == right.holding(start, end)
        if kind == "byte-level":
            assert isinstance(found, _ByBytes)


def test_a_text_that_the_tokenizer_changes_is_aligned_by_offsets_alone() -> None:
    aligner = Aligner(composing())
    kinds = [type(one) for one in aligner.encode(["plain", "e\u0301 apart", "é whole"])]
    assert kinds == [_ByBytes, _ByOffsets, _ByBytes]


def test_a_tokenizer_of_another_kind_is_not_asked_twice_for_ever() -> None:
    aligner = Aligner(words())
    aligner.encode(["one two"] * 256)
    aligner._tokenizer = None  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="'encode_batch'"):
        aligner.encode(["one"])
