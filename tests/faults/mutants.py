"""Faults planted in a copy of the source: the suite must turn red for each of them.

    python -m tests.faults.mutants [NAME…]

A mutant is exact text that is replaced (a test fails where the text is no longer there), and the
parts of the suite that catch it. Prints one JSON object a mutant: {mutant, caught_by, how}.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import cuts, strace

ROOT = Path(__file__).resolve().parents[2]
Change = tuple[str, str, str]


@dataclass(frozen=True)
class Mutant:
    """`changes`: file, old text, new text. `caught_by`: commands of the suite, each of which must
    find something wrong (where it can run at all)."""

    name: str
    changes: tuple[Change, ...]
    caught_by: tuple[str, ...]


KILLS, ORDER, CUTS = "kills", "syscalls --every 100000", "cuts"

MUTANTS = (
    Mutant(
        "no fsync of files",
        (
            (
                "queue_store/durable.py",
                "os.open(path, os.O_RDONLY | os.O_CLOEXEC)\n    try:\n        os.fsync(fd)\n",
                "os.open(path, os.O_RDONLY | os.O_CLOEXEC)\n    try:\n        pass\n",
            ),
        ),
        (f"{ORDER} checkpoint", f"{CUTS} --every 9 checkpoint"),
    ),
    Mutant(
        "no fsync of folders",
        (
            (
                "queue_store/durable.py",
                "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)\n    try:\n        os.fsync(fd)\n",
                "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)\n    try:\n        pass\n",
            ),
        ),
        (f"{ORDER} checkpoint add",),
    ),
    Mutant(
        "row before file",
        (
            (
                "queue_store/intake.py",
                '            durable.take_file(staging / "data", place)\n'
                '            durable.crash_point("intake.copied")\n',
                "",
            ),
            (
                "queue_store/intake.py",
                '        durable.crash_point("intake.across")\n',
                '        durable.crash_point("intake.copied")\n'
                '        durable.take_file(staging / "data", place)\n'
                '        durable.crash_point("intake.across")\n',
            ),
            (
                "queue_store/intake.py",
                "                place.stat().st_size,\n",
                "                place.stat().st_size if place.exists() else 0,\n",
            ),
        ),
        (f"{KILLS} add",),
    ),
    Mutant(
        "delete before row",
        (
            (
                "snapshots/upkeep.py",
                'records.mark_deleted(state, checkpoint.id, f"keep {keep}, best {keep_best}")\n',
                "durable.discard(folder_of(state.home, checkpoint), state.home)\n",
            ),
            (
                "snapshots/upkeep.py",
                "                durable.discard(folder_of(state.home, checkpoint), state.home)\n"
                "                removed",
                "                records.mark_deleted(state, checkpoint.id, 'by rule')\n"
                "                removed",
            ),
        ),
        (f"{KILLS} prune",),
    ),
    Mutant(
        "the file of a removed item is not brought back",
        (
            (
                "queue_store/intake.py",
                "        if not place.exists() and away.exists():\n",
                "        if not place:\n",
            ),
        ),
        (f"{KILLS} orders",),
    ),
    Mutant(
        "synchronous NORMAL",
        (
            (
                "queue_store/database.py",
                "PRAGMA synchronous = FULL",
                "PRAGMA synchronous = NORMAL",
            ),
        ),
        (f"{ORDER} add", f"{CUTS} --every 3 add"),
    ),
    Mutant(
        "manifest before data",
        (
            (
                "snapshots/checkpoints.py",
                "syncs = [pool.submit(durable.fsync_file, path) for path in paths]",
                "syncs = [pool.submit(path.stat) for path in paths]",
            ),
        ),
        (f"{ORDER} checkpoint", f"{CUTS} --every 9 checkpoint"),
    ),
    Mutant(
        "the cursor is not in the checkpoint's transaction",
        (
            (
                "queue_store/records.py",
                "        for item_id, (at, at_step) in cursors.items():\n            db.execute(",
                "        for item_id, (at, at_step) in ():\n            db.execute(",
            ),
            (
                "queue_store/records.py",
                '    durable.crash_point("checkpoint.committed")\n',
                '    durable.crash_point("checkpoint.committed")\n'
                "    for item_id, (at, at_step) in cursors.items():\n"
                "        state.db.execute(\n"
                '            "UPDATE items SET cursor = ?, step = ? WHERE id = ?",\n'
                "            (at, at_step, item_id),\n"
                "        )\n",
            ),
        ),
        (f"{KILLS} checkpoint",),
    ),
    Mutant(
        "the head moves before the folder has its name",
        (
            (
                "snapshots/checkpoints.py",
                "        durable.publish(self.folder, self._target,"
                " synced=[*sizes, LEDGER, manifest.MANIFEST])\n",
                "",
            ),
            (
                "snapshots/checkpoints.py",
                "        self._done = True\n        return found\n",
                "        durable.publish(self.folder, self._target)\n"
                "        self._done = True\n        return found\n",
            ),
        ),
        (f"{KILLS} checkpoint",),
    ),
    Mutant(
        "recovery is not idempotent",
        (
            (
                "queue_store/intake.py",
                "if path.name not in known and not path.name.endswith(SIDECAR) and path.is_file()",
                "if not path.name.endswith(SIDECAR) and path.is_file()",
            ),
        ),
        (f"{KILLS} add",),
    ),
    Mutant(
        "metrics are not synced before the checkpoint",
        (
            (
                "queue_store/metrics.py",
                "        if not self._steps:\n            return\n        # Kept",
                "        if len(self._steps) < 30:\n            return\n        # Kept",
            ),
        ),
        (f"{KILLS} checkpoint",),
    ),
    Mutant(
        "a version is called verified without being read",
        (
            (
                "snapshots/versions.py",
                "outcome = read_back(folder, version.manifest_digest, stop=stop, progress=told)",
                "outcome = Outcome([], {}, '')",
            ),
        ),
        (f"{KILLS} verify-damaged",),
    ),
    Mutant(
        "verify skipped before delete",
        (
            (
                "snapshots/removal.py",
                "    for survivor in relied.values():\n",
                "    for survivor in ():\n",
            ),
        ),
        (f"{KILLS} delete-unproven",),
    ),
    Mutant(
        "three crashes fail an item although it steps on",
        (
            (
                "queue_store/transitions.py",
                "crashes = item.crashes + 1 if highest <= item.crashed_at else 1",
                "crashes = item.crashes + 1",
            ),
        ),
        ("restarts",),
    ),
    Mutant(
        "a restart burns an attempt",
        (
            (
                "queue_store/transitions.py",
                "end_attempt(state, item_id, cause, error)\n        if crashes >= MAX_CRASHES:",
                'end_attempt(state, item_id, "killed", error)\n        if crashes >= MAX_CRASHES:',
            ),
        ),
        ("restarts",),
    ),
)


def planted(mutant: Mutant, folder: Path) -> Path:
    """A copy of the source with the fault in it. Raises AssertionError where its text is gone."""
    copy = folder / "tree"
    for name in ("queue_store", "snapshots", "engine", "evaluation", "tests", "config.toml"):
        source = ROOT / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__", "__snapshots__")
            shutil.copytree(source, copy / name, ignore=skip)
        else:
            shutil.copyfile(source, copy / name)
    for name, old, new in mutant.changes:
        path = copy / name
        text = path.read_text()
        assert text.count(old) == 1, f"{mutant.name}: {name} has not once {old!r}"
        path.write_text(text.replace(old, new))
    return copy


def finds(tree: Path, command: str) -> list[str]:
    """What a part of the suite finds wrong with a tree."""
    module, *words = command.split()
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", *words],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [w for one in told for w in one.get("wrong", ())]
    if done.returncode and not wrong:
        last = done.stderr.strip().splitlines()[-1:]
        # Only a judgement counts: a mutant that does not even start proves nothing.
        assert last and "undisturbed" in last[0], f"{command}: {done.stderr}"
        wrong = last
    return wrong


def possible(command: str) -> bool:
    """Whether this machine can run a part of the suite."""
    if command.startswith("syscalls"):
        return not strace.missing()
    return not command.startswith("cuts") or not cuts.missing()


def judged(mutant: Mutant) -> list[dict[str, Any]]:
    """For each part of the suite that can run here, what it found in the mutant."""
    with tempfile.TemporaryDirectory(prefix="trainctl-mutant-") as folder:
        tree = planted(mutant, Path(folder))
        return [
            {"mutant": mutant.name, "caught_by": command, "how": finds(tree, command)[:3]}
            for command in mutant.caught_by
            if possible(command)
        ]


def main() -> int:
    named = sys.argv[1:]
    missed = 0
    for mutant in MUTANTS:
        if not named or mutant.name in named:
            for told in judged(mutant):
                missed += not told["how"]
                print(json.dumps(told), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
