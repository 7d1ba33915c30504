"""What every verb of the command line shares: --home and --json, and errors in one line."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from queue_store.errors import UsageError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are raised as UsageError instead of printed over several lines."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, mend=f"{self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own message lists every verb; the nearest one helps more.
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            name = str(action.metavar or action.dest).lower()
            near = difflib.get_close_matches(str(value), known, 1)
            if near:
                mend = f"did you mean {near[0]}?"
            else:
                mend = f"{self.prog} --help" if name == "verb" else f"one of {', '.join(known)}"
            raise UsageError(f"unknown {name} {value!r}", mend=mend)


def shared(default: Any) -> Parser:
    """--home and --json; below a verb they must not overwrite what stood before it."""
    both = Parser(add_help=False)
    both.add_argument(
        "--home", metavar="DIR", default=default, help="the home (else $TRAINCTL_HOME, else upward)"
    )
    both.add_argument(
        "--json", action="store_true", default=default or False, help="print JSON for scripts"
    )
    return both


class Verbs:
    """Adds verbs to a parser, each with the shared options and its function's name."""

    def __init__(self, parser: argparse.ArgumentParser, dest: str) -> None:
        self.below = parser.add_subparsers(
            dest=dest, metavar="VERB", prog=parser.prog, parser_class=Parser
        )

    def add(self, name: str, run: str | None, summary: str) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = self.below.add_parser(
            name,
            parents=[shared(argparse.SUPPRESS)],
            description=summary,
            help=summary,
            allow_abbrev=False,
        )
        verb.set_defaults(run=run)
        return verb
