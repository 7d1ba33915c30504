"""Evaluation results, kept for good: every answer in full, by whom, and every score of it.

Keyed by model (its weights' digest), set (its file's digest), item, generation configuration (its
digest), and for a score by scorer and version. What is complete is never overwritten: an answer
sent twice is the same answer, and a broken job goes on with `missing`. A failure (a timeout, a
refused request, a dead link) is kept as one and is no answer; the next try replaces it.
No rule removes any: they outlive the versions and checkpoints that gave them (a regression is
against what was), and are in every daily copy of metrics.db. A connection belongs to the thread
that opened it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from blake3 import blake3

from queue_store.database import now, open_metrics
from queue_store.errors import NotFound
from queue_store.home import Home
from queue_store.metrics import transaction

Json = dict[str, Any]
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SetItem:
    """A row of a set: `id` unique in it, `position` from 0, `prompt` the turns that are asked."""

    id: str
    position: int
    prompt: Sequence[Mapping[str, str]]
    expected: str
    skill: str = ""
    level: int | None = None
    tier: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """What one version of a scorer said: the verdict and its parts, or `error` (exact is None)."""

    scorer: str
    version: str
    exact: bool | None
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Result:
    """One item's answer in full, or the error that came instead.

    `finish`: why generation ended (stop, length); `tokens` generated; `ms` that they took, of a
    batch of `batch` rows its share of the wall time; `backend` and `host` that made them.
    `error_kind` is "" for an answer; else it says what failed (timeout, refused, link, worker, …)
    and `error` its text.
    """

    item: str
    answer: str = ""
    finish: str = ""
    tokens: int | None = None
    ms: float | None = None
    batch: int | None = None
    backend: str = ""
    host: str = ""
    error_kind: str = ""
    error: str = ""
    scores: tuple[Scored, ...] = ()
    attempts: int = 1

    @property
    def complete(self) -> bool:
        return not self.error_kind


@dataclass(frozen=True)
class Evaluation:
    """A model asked a set in one way. `settings` is the generation configuration, `config` its
    digest; `items` of the set, of which `complete` have an answer and `failed` an error."""

    id: int
    model: str
    set_digest: str
    set_name: str
    config: str
    settings: Json
    created: float
    items: int
    complete: int
    failed: int


@dataclass(frozen=True)
class Outcome:
    """An item of an evaluation without its texts, for counting. `answered` is False, and
    `error_kind` says why, where it has an error; a missing item has the kind "missing"."""

    item: str
    skill: str
    level: int | None
    tier: str
    answered: bool
    error_kind: str
    tokens: int | None
    ms: float | None
    batch: int | None
    backend: str
    host: str
    scores: tuple[Scored, ...]


def config_digest(settings: Mapping[str, Any]) -> str:
    """BLAKE3 (hex) of a generation configuration, whatever the order of its keys."""
    return blake3(orjson.dumps(dict(settings), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _chosen(items: Sequence[str] | None) -> str | None:
    return None if items is None else orjson.dumps(list(items)).decode()


def _checked(digest: str, of: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"the digest of the {of} is none: {digest[:80]!r}")
    return digest


class Results:
    """One thread's reader and writer of the results."""

    def __init__(self, home: Home, db: sqlite3.Connection | None = None) -> None:
        self.home = home
        self._own = db is None
        self.db = open_metrics(home) if db is None else db

    def close(self) -> None:
        if self._own:
            self.db.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing ----------------------------------------------------------------------------------

    def begin(
        self,
        model: str,
        set_digest: str,
        set_name: str,
        items: Sequence[SetItem],
        settings: Mapping[str, Any],
    ) -> int:
        """The id of the evaluation of `model` on the set with these settings, begun or found; the
        set's items are kept with it. Raises ValueError for what is no digest, OSError."""
        config = config_digest(settings)
        key = (_checked(model, "model"), _checked(set_digest, "set"), config)
        with transaction(self.home, self.db):
            self.db.execute(
                "INSERT INTO evaluations(model, set_digest, config, set_name, settings, created)"
                " VALUES(?,?,?,?,?,?) ON CONFLICT(model, set_digest, config) DO NOTHING",
                (*key, set_name, orjson.dumps(dict(settings)).decode(), now()),
            )
            self.db.executemany(
                "INSERT OR IGNORE INTO evaluation_items VALUES(?,?,?,?,?,?,?,?,?)",
                (
                    (
                        *(set_digest, one.id, one.position, one.skill, one.level, one.tier),
                        orjson.dumps([dict(turn) for turn in one.prompt]).decode(),
                        one.expected,
                        orjson.dumps(dict(one.metadata)).decode(),
                    )
                    for one in items
                ),
            )
        row = self.db.execute(
            "SELECT id FROM evaluations WHERE model = ? AND set_digest = ? AND config = ?", key
        ).fetchone()
        return int(row[0])

    def put(self, evaluation: int, results: Iterable[Result]) -> tuple[int, int]:
        """Keep results in one transaction: (written, already there). An item that has an answer
        keeps it, whatever comes; one with an error takes what comes. Raises OSError."""
        written = kept = 0
        with transaction(self.home, self.db):
            for one in results:
                row = self.db.execute(
                    "INSERT INTO answers(evaluation, item, complete, finish, tokens, ms, batch,"
                    " backend, host, error_kind, error, answer, time)"
                    " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)"
                    " ON CONFLICT(evaluation, item) DO UPDATE SET complete = excluded.complete,"
                    " finish = excluded.finish, tokens = excluded.tokens, ms = excluded.ms,"
                    " batch = excluded.batch, backend = excluded.backend, host = excluded.host,"
                    " time = excluded.time,"
                    " error_kind = excluded.error_kind, error = excluded.error,"
                    " answer = excluded.answer, attempts = attempts + 1"
                    " WHERE NOT complete RETURNING id",
                    (
                        *(evaluation, one.item, one.complete, one.finish, one.tokens, one.ms),
                        *(one.batch, one.backend, one.host),
                        *(one.error_kind, one.error, one.answer, now()),
                    ),
                ).fetchone()
                if row is None:
                    kept += 1
                    continue
                written += 1
                self._score(int(row[0]), one.scores)
        return written, kept

    def add_scores(self, evaluation: int, scores: Mapping[str, Sequence[Scored]]) -> None:
        """Scores of answers that are there, by item: of another scorer, or of a new version."""
        with transaction(self.home, self.db):
            for item, held in scores.items():
                row = self.db.execute(
                    "SELECT id FROM answers WHERE evaluation = ? AND item = ? AND complete",
                    (evaluation, item),
                ).fetchone()
                if row is None:
                    raise ValueError(f"item {item!r} has no answer to score")
                self._score(int(row[0]), held)

    def _score(self, answer: int, scores: Sequence[Scored]) -> None:
        # A verdict stays; where the scorer itself failed, the next try counts.
        self.db.executemany(
            "INSERT INTO scores VALUES(?,?,?,?,?,?) ON CONFLICT(answer, scorer, version)"
            " DO UPDATE SET exact = excluded.exact, parts = excluded.parts, error = excluded.error"
            " WHERE scores.error != ''",
            [
                (
                    *(answer, one.scorer, one.version),
                    None if one.exact is None else int(one.exact),
                    orjson.dumps(dict(one.parts)).decode(),
                    one.error,
                )
                for one in scores
            ],
        )

    # -- reading ----------------------------------------------------------------------------------

    def evaluation(self, evaluation: int) -> Evaluation:
        """The evaluation of that id. Raises NotFound."""
        found = self.evaluations(evaluation=evaluation)
        if not found:
            raise NotFound(f"no evaluation {evaluation}")
        return found[0]

    def evaluations(
        self,
        *,
        model: str | None = None,
        set_name: str | None = None,
        evaluation: int | None = None,
    ) -> list[Evaluation]:
        """What was evaluated, oldest first; of one model, of sets of one name, of one id where
        given."""
        rows = self.db.execute(
            "SELECT e.*, (SELECT COUNT(*) FROM evaluation_items i"
            " WHERE i.set_digest = e.set_digest) AS items,"
            " (SELECT COUNT(*) FROM answers a WHERE a.evaluation = e.id AND a.complete)"
            " AS complete,"
            " (SELECT COUNT(*) FROM answers a WHERE a.evaluation = e.id AND NOT a.complete)"
            " AS failed FROM evaluations e WHERE (?1 IS NULL OR e.model = ?1)"
            " AND (?2 IS NULL OR e.set_name = ?2) AND (?3 IS NULL OR e.id = ?3) ORDER BY e.id",
            (model, set_name, evaluation),
        )
        return [
            Evaluation(**{**dict(row), "settings": orjson.loads(row["settings"])}) for row in rows
        ]

    def missing(self, evaluation: int) -> list[str]:
        """The items of the set that have no answer yet, in its order: what is (still) to be sent;
        those with an error are among them."""
        rows = self.db.execute(
            "SELECT i.item FROM evaluations e JOIN evaluation_items i USING(set_digest)"
            " LEFT JOIN answers a ON a.evaluation = e.id AND a.item = i.item"
            " WHERE e.id = ? AND NOT COALESCE(a.complete, 0) ORDER BY i.position",
            (evaluation,),
        )
        return [str(row[0]) for row in rows]

    def items(self, set_digest: str, items: Sequence[str] | None = None) -> list[SetItem]:
        """The rows of a set that was evaluated, in its order, also where its file is gone; those
        of `items` alone where given."""
        rows = self.db.execute(
            "SELECT * FROM evaluation_items WHERE set_digest = ?1"
            " AND (?2 IS NULL OR item IN (SELECT value FROM json_each(?2))) ORDER BY position",
            (set_digest, _chosen(items)),
        )
        return [
            SetItem(
                id=row["item"],
                position=row["position"],
                prompt=orjson.loads(row["prompt"]),
                expected=row["expected"],
                skill=row["skill"],
                level=row["level"],
                tier=row["tier"],
                metadata=orjson.loads(row["metadata"]),
            )
            for row in rows
        ]

    def outcomes(self, evaluation: int) -> list[Outcome]:
        """Every item of the evaluation's set, in its order, with its scores and without texts."""
        scores = self._scores(evaluation)
        rows = self.db.execute(
            "SELECT i.item, i.skill, i.level, i.tier, a.id, a.complete, a.error_kind, a.tokens,"
            " a.ms, a.batch, a.backend, a.host"
            " FROM evaluations e JOIN evaluation_items i USING(set_digest)"
            " LEFT JOIN answers a ON a.evaluation = e.id AND a.item = i.item"
            " WHERE e.id = ? ORDER BY i.position",
            (evaluation,),
        )
        return [
            Outcome(
                *(row[0], row[1], row[2], row[3], bool(row[5])),
                "missing" if row[4] is None else row[6],
                *(row[7], row[8], row[9], row[10] or "", row[11] or ""),
                tuple(scores.get(row[4], ())),
            )
            for row in map(tuple, rows)
        ]

    def _scores(self, evaluation: int, chosen: str | None = None) -> dict[int, list[Scored]]:
        found: dict[int, list[Scored]] = {}
        # Thousands of scores have the same parts: each text is read once.
        known: dict[str, Json] = {}
        rows = self.db.execute(
            "SELECT s.answer, s.scorer, s.version, s.exact, s.parts, s.error FROM answers a"
            " JOIN scores s ON s.answer = a.id WHERE a.evaluation = ?1"
            " AND (?2 IS NULL OR a.item IN (SELECT value FROM json_each(?2))) ORDER BY s.answer",
            (evaluation, chosen),
        )
        for answer, scorer, version, exact, text, error in map(tuple, rows):
            parts = known.get(text)
            if parts is None:
                parts = known[text] = orjson.loads(text)
            verdict = None if exact is None else bool(exact)
            found.setdefault(answer, []).append(Scored(scorer, version, verdict, parts, error))
        return found

    def results(self, evaluation: int, items: Sequence[str] | None = None) -> list[Result]:
        """Answers and errors in full, with their scores; of `items` alone where given."""
        chosen = _chosen(items)
        scores = self._scores(evaluation, chosen)
        rows = self.db.execute(
            "SELECT * FROM answers WHERE evaluation = ?1"
            " AND (?2 IS NULL OR item IN (SELECT value FROM json_each(?2))) ORDER BY id",
            (evaluation, chosen),
        )
        names = ("item", "answer", "finish", "tokens", "ms", "batch", "backend", "host")
        more = ("error_kind", "error", "attempts")
        return [
            Result(
                **{name: row[name] for name in (*names, *more)},
                scores=tuple(scores.get(row["id"], ())),
            )
            for row in rows
        ]
