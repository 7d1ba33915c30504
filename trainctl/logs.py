"""Where the logs are, and the engine's log: rotated every day, kept for 30, bounded in size.

The engine's log is written by the one process that holds the home's lock; commands write
only their own defects, to another file. Never prints to a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import time
from io import TextIOWrapper
from pathlib import Path

from queue_store import durable
from queue_store.home import Home
from queue_store.safe import safe

KEEP_DAYS = 30
DAY_BYTES = 64 << 20
"""A day's log that grows beyond it is replaced before midnight."""
TOTAL_BYTES = 512 << 20
"""All of store/logs together, but for what is being written."""
DEFECTS_BYTES, DEFECT_LOGS = 2 << 20, 3
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def defect_logs(home: Home | None) -> list[Path]:
    """Places for a command's traceback, the best first: the home's log, else XDG's state folder."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    fallback = Path(base) / "trainctl" / "trainctl.log"
    if home is None or not home.store.is_dir():
        return [fallback]
    return [home.logs / "trainctl.log", fallback]


def rotate_defects(path: Path) -> None:
    """Before a defect is written: a log that has grown large makes way. Raises OSError."""
    if path.exists() and path.stat().st_size > DEFECTS_BYTES:
        durable.rotate(path, DEFECT_LOGS)


def trim(home: Home) -> list[str]:
    """Remove logs that are old, then the oldest until all together are within TOTAL_BYTES; their
    names. Those that are being written stay."""
    live = {"engine.log", "supervisor.log", "trainctl.log"}
    found = []
    for path in home.logs.iterdir() if home.logs.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            info = path.stat()
            found.append((path.name in live, info.st_mtime, info.st_size, path))
    total, removed = sum(size for _, _, size, _ in found), []
    # By the clock of their last writing; one of the future counts as new.
    for written, modified, size, path in sorted(found, key=lambda one: one[1]):
        old = time.time() - modified > KEEP_DAYS * 86400
        if not written and (old or total > TOTAL_BYTES):
            durable.discard(path, home)
            total -= size
            removed.append(path.name)
    return removed


class _SafeFormatter(logging.Formatter):
    """Names of files and texts of models stand in messages, and people read logs in a terminal:
    control characters are replaced, as everywhere that text is shown."""

    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))


class _DailyLog(logging.handlers.TimedRotatingFileHandler):
    """Rotates at midnight and takes along file descriptors 1 and 2 where they are the log too:
    otherwise what libraries print would go on into yesterday's file."""

    home: Home

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        os.fchmod(stream.fileno(), 0o600)  # also the one that follows at midnight
        return stream

    def shouldRollover(self, record: logging.LogRecord) -> int:
        if super().shouldRollover(record):
            return 1
        # A defect that comes again with every step must not fill the disk within a day.
        return int(self.stream is not None and self.stream.tell() > DAY_BYTES)

    def rotation_filename(self, default_name: str) -> str:
        """A name that is free: a log of the same day stays."""
        name, n = default_name, 1
        while Path(name).exists():
            name, n = f"{default_name}.{n}", n + 1
        return name

    def doRollover(self) -> None:
        before = Path(self.baseFilename).stat()
        super().doRollover()
        with contextlib.suppress(OSError):
            trim(self.home)
        if self.stream is not None:
            for fd in (1, 2):
                if os.path.samestat(os.fstat(fd), before):
                    os.dup2(self.stream.fileno(), fd)


def log_to_file(home: Home) -> None:
    """Send every logger's records from INFO on to store/logs/engine.log, replaced at midnight."""
    _log_to(home, home.log)


def log_supervisor(home: Home) -> None:
    """The supervisor's own log: starts, ends with their causes, restarts."""
    _log_to(home, home.logs / "supervisor.log")


def _log_to(home: Home, path: Path) -> None:
    home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = _DailyLog(path, when="midnight", backupCount=KEEP_DAYS, encoding="utf-8")
    handler.home = home
    with contextlib.suppress(OSError):
        trim(home)
    handler.setFormatter(_SafeFormatter(FORMAT))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)


def last_error(home: Home, since: int = 0) -> str:
    """The last line of the engine's log that tells of an error, or its last line, or "".

    `since` is a byte offset: what was there before is not looked at.
    """
    try:
        with home.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since, size - 65536) if since <= size else 0)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    told = [line for line in lines if line.strip()]
    errors = [line for line in told if " ERROR " in line or line.startswith("trainctl: ")]
    return (errors or told or [""])[-1].strip()
