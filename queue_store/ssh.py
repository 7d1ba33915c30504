"""How this program uses ssh: options that never ask, and what its complaints mean.

Shared by the backup targets and the evaluation hosts. Must never ask a person for anything, nor
forward an agent or a display, nor accept a host key that nobody has seen.
"""

from __future__ import annotations

from queue_store.safe import safe_line

OPTIONS = (
    *("-T", "-x", "-a"),
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
    *("-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"),
)

HOST_KEY, NOT_LET_IN, FULL, NO_RSYNC = "host_key", "not_let_in", "full", "no_rsync"

_SIGNS = (
    ("Host key verification failed", HOST_KEY),
    ("IDENTIFICATION HAS CHANGED", HOST_KEY),
    ("Permission denied (", NOT_LET_IN),
    ("No space left", FULL),
    ("rsync: not found", NO_RSYNC),
    ("rsync: command not found", NO_RSYNC),
)


def meaning(complaint: str) -> str:
    """Which of the known troubles ssh or rsync complains of; "" for any other."""
    return next((kind for sign, kind in _SIGNS if sign in complaint), "")


def last_line(complaint: str) -> str:
    """The last line that says something, fit for a terminal."""
    lines = [line for line in complaint.splitlines() if line.strip()]
    return safe_line(lines[-1])[:300] if lines else "no reason was given"


def rsync_shell(words: list[str]) -> str:
    """The `-e` of rsync, which splits it at spaces and knows quotes; a word must have none."""
    return " ".join(f"'{word}'" if " " in word else word for word in words)
