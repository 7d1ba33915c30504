"""The command `trainctl`: words in, exit code out.

Imports nothing heavy: each verb's module is loaded when the verb runs, so that `status` and
`--help` answer at once. No traceback reaches a person; it goes to the log, which is named.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from queue_store.errors import TrainctlError
from queue_store.safe import safe_line
from trainctl.context import Context
from trainctl.parser import parse

INTERRUPTED = 130
PIPE_CLOSED = 141  # as a shell reports a command that SIGPIPE ended: `trainctl history | head`


def main(argv: Sequence[str] | None = None) -> int:
    """Run the words (default: the process's) and return the exit code of the design."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign gets a question mark, not a UnicodeEncodeError.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    context = Context()
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        context.given_home = arguments.home
        context.json = arguments.json
        code = _command(arguments.run)(context, arguments)
        sys.stdout.flush()
        return code
    except TrainctlError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _silence(sys.stdout)
        return PIPE_CLOSED
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    except OSError as error:
        _log_defect(context)
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        log = _log_defect(context)
        place = f"the traceback is in {log}" if log else "no log could be written"
        return _say(f"this is a defect of trainctl: {type(error).__name__}: {error} ({place})", 1)
    finally:
        context.close()


def _command(name: str) -> Callable[[Context, object], int]:
    """The function `module:function` under trainctl, imported now."""
    module, _, function = name.partition(":")
    command: Callable[[Context, object], int] = getattr(
        importlib.import_module(f"trainctl.{module}"), function
    )
    return command


def _say(message: str, code: int) -> int:
    try:
        print(f"trainctl: {safe_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    return code


def _open_closed_streams() -> None:
    """Python has None for a stream that came closed (`trainctl status >&-`): it becomes /dev/null,
    so that nothing else is opened under its number and written to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = Path(os.devnull).open(mode)  # noqa: SIM115 (open as long as the process)
            setattr(sys, name, null)


def _silence(stream: TextIO) -> None:
    """Point a closed stream at /dev/null, so that Python's last flush does not complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _log_defect(context: Context) -> Path | None:
    """Append the current traceback to the log; where that is, or None if nothing can be written."""
    import traceback

    from trainctl.logs import defect_logs, rotate_defects

    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sys.argv!r}\n{traceback.format_exc()}\n"
    for path in defect_logs(context.found_home()):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            rotate_defects(path)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace") as log:
                log.write(text)
        except OSError:
            continue
        return path
    return None


if __name__ == "__main__":
    sys.exit(main())
