"""doctor: is everything there that training needs, and if not, what to do.

Looks and changes nothing. torch is asked about the GPU in a child process: this one stays light.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from queue_store import config as configuration
from queue_store.errors import TrainctlError
from queue_store.home import Home
from trainctl.context import Context
from trainctl.output import size, table

CHILD_SECONDS = 120
ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "cuda": cuda,
    "built_for": torch.version.cuda or "",
    "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count() * cuda)],
    "bf16": bool(cuda and torch.cuda.is_bf16_supported()),
}))
"""
OPTIONAL = {
    "liger-kernel": "faster training on a GPU: pip install 'trainctl[gpu]'",
    "flash-attn": 'only for model.attention = "flash_attention_2"',
}


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` says what to do; "" where all is well."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def doctor(context: Context, arguments: argparse.Namespace) -> int:
    """Run every check; exit 1 if anything is wrong."""
    checks = list(_checks(context))
    wrong = [check for check in checks if not check.ok]
    context.show(
        {"ok": not wrong, "checks": [asdict(check) for check in checks]},
        lambda: (
            table(
                ("", "check", "found", "what to do"),
                [(_sign(check), check.name, check.found, check.advice) for check in checks],
            )
            + (f"\n{len(wrong)} of {len(checks)} need attention" if wrong else "\nall is well")
        ),
    )
    return 1 if wrong else 0


def _sign(check: Check) -> str:
    return "OK" if check.ok else "!!"


def _checks(context: Context) -> Iterator[Check]:
    yield _python()
    yield from _packages()
    yield from _gpus()
    yield _default_config()
    try:
        home = context.home
    except TrainctlError as error:
        yield Check("home", True, error.what, error.mend)
        return
    yield Check("home", True, str(home.root))
    for check in (_own_config, _permissions, _disk):
        yield check(home)
    if home.state_db.exists():
        yield from (_database(home.state_db), _database(home.metrics_db))
        yield from _store(home)
    yield _engine(home)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, version, "" if ok else "Python 3.11 or newer is needed")


def _required() -> list[tuple[str, str]]:
    """The distribution's own requirements as (name, version range), extras left out."""
    try:
        lines = importlib.metadata.requires("trainctl") or []
    except importlib.metadata.PackageNotFoundError:
        import tomllib

        project = Path(__file__).parents[2] / "pyproject.toml"
        lines = tomllib.loads(project.read_text())["project"]["dependencies"]
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        if "extra" in marker:
            continue
        end = next((i for i, c in enumerate(requirement) if c in "<>=!~ ["), len(requirement))
        found.append((requirement[:end], requirement[end:].strip()))
    return found


def _packages() -> Iterator[Check]:
    for name, wanted in _required():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, False, "not installed", f"pip install '{name}{wanted}'")
            continue
        fits = _fits(found, wanted)
        advice = "" if fits else f"trainctl wants {wanted}: pip install '{name}{wanted}'"
        yield Check(name, fits, found, advice)
    for name, why in OPTIONAL.items():
        try:
            yield Check(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, True, "not installed (optional)", why)


def _fits(found: str, wanted: str) -> bool:
    """Whether a version lies in a range; packaging is there with transformers."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(found, prereleases=True)


def _gpus() -> Iterator[Check]:
    yield _driver()
    try:
        child = subprocess.run(
            [sys.executable, "-c", ASK_TORCH],
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Check(
            "torch", False, f"no answer in {CHILD_SECONDS} s", "is the GPU hung? see nvidia-smi"
        )
        return
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        yield Check("torch", False, f"cannot be imported: {last}", "pip install --force torch")
        return
    told = json.loads(child.stdout.strip().splitlines()[-1])
    if told["cuda"]:
        bf16 = "bf16" if told["bf16"] else "no bf16: training in fp32"
        yield Check("torch's gpus", True, f"{', '.join(told['gpus'])} ({bf16})")
        return
    built = f"built for CUDA {told['built_for']}" if told["built_for"] else "built for the CPU"
    yield Check("torch's gpus", True, f"CPU only ({built})")


def _driver() -> Check:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return Check("nvidia driver", True, "CPU only (no driver)")
    except pynvml.NVMLError as error:
        return Check("nvidia driver", False, f"NVML: {error}", "see nvidia-smi and the driver")
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
        number = pynvml.nvmlDeviceGetCount()
        return Check("nvidia driver", True, f"{version}, {number} GPU{'s' * (number != 1)}")
    except pynvml.NVMLError as error:
        return Check("nvidia driver", False, f"NVML: {error}", "see nvidia-smi and the driver")
    finally:
        pynvml.nvmlShutdown()


def _default_config() -> Check:
    try:
        configuration.default()
    except TrainctlError as error:
        return Check("default settings", False, str(error), "install trainctl again")
    return Check("default settings", True, str(configuration.default_path()))


def _own_config(home: Home) -> Check:
    try:
        configuration.load(home.config)
    except TrainctlError as error:
        return Check("settings", False, str(error), f"edit {home.config}")
    return Check("settings", True, str(home.config))


def _permissions(home: Home) -> Check:
    """Nobody else may write the home, nor read the store; the socket is the user's alone."""
    wrong = []
    for path, forbidden in (
        (home.root, 0o022),
        (home.store, 0o077),
        (home.state_db, 0o077),
        (home.metrics_db, 0o077),
        (home.socket, 0o077),
    ):
        try:
            info = path.lstat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(info.st_mode)
        if mode & forbidden:
            wrong.append(f"chmod {mode & ~forbidden:o} {path}")
        if info.st_uid != os.getuid():
            wrong.append(f"chown {os.getuid()} {path}")
    if not os.access(home.root, os.W_OK | os.X_OK):
        wrong.append(f"{home.root} cannot be written")
    return Check(
        "permissions", not wrong, "too open" if wrong else "the user's alone", "; ".join(wrong)
    )


def _disk(home: Home) -> Check:
    free = shutil.disk_usage(home.root).free
    one = _checkpoint_size(home)
    if one is None:
        return Check("disk", free > 2_000_000_000, f"{size(free)} free", _room_advice(free))
    room = free // one if one else 0
    found = f"{size(free)} free, room for {room} checkpoints of {size(one)}"
    return Check(
        "disk", room >= 3, found, "" if room >= 3 else "free some disk: training will pause"
    )


def _room_advice(free: int) -> str:
    return "" if free > 2_000_000_000 else "a checkpoint of a small model may not fit"


def _rows(path: Path, query: str) -> list[sqlite3.Row]:
    """Rows by a connection that cannot write."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        db.row_factory = sqlite3.Row
        return db.execute(query).fetchall()
    finally:
        db.close()


def _checkpoint_size(home: Home) -> int | None:
    """Bytes of the newest checkpoint that has files of its own, None where there is none."""
    query = "SELECT size_bytes FROM checkpoints WHERE size_bytes > 0 ORDER BY id DESC LIMIT 1"
    try:
        rows = _rows(home.state_db, query) if home.state_db.exists() else []
    except sqlite3.DatabaseError:
        return None
    return int(rows[0][0]) if rows else None


def _database(path: Path) -> Check:
    try:
        told = [str(row[0]) for row in _rows(path, "PRAGMA integrity_check(5)")]
    except sqlite3.DatabaseError as error:
        told = [str(error)]
    ok = told == ["ok"]
    return Check(
        path.name,
        ok,
        "sound" if ok else "; ".join(told),
        "" if ok else f"keep a copy of {path} and do not train",
    )


def _store(home: Home) -> Iterator[Check]:
    """Items have their files; the head's checkpoint is there, its files as long as recorded."""
    try:
        rows = _rows(home.state_db, "SELECT id, file, size FROM items")
        head = _rows(
            home.state_db,
            "SELECT c.* FROM head JOIN checkpoints c ON c.id = head.checkpoint",
        )
    except sqlite3.DatabaseError:
        return  # _database has told
    missing = [row["id"] for row in rows if not _has(home, row["file"], row["size"])]
    names = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
    yield Check(
        "item files",
        not missing,
        f"{len(rows)} items" if not missing else f"missing or changed: items {names}",
        "" if not missing else "bring the files back from a backup",
    )
    if not head:
        yield Check("head", True, "none yet: training starts at the base model")
        return
    yield _head(home, head[0])


def _has(home: Home, file: str, length: int) -> bool:
    try:
        return (home.items / file).stat().st_size == length
    except OSError:
        return False


def _head(home: Home, row: sqlite3.Row) -> Check:
    name = str(row["name"])
    if row["kind"] == "base":
        return Check("head", True, f"{name} (the base model)")
    from snapshots.manifest import check

    try:
        wrong = [problem.text for problem in check(home.checkpoints / name, deep=False)]
    except (TrainctlError, OSError) as error:
        wrong = [str(error)]
    return Check(
        "head",
        not wrong,
        name if not wrong else f"{name}: {'; '.join(wrong[:3])}",
        "" if not wrong else "trainctl verify, then trainctl rollback to a verified version",
    )


def _engine(home: Home) -> Check:
    from queue_store.lock import holder

    who = holder(home)
    if who is None:
        return Check("engine", True, "none runs")
    return Check("engine", True, f"process {who['pid']} ({who['mode']})")
