"""What a set holds, who will judge it, and what is wrong with it, line by line: `trainctl sets`.

Where `sets.load_set` refuses a whole set for its first bad row, this reads on and names them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from evaluation.scorers import Scorer, apply, scorer_for
from evaluation.sets import Example, example_of
from queue_store.errors import DataError
from queue_store.heldout import set_files
from queue_store.home import Home
from queue_store.rows import BadRow, prompt_digest, read_rows

Json = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is wrong at a line (None: with the file). `error`: the row cannot be asked or judged;
    else it can, and the note says what it does to the counts."""

    line: int | None
    what: str
    error: bool = True


def report(home: Home) -> list[Json]:
    """Every set of the home, by name: {name, digest | {unknown}, rows (all lines), examples (that
    can be asked), prompts (different ones), skills[], levels{level: rows}, tiers{tier: rows},
    scorers[{name, version, about, rows}], problems[{line, what, error}]}."""
    return [_report(name, path) for name, path in set_files(home).items()]


def _report(name: str, path: Path) -> Json:
    digest: Any
    try:
        digest = blake3(path.read_bytes()).hexdigest()
        read = list(_read(path))
    except (OSError, DataError) as error:
        what = error.what if isinstance(error, DataError) else f"cannot be read: {error.strerror}"
        digest, read = {"unknown": what}, [Problem(None, what)]
    examples = [one for one in read if isinstance(one, Example)]
    problems = [one for one in read if isinstance(one, Problem)]
    scorers: Counter[Scorer] = Counter()
    for example in examples:
        scorer, wrong = _judged(example)
        if scorer is not None:
            scorers[scorer] += 1
        if wrong is not None:
            problems.append(wrong)
    prompts: dict[Any, int] = {}
    for example in examples:
        line = example.row.line
        first = prompts.setdefault(prompt_digest(example.row), line)
        if first != line:
            problems.append(Problem(line, f"asks the same as line {first}", error=False))
    return {
        "name": name,
        "digest": digest,
        "rows": sum(not (isinstance(one, Problem) and one.line is None) for one in read),
        "examples": len(examples),
        "prompts": len(prompts),
        "skills": sorted({example.skill for example in examples if example.skill}),
        "levels": _counted(example.level for example in examples),
        "tiers": _counted(example.tier or None for example in examples),
        "scorers": [
            {"name": scorer.name, "version": scorer.version, "about": scorer.about, "rows": rows}
            for scorer, rows in scorers.most_common()
        ],
        "problems": [asdict(p) for p in sorted(problems, key=lambda p: (p.line or 0, p.what))],
    }


def _read(path: Path) -> Iterator[Example | Problem]:
    taken: set[str] = set()
    for row in read_rows(path):
        if isinstance(row, BadRow):
            yield Problem(row.line, row.reason)
            continue
        try:
            yield example_of(row, path, taken)
        except DataError as error:
            yield Problem(row.line, f"{error.what} ({error.mend})")


def _judged(example: Example) -> tuple[Scorer | None, Problem | None]:
    """The scorer of a row, and why it cannot judge it; a gold answer must pass its own scorer."""
    try:
        scorer = scorer_for(example.skill, example.expected, example.metadata)
        score = apply(scorer, example.expected, example.expected, example.metadata)
    except DataError as error:
        mend = f" ({error.mend})" if error.mend else ""
        return None, Problem(example.row.line, f"{error.what}{mend}")
    if score.exact:
        return scorer, None
    what = f"its own answer is wrong by its scorer, {scorer.name} {scorer.version}"
    return scorer, Problem(example.row.line, what)


def _counted(values: Iterable[Any]) -> dict[str, int]:
    """How often each value occurs, in their order; None is left out."""
    found = Counter(value for value in values if value is not None)
    return {str(value): found[value] for value in sorted(found)}
