"""Rows to token ids and a mask of what trains, many rows at a time.

The tokenizer runs in its own threads without the interpreter's lock, so the caller can read
and render the next rows meanwhile: `submit` in one call, `collect` in another. Nothing here
knows about files or packing, and no row is ever cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding

from engine.prepare import thinking
from engine.prepare.profiles import Profile
from engine.prepare.render import Rendered, Renderer
from engine.prepare.template import ModelText, RowRefused, Span
from queue_store.errors import DataError
from queue_store.rows import BadRow, Message, Row


@dataclass(frozen=True)
class EncodedRow:
    """A row as tokens. `ids` int32[n]; `trained` bool[n] (never the first: nothing predicts it).

    `text` and `spans` (characters that train) are what was tokenized, for showing. `row` is as the
    file has it, `messages` are its turns as the template got them (see render.py).
    """

    row: Row
    ids: np.ndarray
    trained: np.ndarray
    text: str
    spans: tuple[Span, ...]
    messages: Sequence[Message] = ()


@dataclass(frozen=True)
class Batch:
    """Rows on their way through the tokenizer, in the order given to `submit`."""

    rows: list[tuple[Row, Rendered] | BadRow]
    chats: Future[list[Encoding]]
    texts: Future[list[Encoding]]


class Encoder:
    """Tokens of rows for one model, one system prompt, one profile, one choice about thinking."""

    def __init__(
        self,
        model: ModelText,
        system_prompt: str,
        executor: Executor,
        how: str = thinking.TEMPLATE,
        profile: Profile | None = None,
    ) -> None:
        self._tokenizer = model.tokenizer
        self._executor = executor
        self._eos_id = model.eos_id
        self._folder = model.folder
        self._renderer = Renderer(model, system_prompt, how, profile)

    @property
    def ways(self) -> dict[str, int]:
        """How many rows each way of telling what trains has served (see masks.py)."""
        return self._renderer.ways

    def submit(self, rows: Sequence[Row | BadRow]) -> Batch:
        """Render the rows and hand them to the tokenizer."""
        rendered: list[tuple[Row, Rendered] | BadRow] = []
        chats: list[str] = []
        texts: list[str] = []
        for row in rows:
            if isinstance(row, BadRow):
                rendered.append(row)
                continue
            try:
                made = self._render(row)
            except RowRefused as refusal:
                rendered.append(BadRow(row.line, str(refusal)))
                continue
            rendered.append((row, made))
            (chats if row.messages is not None else texts).append(made.text)
        encode = self._tokenizer.encode_batch
        return Batch(
            rendered,
            # The template has written the special tokens of a chat itself.
            self._executor.submit(encode, chats, add_special_tokens=False),
            self._executor.submit(encode, texts, add_special_tokens=True),
        )

    def collect(self, batch: Batch) -> list[EncodedRow | BadRow]:
        """The rows of a batch as tokens, in order; waits for the tokenizer."""
        chats, texts = iter(batch.chats.result()), iter(batch.texts.result())
        result: list[EncodedRow | BadRow] = []
        for entry in batch.rows:
            if isinstance(entry, BadRow):
                result.append(entry)
                continue
            row, made = entry
            if row.messages is not None:
                result.append(_chat(row, made, next(chats)))
            else:
                result.append(self._completion(row, made.text, next(texts)))
        return result

    def _render(self, row: Row) -> Rendered:
        if row.messages is None and self._eos_id is None:
            raise DataError(
                "text rows need an end token and the tokenizer names no eos_token",
                where=str(self._folder / "tokenizer_config.json"),
            )
        return self._renderer.row(row)

    def _completion(self, row: Row, text: str, encoding: Encoding) -> EncodedRow | BadRow:
        ids: list[int | None] = list(encoding.ids)
        if not ids or ids[-1] != self._eos_id:
            ids.append(self._eos_id)
        if len(ids) < 2:
            return BadRow(row.line, "text is a single token: nothing predicts it")
        trained = np.ones(len(ids), dtype=np.bool_)
        trained[0] = False
        tokens = np.array(ids, dtype=np.int32)
        return EncodedRow(row, tokens, trained, text, ((0, len(text)),))


def _token_at(encoding: Encoding, start: int, end: int) -> int | None:
    """The first token with a character in [start, end): a normalizer may have dropped some."""
    for place in range(start, end):
        token = encoding.char_to_token(place)
        if token is not None:
            return int(token)
    return None


def _chat(row: Row, made: Rendered, encoding: Encoding) -> EncodedRow | BadRow:
    """Tokens that hold any character of a span train (transformers' rule for its masks)."""
    text, spans = made.text, made.spans
    ids = np.array(encoding.ids, dtype=np.int32)
    trained = np.zeros(len(ids), dtype=np.bool_)
    for start, end in spans:
        first = _token_at(encoding, start, end)
        if first is None:
            continue
        # A character may be several tokens (bytes of an emoji), of which char_to_token gives
        # the first: so the end is looked up from the character after it.
        after = _token_at(encoding, end, len(text))
        if after is None:
            after = len(ids)
        elif after == encoding.char_to_token(end - 1):
            after += 1
        trained[first:after] = True
    if len(trained):
        trained[0] = False
    if not trained.any():
        return BadRow(row.line, "its assistant text is cut away: none of its tokens can train")
    if trained[1:].all():
        return BadRow(row.line, "nothing is masked: every token of the row would train")
    return EncodedRow(row, ids, trained, text, tuple(spans), made.messages)
