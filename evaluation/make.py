"""Files of generated rows: `trainctl data make`. The bytes are the same for the same arguments."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from evaluation.lineage import SUFFIX, write_rows
from evaluation.skills import generate, generate_tier, get_skill
from queue_store.errors import NotFound, Refused, TrainctlError


def default_name(skill: str, level: int | str, count: int, held_out: bool = False) -> str:
    """`train_{skill}_level{N}_{count}_{YYYYMMDD_HHMMSS}.jsonl`; `held_out_…` for held-out rows,
    and the tier in the place of `level{N}`."""
    kind = "held_out" if held_out else "train"
    of = level if isinstance(level, str) else f"level{level}"
    return f"{kind}_{skill}_{of}_{count}_{datetime.now():%Y%m%d_%H%M%S}.jsonl"


def make_file(
    skill: str, level: int | str, count: int, seed: int, held_out: bool, out: Path
) -> Path:
    """Write `count` rows of a level, or of a tier (easy, medium, hard: rows of all its levels),
    and the lineage sidecar; returns the file's path.

    `out` is a file that does not exist yet, or a folder, where the file gets `default_name`.
    Raises UsageError (skill, level, tier, count), Refused (the file exists), NotFound (no folder).
    """
    found = get_skill(skill)
    target = out / default_name(skill, level, count, held_out) if out.is_dir() else out
    sidecar = target.with_name(target.name + SUFFIX)
    for path in (target, sidecar):
        if path.exists() or path.is_symlink():
            raise Refused("exists already", where=str(path), mend="give another name")
    if not target.parent.is_dir():
        raise NotFound("no such folder", where=str(target.parent), mend="make it first")
    made: dict[str, int | str] = {"tier" if isinstance(level, str) else "level": level}
    if isinstance(level, str):
        rows = generate_tier(skill, level, count, seed, held_out)
    else:
        rows = generate(skill, level, count, seed, held_out)
    params = {"skill": skill, **made, "count": count, "seed": seed, "held_out": held_out}
    try:
        write_rows(
            target,
            rows,
            generator_id=found.generator_id,
            generator_version=found.generator_version,
            params=params,
        )
    except OSError as error:
        raise TrainctlError(
            f"cannot be written: {error.strerror or error}", where=str(target)
        ) from None
    return target
