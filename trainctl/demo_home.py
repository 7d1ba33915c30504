"""The demo's home: a config.toml with the recipe, held-out sets, and an inbox of generated files.

The first file teaches SYLLO puzzles within minutes; the others bring a second skill and harder
levels in three priorities, each with rows of what came before, so that little is forgotten.
Imports no torch; an existing folder that is not a demo's is never written to.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evaluation.draw import Draw
from evaluation.lineage import SUFFIX, write_rows
from evaluation.make import make_file
from evaluation.skills import generate, get_skill
from queue_store.durable import remove_file, write_atomic
from queue_store.errors import Refused
from queue_store.home import PRIORITY_FOLDERS, Home

GENERATOR_ID = "trainctl_demo"
GENERATOR_VERSION = "1.0.0"

MARK = "# A demo of trainctl"

CONFIG = f"""{MARK}: a model of 0.8 million parameters learns on a CPU, in minutes.
# Only the keys that differ from the defaults stand here; `trainctl config show --origin` has all.

[model]
name = "tiny-demo"
base = "builtin:tiny"         # Qwen3 architecture, made from training.seed

[training]
max_length = 576              # three SYLLO puzzles of level 1, or sixteen sums, in a sequence
batch_size = 5
effective_batch = 5           # 15 puzzles a step
optimizer = "muon"            # on the hidden matrices; AdamW on embeddings and norms
learning_rate = 4e-3
weight_decay = 0.1
warmup_steps = 20
schedule = "cosine"           # falls to a tenth and stays there
schedule_steps = 300
threads = 2                   # of so small a model, more threads are not quicker
save_steps = 100
sample_steps = 25
monitoring_budget = 0.25      # so small a model answers quickly: look often

[training.muon]
learning_rate = 4e-3
weight_decay = 0.1
adjust = "match_rms_adamw"

[snapshots]
save_seconds = 20

[samples]
count = 88
item_count = 0
schedule = []                 # every training.sample_steps alone: the first steps come at once
max_tokens = 128

[evaluation]
sets = ["syllo_level1", "binary_level2"]
baseline = false              # a model made of random numbers has no right answer
"""

HELD_OUT = (("syllo", 1, 64), ("syllo", 2, 64), ("binary", 2, 24), ("binary", 3, 64))
"""Skill, level and count of the held-out sets."""


@dataclass(frozen=True)
class DemoFile:
    """A file of the inbox: rows of `skill` and `level`, and some of other levels to keep them."""

    priority: str
    skill: str
    level: int
    parts: tuple[tuple[str, int, int], ...]
    """(skill, level, count) of what is mixed; a count above the number of different problems
    repeats them."""


FILES = (
    DemoFile("high", "syllo", 1, (("syllo", 1, 5250),)),
    DemoFile("normal", "binary", 2, (("binary", 1, 2000), ("binary", 2, 8000), ("syllo", 1, 900))),
    DemoFile("normal", "syllo", 2, (("syllo", 2, 2000), ("syllo", 1, 400), ("binary", 2, 2000))),
    DemoFile("normal", "binary", 3, (("binary", 3, 10000), ("binary", 2, 2000), ("syllo", 2, 600))),
    DemoFile("low", "syllo", 3, (("syllo", 3, 1500), ("syllo", 1, 300), ("binary", 3, 2000))),
    DemoFile("low", "binary", 4, (("binary", 4, 10000), ("binary", 3, 2000), ("syllo", 1, 600))),
)


def _part(skill: str, level: int, count: int, seed: int) -> list[dict[str, Any]]:
    """`count` rows, in passes over other seeds where there are not so many different ones."""
    most = get_skill(skill).possible(level, False)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        rows += generate(skill, level, min(most, count - len(rows)), seed + len(rows))
    return rows


def _rows(file: DemoFile, seed: int) -> list[dict[str, Any]]:
    rows = [row for part in file.parts for row in _part(*part, seed)]
    return Draw("demo", seed, file.skill, file.level).shuffled(rows)


def _check(home: Home) -> bool:
    """Whether the demo stands already. Raises Refused where making it would touch other things."""
    if home.exists():
        if home.config.read_text(encoding="utf-8", errors="replace").startswith(MARK):
            return True
        raise Refused("is a home already, not a demo's", where=str(home.root), mend="open it")
    if not home.root.exists():
        return False
    if not home.root.is_dir():
        raise Refused("is a file", where=str(home.root), mend="name a folder")
    # config.toml comes last: without it, and with a home's folders only, a demo was not finished.
    own = {home.inbox.name, home.evaluation.name, home.models.name, home.store.name}
    if home.state_db.exists() or {path.name for path in home.root.iterdir()} - own:
        raise Refused("not empty and no demo", where=str(home.root), mend="name another folder")
    return False


def _write_inbox(home: Home) -> list[str]:
    now = time.time()
    stamp = f"{datetime.fromtimestamp(now):%Y%m%d_%H%M%S}"
    lines = []
    for number, file in enumerate(FILES):
        folder = home.inbox / PRIORITY_FOLDERS[file.priority]
        if any(folder.glob(f"train_{file.skill}_level{file.level}_*.jsonl")):
            continue  # written by a start that was not finished
        rows = _rows(file, seed=number + 1)
        name = f"train_{file.skill}_level{file.level}_{len(rows)}_{stamp}.jsonl"
        path = folder / name
        write_rows(
            path,
            rows,
            generator_id=GENERATOR_ID,
            generator_version=GENERATOR_VERSION,
            params={"seed": number + 1, "parts": [list(part) for part in file.parts]},
        )
        # The inbox takes files of one priority by age.
        os.utime(path, (now, now - len(FILES) + number))
        lines.append(f"{file.priority:<8}{name}  {len(rows)} rows")
    return lines


def make_demo_home(folder: Path) -> list[str]:
    """Make the demo's home in `folder` (missing, empty, or one that was not finished).

    Returns lines that say what was made; a demo that stands there is left as it is. Raises
    Refused where the folder holds anything else. Takes a few seconds.
    """
    home = Home(folder.expanduser().absolute())
    if _check(home):
        return [f"the demo stands in {home.root}; nothing was changed"]
    home.create()
    lines = [f"demo    {home.root}"]
    for skill, level, count in HELD_OUT:
        path = home.evaluation / f"{skill}_level{level}.jsonl"
        if not path.exists():
            remove_file(path.with_name(path.name + SUFFIX))
            make_file(skill, level, count, 1, True, path)
        lines.append(f"held out evaluation/{path.name}  {count} rows")
    lines += _write_inbox(home)
    write_atomic(home.config, CONFIG.encode())
    lines.append(f"recipe  {home.config}")
    return lines
