"""Five checks of what trains, on the prepared rows, before the first step (T18).

What a mask must be is told here from the rows' own turns, not from how the mask was made: so that
a fault in rendering, masking, tokenizing, writing or packing cannot pass. Counts are of real
tokens; there is no padding yet. Every row is counted; the text is read again of a fixed number of
them (see mask_notes.py).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
from tokenizers import Tokenizer

from engine.messages import known
from engine.prepare import thinking
from engine.prepare.mask_notes import MaskNotes
from engine.prepare.masks import called
from engine.prepare.prepared import Prepared
from queue_store.errors import DataError
from queue_store.rows import Message

RATIO, COUNT, CONTENT = "masking ratio", "response count", "trained content"
ALTERNATION, LABELS = "packed alternation", "label distribution"

PASSED = "it passed"
PACKS_READ = 32
BORDER = 4
"""Tokens a turn by which a mask may differ from its answer tokenized alone: the end token, and
tokens that lie across a border. An empty think block comes to it."""

MENDS = {
    RATIO: "see what trains with `trainctl validate FILE --tokens`",
    COUNT: "see what trains with `trainctl validate FILE --tokens`",
    CONTENT: "see that chat_template.jinja and tokenizer.json are of the same model",
    ALTERNATION: "retry the item; report it if it comes back, as packing is at fault",
    LABELS: "see what trains with `trainctl validate FILE --tokens`",
}


@dataclass(frozen=True)
class MaskCheck:
    """The outcome of one check; `line` is that of the offending row, None where it passed."""

    name: str
    passed: bool
    text: str
    line: int | None


class _Fault(Exception):
    """A check fails, at row number `row`."""

    def __init__(self, row: int, text: str) -> None:
        self.row = row
        super().__init__(text)


@dataclass(frozen=True)
class _Again:
    """A row read again: its answers, the tokens of each alone, and of all with and without their
    thinking."""

    answers: list[Message]
    ids: list[list[int]]
    most: int
    least: int


@dataclass(frozen=True)
class _Runs:
    """Runs of trained tokens over the whole array: int64[R] starts and ends, and their rows."""

    starts: np.ndarray
    ends: np.ndarray
    rows: np.ndarray


class MaskChecks:
    """Checks the rows of `notes` as they were written."""

    def __init__(
        self, notes: MaskNotes, tokenizer: Tokenizer, eos_id: int | None, how: str
    ) -> None:
        """`how`: what becomes of thinking (see thinking.py)."""
        self._notes = notes
        self._tokenizer = tokenizer
        self._how = how
        added = tokenizer.get_added_tokens_decoder()
        self._ends = {number for number, token in added.items() if token.special}
        self._ends.update([eos_id] if eos_id is not None else [])
        self._again: dict[int, _Again] = {}
        self.end_tokens: list[str] = []
        """The end tokens that answers train with, once `run` has looked."""

    def run(self, data: Prepared) -> list[MaskCheck]:
        """The five checks, in order."""
        runs = _runs(data)
        self._again = self._read_again()
        made = []
        for name, check in (
            (RATIO, self._ratio),
            (COUNT, self._count),
            (CONTENT, self._content),
            (ALTERNATION, self._alternation),
            (LABELS, self._labels),
        ):
            try:
                made.append(MaskCheck(name, True, check(data, runs), None))
            except _Fault as fault:
                line = int(data.arrays["lines"][fault.row])
                shown = self._shown(data, fault.row)
                made.append(MaskCheck(name, False, f"{fault}; the row: {shown}", line))
        return made

    # -- the five -------------------------------------------------------------------------------

    def _ratio(self, data: Prepared, runs: _Runs) -> str:
        """As many tokens train as the answers take."""
        total, trained = len(data.arrays["tokens"]), int((runs.ends - runs.starts).sum())
        border = BORDER + len(self._encoded(["<think>\n\n</think>\n\n"])[0])
        for number, again in self._again.items():
            answers = again.answers
            if not answers or any(turn.tool_calls for turn in answers):
                continue  # how a template writes calls is its own affair
            row = _row(data, "trained", number)
            given = int(np.count_nonzero(row))
            if given > again.most * 1.05 + border * len(answers):
                raise _Fault(
                    number,
                    f"{given} of its {len(row)} tokens train and its answers have about"
                    f" {again.most}: something else than answers trains",
                )
            if given < again.least * 0.95 - border * len(answers):
                raise _Fault(
                    number,
                    f"{given} of its {len(row)} tokens train and its answers have about"
                    f" {again.least}",
                )
        return (
            f"{trained:,} of {total:,} real tokens train ({trained / max(1, total):.1%}),"
            f" as many as the answers take in {len(self._again)} rows read again"
        )

    def _count(self, data: Prepared, runs: _Runs) -> str:
        """Every row has one trained segment for every assistant turn."""
        answers, wanted = self._notes.answers, self._notes.segments
        found = np.bincount(runs.rows, minlength=len(answers))
        wrong = np.flatnonzero(found != wanted)
        if len(wrong):
            row = int(wrong[0])
            many, want, marked = (int(x[row]) for x in (found, wanted, self._notes.marked))
            if many > want:
                why = "something else than answers trains"
            elif marked < answers[row]:
                why = f"the chat template has no markers for it (it marks {marked})"
            else:
                why = "the answer was cut away: its tokens end before it"
            raise _Fault(row, f"{many} segments train and it has {want} assistant turns: {why}")
        return f"{int(answers.sum()):,} assistant turns, and as many segments that train"

    def _content(self, data: Prepared, runs: _Runs) -> str:
        """Every segment ends with an end token, and is the text of its answer."""
        self._require_ends(data, runs)
        rows = 0
        for number, again in self._again.items():
            if len(again.answers) != self._notes.segments[number]:
                continue  # a text row, or answers that touch
            rows += 1
            pairs = zip(self._segments(data, number), again.answers, again.ids, strict=False)
            for place, (said, answer, ids) in enumerate(pairs, 1):
                if not self._same(said, answer, ids):
                    raise _Fault(
                        number,
                        f"segment {place} trains {_quoted(said)}, and the answer is"
                        f" {_quoted(answer.content)}",
                    )
        return f"every segment ends with an end token; the text of {rows} rows is that of the file"

    def _alternation(self, data: Prepared, runs: _Runs) -> str:
        """In every pack every row is masked first, then trains, as it did alone."""
        offsets = data.arrays["offsets"]
        first = np.full(len(offsets) - 1, len(data.arrays["tokens"]), dtype=np.int64)
        np.minimum.at(first, runs.rows, runs.starts)
        wrong = np.flatnonzero(first - offsets[:-1] < self._notes.lead)
        if len(wrong):
            raise _Fault(int(wrong[0]), "the row trains from its first tokens on")
        read = 0
        for part in (data, data.validation):
            places = np.unique(np.linspace(0, part.packs - 1, PACKS_READ).astype(np.int64))
            for pack in places.tolist() if part.packs else ():
                self._require_alternating(part, pack)
                read += 1
        return f"no row trains from its start; {read} packs read again, each row as it is alone"

    def _labels(self, data: Prepared, runs: _Runs) -> str:
        """Something trains in every row, something does not, and it is not one token."""
        tokens, trained = data.arrays["tokens"], data.arrays["trained"]
        lengths = np.diff(data.arrays["offsets"])
        per_row = np.bincount(runs.rows, weights=runs.ends - runs.starts, minlength=len(lengths))
        empty = np.flatnonzero(per_row == 0)
        if len(empty):
            which = "every label" if len(empty) == len(per_row) else "every label of the row"
            raise _Fault(int(empty[0]), f"{which} is masked: nothing would train")
        whole = np.flatnonzero((per_row >= lengths - 1) & self._notes.chats)
        if len(whole):
            raise _Fault(int(whole[0]), "no label is masked: the whole row would train")
        counts = np.zeros(0, dtype=np.int64)
        for at in range(0, len(tokens), 1 << 22):
            some = np.bincount(tokens[at : at + (1 << 22)][trained[at : at + (1 << 22)]])
            if len(some) > len(counts):
                some[: len(counts)] += counts
                counts = some
            else:
                counts[: len(some)] += some
        kinds = int(np.count_nonzero(counts))
        if kinds < 2:
            name = self._tokenizer.id_to_token(int(counts.argmax()))
            raise _Fault(0, f"all that trains is the token {_quoted(str(name))}")
        share = counts.max() / counts.sum()
        return f"{kinds:,} different tokens train, the commonest is {share:.1%} of them"

    # -- rows read again --------------------------------------------------------------------------

    def _read_again(self) -> dict[int, _Again]:
        """The rows that are read again, their answers tokenized alone, in one batch of all."""
        answers = {
            number: [turn for turn in row.messages if turn.role == "assistant"]
            for number, row in self._notes.read_again()
        }
        contents = [turn.content for turns in answers.values() for turn in turns]
        bare = [thinking.last(thinking.without(text)).strip() for text in contents]
        texts = sorted({*contents, *bare})
        made = dict(zip(texts, self._encoded(texts), strict=True))
        ids, short = [made[text] for text in contents], [made[text] for text in bare]
        found, at = {}, 0
        for number, turns in answers.items():
            mine = slice(at, at + len(turns))
            at += len(turns)
            most, least = sum(map(len, ids[mine])), sum(map(len, short[mine]))
            found[number] = _Again(turns, ids[mine], most, least)
        return found

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        made = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in made]

    def _segments(self, data: Prepared, number: int) -> list[str]:
        """The text of every trained run of a row, without its end token."""
        ids, trained = _row(data, "tokens", number), _row(data, "trained", number)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], trained, [False]])))
        texts = []
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            inside = ids[start:end].tolist()
            while inside and inside[-1] not in self._ends:
                inside.pop()  # white space behind the end token, see _require_ends
            texts.append(self._tokenizer.decode(inside[:-1], skip_special_tokens=False))
        return texts

    def _same(self, said: str, answer: Message, ids: list[int]) -> bool:
        """Whether a segment's text is the answer's, up to white space, what the tokenizer cannot
        spell, and thinking where the template may leave it out. `ids`: the answer's alone."""
        content = self._tokenizer.decode(ids, skip_special_tokens=False)
        if answer.tool_calls:
            calls = all(called(call) in said for call in answer.tool_calls)
            return calls and _squeezed(content) in _squeezed(said)
        if _squeezed(said) == _squeezed(content):
            return True
        bare = thinking.last(thinking.without(said))
        if self._how == thinking.KEEP:
            thoughts = {_squeezed(thinking.thought(text) or "") for text in (said, content)}
            if len(thoughts) > 1:
                return False
        # Before the answer stands its thinking or an empty block, and nothing else.
        opening = _squeezed(said.removesuffix(bare)).removeprefix("<think>")
        known = opening in ("", "</think>") or opening in _squeezed(content)
        return known and _squeezed(bare) == _squeezed(thinking.last(content))

    def _require_ends(self, data: Prepared, runs: _Runs) -> None:
        tokens = data.arrays["tokens"]
        ends = np.fromiter(self._ends, dtype=np.int64)
        at = runs.ends - 1
        left = np.flatnonzero(~np.isin(tokens[at], ends))
        # A template's own markers may go on to the line feed that it puts behind the end token.
        blank = [
            number
            for number in np.unique(tokens[at[left]]).tolist()
            if not self._tokenizer.decode([number], skip_special_tokens=False).strip()
        ]
        behind = left[np.isin(tokens[at[left]], blank)]
        behind = behind[(at[behind] > runs.starts[behind])]
        good = behind[np.isin(tokens[at[behind] - 1], ends)]
        wrong = np.setdiff1d(left, good, assume_unique=True)
        direct = np.delete(tokens[at], left)
        found = np.unique(np.concatenate([direct, tokens[at[good] - 1]])).tolist()
        self.end_tokens = [str(self._tokenizer.id_to_token(number)) for number in found]
        if len(wrong):
            row = int(runs.rows[wrong[0]])
            last = self._tokenizer.decode([int(tokens[at[wrong[0]]])], skip_special_tokens=False)
            raise _Fault(
                row,
                f"a segment ends with {_quoted(last)} and no end token: the model would not learn"
                " to stop, or the answer was cut",
            )

    def _require_alternating(self, part: Prepared, pack: int) -> None:
        """A pack as it will be collated: its rows start where positions do, each masked first."""
        sequence = part.sequence(pack)
        labels = sequence.trained & (sequence.position_ids != 0)
        starts = np.flatnonzero(sequence.position_ids == 0)
        rows = part.rows_of(pack).tolist()
        if len(starts) != len(rows):
            raise _Fault(rows[0], f"pack {pack} has {len(rows)} rows and {len(starts)} starts")
        bounds = [*starts.tolist(), len(labels)]
        for place, (row, (start, end)) in enumerate(zip(rows, pairwise(bounds), strict=True), 1):
            trained = np.flatnonzero(labels[start:end])
            if not len(trained) or trained[0] < self._notes.lead[row]:
                what = "trains from its start" if len(trained) else "has no label"
                raise _Fault(row, f"row {place} of {len(rows)} in pack {pack} {what}")
            if len(trained) != self._notes.trained[row]:
                raise _Fault(
                    row,
                    f"row {place} of {len(rows)} in pack {pack} trains {len(trained)} tokens, and"
                    f" {self._notes.trained[row]} alone",
                )

    def _shown(self, data: Prepared, number: int) -> str:
        """The row in one line: its first stretches of masked and trained tokens."""
        ids, trained = _row(data, "tokens", number), _row(data, "trained", number)
        edges = np.flatnonzero(np.diff(trained.astype(np.int8))) + 1
        bounds = [0, *edges.tolist(), len(ids)]
        parts = []
        for start, end in list(pairwise(bounds))[:4]:
            text = self._tokenizer.decode(ids[start:end].tolist(), skip_special_tokens=False)
            parts.append(f"{'trains' if trained[start] else 'masked'} {_quoted(text)}")
        return ", ".join(parts) + (", …" if len(bounds) > 5 else "")


