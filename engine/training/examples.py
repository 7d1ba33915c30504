"""The fixed examples of the samples: which ones, how they are asked, how answers are judged.

They come from the home's held-out sets, in turn from each set, and from the rows of the item that
trains; the same ones at every tick and in every session, so that each has a history. They are
asked as the item's rows train, with the same template, profile, system prompt and choice about
thinking. What an item's own rows say is what was learnt, not how good the model is: nobody counts
them among the held-out ones.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from engine.prepare import thinking
from engine.prepare.alignment import Aligner
from engine.prepare.prepared import Prepared, Sequence
from engine.prepare.profiles import Profile, scored
from engine.prepare.render import Rendered, Renderer
from engine.prepare.template import RowRefused
from engine.training.controls import Prompt, SampleResult
from evaluation import sets
from evaluation.scorers import score
from queue_store import metrics
from queue_store.config import Config
from queue_store.errors import DataError
from queue_store.home import Home
from queue_store.items import Item
from queue_store.rows import Row, read_rows

ROWS_LOOKED_AT = 20_000
"""Of an item's rows, the first so many: to its last row a large file would be read for minutes."""


@dataclass(frozen=True)
class Fixed:
    """One fixed example: how it is asked, and how it is kept. `expected` is its row as tokens, of
    which those of the expected answer are marked `trained`."""

    prompt: Prompt
    row: metrics.Example
    expected: Sequence


def choose(home: Home, config: Config, renderer: Renderer) -> dict[str, Fixed]:
    """`samples.count` examples of the sets that `evaluation.sets` names, by id. Raises DataError
    for one that the template refuses."""
    found = sets.load_sets(home, config.evaluation.sets)
    aligner = Aligner(renderer.model.tokenizer)
    chosen: dict[str, Fixed] = {}
    for one, example in fixed_of(found, config.samples.count):
        name = metrics.set_example(one.name, one.digest, example.id)
        try:
            fixed = _fixed(name, *(one.name, example, len(chosen), renderer, aligner))
        except RowRefused as refusal:
            where = f"{one.name}.jsonl:{example.row.line}"
            raise DataError(str(refusal), where=where) from None
        chosen[name] = fixed
    return chosen


def fixed_of(found: Several[sets.EvalSet], count: int) -> list[tuple[sets.EvalSet, sets.Example]]:
    """The first `count` examples of these sets, in turn one of each set."""
    depths = range(max((len(one.examples) for one in found), default=0))
    turns = [(one, n) for n in depths for one in found if n < len(one.examples)]
    return [(one, one.examples[n]) for one, n in turns[:count]]


def of_item(
    home: Home, item: Item, prepared: Prepared, count: int, renderer: Renderer
) -> dict[str, Fixed]:
    """`count` rows of the item that train, spread evenly over it, by id; the same each time. Rows
    without an expected answer (plain text) are none. Raises DataError where the file cannot be
    read."""
    trained = _lines(prepared)
    wanted = {trained[n * len(trained) // count] for n in range(count)} if trained else set()
    chosen: dict[str, Fixed] = {}
    if not wanted:
        return chosen
    aligner, last = Aligner(renderer.model.tokenizer), max(wanted)
    path = home.items / item.file
    for row in read_rows(path):
        if row.line in wanted and isinstance(row, Row):
            try:
                example = sets.example_of(row, path, set())
                fixed = _fixed(
                    metrics.item_example(item.id, item.digest, row.line),
                    *(item.name, example, len(chosen), renderer, aligner),
                )
            except (RowRefused, DataError):
                continue
            chosen[fixed.prompt.id] = fixed
        if row.line >= last:
            break
    return chosen


def _lines(prepared: Prepared) -> list[int]:
    """The lines of the rows that train, of the first ROWS_LOOKED_AT, in their order."""
    kept = np.concatenate([prepared.rows_of(n) for n in range(prepared.packs)] or [np.zeros(0)])
    rows = np.sort(kept.astype(np.int64))
    found = prepared.arrays["lines"][rows[rows < ROWS_LOOKED_AT]].tolist()
    return [int(line) for line in found]


def _fixed(
    name: str,
    of: str,
    example: sets.Example,
    position: int,
    renderer: Renderer,
    aligner: Aligner,
) -> Fixed:
    """Raises RowRefused."""
    text = renderer.prompt(example.row, len(example.prompt))
    expected = _expected(renderer.row(example.row), text, aligner)
    return Fixed(
        Prompt(name, example.prompt, text),
        row_of(name, of, example, position),
        expected,
    )


def row_of(name: str, of: str, example: sets.Example, position: int) -> metrics.Example:
    """An example as it is kept: `name` its id, `of` its set's name."""
    return metrics.Example(
        id=name,
        set_name=of,
        position=position,
        prompt="\n".join(t["content"] for t in example.prompt if t["role"] != "system"),
        expected=example.expected,
        skill=example.skill,
        level=example.level,
    )


def _expected(whole: Rendered, prompt: str, aligner: Aligner) -> Sequence:
    """The tokens of a row, those marked that train after its prompt: the expected answer and its
    end, as training has them."""
    # A template that writes earlier turns otherwise in a prompt: then it is what trains last.
    last = whole.spans[-1][0] if whole.spans else len(whole.text)
    begin = len(prompt) if whole.text.startswith(prompt) else last
    tokens = aligner.encode([whole.text])[0]
    trained = np.zeros(len(tokens.ids), dtype=np.bool_)
    for start, end in whole.spans:
        first, after = tokens.holding(max(start, begin), end)
        trained[first:after] = True
    return Sequence(tokens.ids, trained, np.arange(len(tokens.ids), dtype=np.int32), (1,))


def similarity(expected: str, answer: str) -> float:
    """Share of matching characters of two texts, 0 to 1 (difflib's ratio). Not a loss."""
    return SequenceMatcher(None, expected[:4000], answer[:4000], autojunk=False).ratio()


def verdict(row: metrics.Example, answer: str, profile: Profile) -> tuple[bool, float]:
    """Whether an answer is exact, and how similar to the expected one. Scored without its thinking
    and without what the profile adds: the sets expect neither."""
    said = scored(profile, thinking.without(answer))
    return score(row.skill, row.expected, said).exact, similarity(row.expected, said)


def judge(result: SampleResult, fixed: dict[str, Fixed], profile: Profile) -> list[metrics.Sample]:
    """The answers of a tick with their scores, to be stored in full."""
    judged = []
    for answer in result.answers:
        exact, similar = verdict(fixed[answer.id].row, answer.text, profile)
        judged.append(
            metrics.Sample(
                branch=result.place.branch,
                step=result.place.global_step,
                example=answer.id,
                answer=answer.text,
                exact=exact,
                similarity=similar,
                expected_loss=result.expected_loss.get(answer.id),
                tokens=answer.tokens,
                seconds=answer.seconds,
            )
        )
    return judged
