"""Errors of the session protocol, and how the whole TrainctlError family travels through it.

What is raised at the engine is raised again, as the same class with the same words, at the face.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from queue_store.errors import (
    ConfigError,
    DataError,
    NoEngine,
    NotFound,
    ProcessEnd,
    Refused,
    TrainctlError,
    UsageError,
    VerificationFailed,
)


class ErrorCode(StrEnum):
    """`code` of an error response. The first eight are those of the TrainctlError family."""

    FAILED = "failed"
    USAGE = "usage"
    CONFIG = "config"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    NO_ENGINE = "no_engine"
    VERIFICATION = "verification"
    DATA = "data"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNKNOWN_COMMAND = "unknown_command"
    PROTOCOL = "protocol"
    BUSY = "busy"
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    PROCESS_END = "process_end"


class Malformed(UsageError):
    """The line is no JSON object with an id and a command."""

    code = ErrorCode.MALFORMED


class TooLarge(UsageError):
    """The line is longer than MAX_REQUEST."""

    code = ErrorCode.TOO_LARGE


class UnknownCommand(UsageError):
    code = ErrorCode.UNKNOWN_COMMAND


class ProtocolMismatch(TrainctlError):
    """Face and engine speak different protocols; the message names both."""

    code = ErrorCode.PROTOCOL


class Busy(Refused):
    """More connections or requests at once than the engine serves."""

    code = ErrorCode.BUSY


class NoAnswer(TrainctlError):
    """The engine lives (the socket is open) and did not answer in time."""

    code = ErrorCode.TIMEOUT


class Internal(TrainctlError):
    """A defect; the traceback is in the engine's log."""

    code = ErrorCode.INTERNAL


_ERRORS: dict[str, type[TrainctlError]] = {
    str(kind.code): kind
    for kind in (
        *(TrainctlError, UsageError, ConfigError, Refused, NotFound, NoEngine),
        *(VerificationFailed, DataError, Malformed, TooLarge, UnknownCommand),
        *(ProtocolMismatch, Busy, NoAnswer, Internal, ProcessEnd),
    )
}


def error_object(error: TrainctlError) -> dict[str, Any]:
    """`error` of a response: code and one-line message, and its parts for a face to lay out."""
    return {
        "code": str(error.code),
        "message": " ".join(str(error).split()),
        "what": error.what,
        "where": error.where,
        "mend": error.mend,
    }


def error_from(answer: Mapping[str, Any]) -> TrainctlError:
    """The reverse of `error_object`; an unknown code becomes a plain TrainctlError."""
    kind = _ERRORS.get(str(answer.get("code")), TrainctlError)
    what = str(answer.get("what") or answer.get("message") or "refused without a reason")
    return kind(what, where=str(answer.get("where") or ""), mend=str(answer.get("mend") or ""))