def as_json(checks: Sequence[MaskCheck]) -> list[dict[str, Any]]:
    """For report["masks"]["checks"]."""
    return [{**asdict(check), "line": known(check.line, PASSED)} for check in checks]


def refuse(checks: Sequence[MaskCheck], name: str) -> None:
    """Raise DataError for the first check that failed; `name` is the file's."""
    for check in checks:
        if not check.passed:
            raise DataError(
                f"{check.name}: {check.text}", where=f"{name}:{check.line}", mend=MENDS[check.name]
            )


def _runs(data: Prepared) -> _Runs:
    offsets, trained = data.arrays["offsets"], data.arrays["trained"]
    before = np.zeros(len(trained), dtype=np.bool_)
    before[1:] = trained[:-1]
    before[offsets[:-1]] = False  # a run ends with its row
    after = np.zeros(len(trained), dtype=np.bool_)
    after[:-1] = trained[1:]
    after[offsets[1:] - 1] = False
    starts = np.flatnonzero(trained & ~before)
    ends = np.flatnonzero(trained & ~after) + 1
    return _Runs(starts, ends, np.searchsorted(offsets, starts, side="right") - 1)


def _row(data: Prepared, name: str, number: int) -> np.ndarray:
    offsets = data.arrays["offsets"]
    return np.asarray(data.arrays[name][offsets[number] : offsets[number + 1]])


def _squeezed(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(text.split()))


def _quoted(text: str, most: int = 60) -> str:
    """A text for a message of one line."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-most // 2 :]}"
    return orjson.dumps(text).decode()
