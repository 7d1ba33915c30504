"""The sidecar `FILE.meta.json` that says which generator made a file, with what, and how it was
checked. Every value but the two times is a function of the arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from evaluation.scorers import score, scorer_for
from queue_store.durable import write_atomic
from queue_store.lineage import SIDECAR as SUFFIX


def jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """One JSON object a line, UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def sidecar(
    rows: Sequence[Mapping[str, Any]],
    data: bytes,
    *,
    generator_id: str,
    generator_version: str,
    params: Mapping[str, Any],
) -> dict[str, Any]:
    """The lineage of a file with these rows, whose bytes are `data`.

    The check is that every row's own answer passes its skill's scorer.
    """
    errors = 0
    validators: dict[str, str] = {}
    for row in rows:
        metadata, answer = row["metadata"], row["messages"][-1]["content"]
        scorer = scorer_for(metadata["skill"], answer)
        validators[f"scorer_{scorer.name}"] = scorer.version
        errors += not score(metadata["skill"], answer, answer, metadata).exact
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "generator_id": generator_id,
        "generator_version": generator_version,
        "generated_at": now,
        "example_count": len(rows),
        "params": dict(params),
        "validated_at": now,
        "validator_versions": validators,
        "validation_passed": errors == 0,
        "validation_errors": errors,
        "validation_warnings": 0,
        "source": "trainctl",
        "extra": {"blake3": blake3(data).hexdigest(), "bytes": len(data)},
    }


def write_rows(
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    generator_id: str,
    generator_version: str,
    params: Mapping[str, Any],
) -> None:
    """Write `out` and its sidecar, the sidecar first: who sees the file finds its lineage."""
    data = jsonl(rows)
    lineage = sidecar(
        rows, data, generator_id=generator_id, generator_version=generator_version, params=params
    )
    text = json.dumps(lineage, ensure_ascii=False, indent=2) + "\n"
    write_atomic(out.with_name(out.name + SUFFIX), text.encode(), mode=0o644)
    write_atomic(out, data, mode=0o644)
