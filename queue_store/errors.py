"""The one family of errors that a person gets to see.

Each carries what happened, where, and how to mend it; a face prints `str(error)` as one line
and exits with `exit_code`. Anything else that reaches a face is a defect and goes to the log.
"""

from __future__ import annotations


class TrainctlError(Exception):
    """`what` happened, `where` (file, line, key; may be ""), and how to `mend` it (may be "")."""

    exit_code = 1
    code = "failed"

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.mend = mend
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line} ({self.mend})" if self.mend else line


class UsageError(TrainctlError):
    """The words of a command are wrong."""

    exit_code = 2
    code = "usage"


class ConfigError(TrainctlError):
    """config.toml is wrong; `where` names the file and the key. `key` is the dotted one whose line
    in the file is to be named, where it is known."""

    exit_code = 2
    code = "config"

    def __init__(self, what: str, *, where: str = "", mend: str = "", key: str = "") -> None:
        super().__init__(what, where=where, mend=mend)
        self.key = key


class Refused(TrainctlError):
    """Understood and not done: it would lose something, or makes no sense now."""

    code = "refused"


class NotFound(TrainctlError):
    """No item, version, checkpoint or file of that name."""

    code = "not_found"


class NoEngine(TrainctlError):
    """No engine is running for this home and the command needs one."""

    exit_code = 3
    code = "no_engine"


class VerificationFailed(TrainctlError):
    """Bytes on disk are not those that were recorded."""

    exit_code = 4
    code = "verification"


class DataError(TrainctlError):
    """A file's content cannot train; `where` is file and line."""

    code = "data"


class ProcessEnd(TrainctlError):
    """The engine's process cannot go on, though its store is sound: a supervisor starts another.

    `exit_code` tells it which end this was: 74 an I/O error, 75 a broken CUDA context, 70 a defect.
    """

    code = "process_end"

    def __init__(
        self, what: str, *, cause: str = "unknown", where: str = "", mend: str = ""
    ) -> None:
        super().__init__(what, where=where, mend=mend)
        self.cause = cause
        self.exit_code = {"I/O error": EXIT_IO, "CUDA error": EXIT_CUDA}.get(cause, EXIT_DEFECT)


EXIT_DEFECT, EXIT_IO, EXIT_CUDA = 70, 74, 75
"""Exit codes of a training process that wants to be started again."""
