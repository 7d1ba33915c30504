"""Where the logs are, and the engine's log: rotated every day, kept for 30.

The engine's log is written by the one process that holds the home's lock; commands write
only their own defects, to another file. Never prints to a terminal.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from pathlib import Path

from queue_store.home import Home

KEEP_DAYS = 30
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def defect_logs(home: Home | None) -> list[Path]:
    """Places for a command's traceback, the best first: the home's log, else XDG's state folder."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    fallback = Path(base) / "trainctl" / "trainctl.log"
    if home is None or not home.store.is_dir():
        return [fallback]
    return [home.logs / "trainctl.log", fallback]


class _DailyLog(logging.handlers.TimedRotatingFileHandler):
    """Rotates at midnight and takes along file descriptors 1 and 2 where they are the log too:
    otherwise what libraries print would go on into yesterday's file."""

    def doRollover(self) -> None:
        before = Path(self.baseFilename).stat()
        super().doRollover()
        if self.stream is not None:
            for fd in (1, 2):
                if os.path.samestat(os.fstat(fd), before):
                    os.dup2(self.stream.fileno(), fd)


def log_to_file(home: Home) -> None:
    """Send every logger's records from INFO on to store/logs/engine.log, replaced at midnight."""
    home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = _DailyLog(home.log, when="midnight", backupCount=KEEP_DAYS, encoding="utf-8")
    home.log.chmod(0o600)
    handler.setFormatter(logging.Formatter(FORMAT))
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
