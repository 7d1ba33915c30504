"""`trainctl validate`: what is in a file, and what would train of it, at three levels.

quick reads the rows as intake does; standard makes tokens of every one as preparing would, with
the home's model, template and settings, and checks masks; deep adds the checkers of contents.
Trains nothing, changes nothing in a home, loads no torch.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.prepare.inspect import Source, inspect, token_rows
from engine.prepare.report import too_bad
from engine.prepare.suggest import suggestions
from engine.prepare.template import ModelText
from engine.rowcheck import quick, wrong
from engine.training.base import text_folder
from engine.training.items import Settings
from queue_store import config as configuration
from queue_store.config import Config
from queue_store.errors import DataError, NotFound
from queue_store.heldout import NOTHING, HeldOut, held_out
from queue_store.home import Home
from queue_store.rows import QuickCheck

Progress = Callable[[str, int, int], None]
"""(what is being done, bytes done, bytes in all)"""

LINES_SHOWN = 100
"""How many line numbers a list of the report names; its count covers all."""


@dataclass(frozen=True)
class Place:
    """What the rows of a file would train with."""

    config: Config
    model: ModelText
    held_out: HeldOut

    def source(self, path: Path, check: QuickCheck, level: str) -> Source:
        """The file as it would train, with the checkers of `level`."""
        settings = replace(Settings.of(self.config).prepare_settings(), level=level)
        return Source(path, check, self.model, settings, self.held_out)

    @property
    def level(self) -> str:
        """The level at which a file is looked at where nobody asks for one: as before training,
        and no less than standard."""
        return "deep" if self.config.data.level == "deep" else "standard"


@contextmanager
def place(home: Home | None, model: str = "") -> Iterator[Place]:
    """The home's settings, held-out rows and model, as long as the context lasts; `model` (a
    folder or builtin:tiny) instead of the home's. Without a home the default settings count.

    Raises NotFound where there is no model to make tokens with, ConfigError, DataError.
    """
    if home is None and not model:
        raise NotFound(
            "no home here, so no model to make tokens with",
            mend="name one: --model FOLDER, or stand in a home (--home DIR)",
        )
    config = configuration.load(home.config) if home is not None else configuration.default()
    held = held_out(home) if home is not None else NOTHING
    base = model or config.model.base
    with text_folder(None if model else home, base, config.training.seed) as folder:
        yield Place(config, ModelText(folder), held)


def tokenized(
    path: Path, check: QuickCheck, level: str, at: Place, progress: Progress
) -> dict[str, Any]:
    """The report of level "standard" or "deep". `problems` says in a line each what keeps the
    file, or a row of it, from training as it is; empty: nothing does.

    Raises DataError where the file cannot be read or changes meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="trainctl-validate-") as folder:
        found = inspect(
            at.source(path, check, level),
            Path(folder),
            lambda done, total: progress("tokens", done, total),
        )
    report = found.report
    settings = at.config.training
    proposed = suggestions(report, found.lengths, at.config, _model_config(at.model.folder))
    held = report.pop("held_out")
    over = report.pop("over_length")
    return {
        **quick(check),
        **report,
        "level": level,
        "model": {"folder": str(at.model.folder), "name": at.config.model.name},
        "settings": {
            "max_length": settings.max_length,
            "packing": settings.packing,
            **Settings.of(at.config).dump()["data"],
        },
        "held_out": {
            "count": len(held),
            "share": round(len(held) / max(1, report["accepted"]), 4),
            "lines": held[:LINES_SHOWN],
        },
        "over_limit": {**report["over_limit"], "lines": over[:LINES_SHOWN]},
        "problems": _problems(report, len(over), at.config),
        "suggestions": [one.text for one in proposed],
        "proposals": [asdict(one) for one in proposed if one.key],
    }


def tokens(
    path: Path, check: QuickCheck, at: Place, progress: Progress
) -> Iterator[dict[str, Any]]:
    """Every row of the file with its ids and which of them train, in order; see inspect."""
    source = at.source(path, check, at.level)
    return token_rows(source, lambda done, total: progress("tokens", done, total))


def _model_config(folder: Path) -> dict[str, Any]:
    """The model's config.json, {} where there is none. Raises DataError where it is broken."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"is not JSON: {error}", where=str(path)) from None
    if not isinstance(found, dict):
        raise DataError("is not a JSON object", where=str(path))
    return found


def _problems(report: dict[str, Any], over: int, config: Config) -> list[str]:
    found = []
    bad = report["rejected_count"]
    if bad and config.data.bad_rows == "reject_file":
        found.append(wrong(bad, report["rejected"]))
    elif bad and (reason := too_bad(bad, report["lines"], config.data.bad_rows_limit)):
        found.append(f"{reason}; {wrong(bad, report['rejected'])}")
    if over and config.data.over_length == "refuse":
        limit = report["over_limit"]
        found.append(
            f"{over} {'row is' if over == 1 else 'rows are'} longer than max_length"
            f" {config.training.max_length} (longest: {limit['longest']} tokens, line"
            f" {limit['longest_line']}), and data.over_length is refuse"
        )
    if not report["rows"]:
        found.append("no row can train")
    for check in report["masks"].get("checks", ()):
        if not check["passed"]:
            where = f", line {check['line']}" if check["line"] is not None else ""
            found.append(f"mask check {check['name']}{where}: {check['text']}")
    return found
