"""What is noted of every row on its way, so that its mask can be checked once all are written.

From the rows' own turns, never from how a mask was made. A few bytes a row; whole rows only of a
fixed number, those with the smallest ranks by a hash of their prompt, and the extremes.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from engine.prepare import thinking
from engine.prepare.encode import EncodedRow

ROWS_READ = 32
"""Rows whose text is read again, besides the extremes."""


class MaskNotes:
    """One entry for every row that trains or validates, in the order of the file."""

    def __init__(self) -> None:
        self._answers = array("i")
        self._segments = array("i")
        self._marked = array("i")
        self._trained = array("i")
        self._lead = array("b")
        self._chat = bytearray()
        self._chosen: list[tuple[int, int, EncodedRow]] = []
        self._extremes: dict[str, tuple[float, int, EncodedRow]] = {}
        self.thinking = {"answers": 0, "trained": 0, "left_out": 0, "empty_blocks": 0}
        """Answers of the file that open with thinking, how many of these train with it and
        without, and answers that train with an empty think block."""

    @property
    def answers(self) -> np.ndarray:
        """int[R]: assistant turns of each row; 1 of a text row."""
        return np.frombuffer(self._answers, dtype=np.intc)

    @property
    def segments(self) -> np.ndarray:
        """int[R]: stretches that are to train: answers, less those that touch the one before."""
        return np.frombuffer(self._segments, dtype=np.intc)

    @property
    def marked(self) -> np.ndarray:
        """int[R]: spans of characters that the template was found to mark."""
        return np.frombuffer(self._marked, dtype=np.intc)

    @property
    def trained(self) -> np.ndarray:
        """int[R]: tokens that train."""
        return np.frombuffer(self._trained, dtype=np.intc)

    @property
    def lead(self) -> np.ndarray:
        """int8[R]: tokens at least that are masked at the row's start. The first never trains, and
        before an answer stands a turn, or at least the name of a role."""
        return np.frombuffer(self._lead, dtype=np.int8)

    @property
    def chats(self) -> np.ndarray:
        """bool[R]: whether the row is a conversation, of which never all trains."""
        return np.frombuffer(self._chat, dtype=np.bool_)

    def note(self, row: EncodedRow, rank: int) -> None:
        """The next row that is kept. `rank`: a hash of its prompt."""
        number = len(self._answers)
        turns, spans = row.messages, row.spans
        answers = sum(turn.role == "assistant" for turn in turns) if turns else 1
        trained = int(np.count_nonzero(row.trained))
        self._answers.append(answers)
        self._segments.append(answers - sum(a[1] == b[0] for a, b in pairwise(spans)))
        self._marked.append(len(spans))
        self._trained.append(trained)
        self._lead.append(2 if turns and turns[0].role != "assistant" else 1)
        self._chat.append(bool(turns))
        entry = (-rank, -number, row)
        if len(self._chosen) < ROWS_READ:
            heapq.heappush(self._chosen, entry)
        elif entry > self._chosen[0]:
            heapq.heapreplace(self._chosen, entry)
        share = trained / len(row.ids)
        for name, value in (
            ("longest", len(row.ids)),
            ("most trained", share),
            ("least trained", -share),
            ("most turns", answers),
        ):
            if name not in self._extremes or value > self._extremes[name][0]:
                self._extremes[name] = (value, number, row)
        if turns:
            self._note_thinking(row)

    def _note_thinking(self, row: EncodedRow) -> None:
        given = [
            turn.content
            for turn in row.row.messages or ()
            if turn.role == "assistant" and "</think>" in turn.content
        ]
        if not given and "</think>" not in row.text:
            return
        answers = sum(bool(thinking.thought(content)) for content in given)
        blocks = [thinking.thought(row.text[start:end]) for start, end in row.spans]
        trained = sum(bool(block) for block in blocks)
        self.thinking["answers"] += answers
        self.thinking["trained"] += trained
        self.thinking["left_out"] += max(0, answers - trained)
        self.thinking["empty_blocks"] += sum(block == "" for block in blocks)

    def read_again(self) -> Iterator[tuple[int, EncodedRow]]:
        """The rows that are read again, in the order of the file."""
        found = {-number: row for _, number, row in self._chosen}
        found |= {number: row for _, number, row in self._extremes.values()}
        yield from sorted(found.items())
