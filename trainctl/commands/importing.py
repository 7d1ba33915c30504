"""init --from and import: settings, files and weights of an older system."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainctl.context import Context
from trainctl.importing import old_config
from trainctl.output import text
from trainctl.settings_text import toml_value

Json = dict[str, Any]


def init(context: Context, arguments: argparse.Namespace, folder: Path) -> int:
    """A new home with the settings of an older config.json; exit 1, and nothing is written, where
    the file says two things or what config.toml does not take."""
    from trainctl.commands.home import make_home

    chosen = old_config.parse_set(arguments.set)
    source = Path(arguments.source).expanduser()
    found = old_config.translate(old_config.read(source), chosen)
    written = None
    if found.decided and not arguments.dry_run:
        written = str(make_home(folder, found.values).config)
    context.show({**found.json(), "written": written}, lambda: "\n".join(_init(found, written)))
    return 0 if found.decided else 1


def _init(found: old_config.Settings, written: str | None) -> Iterator[str]:
    yield from settings(found)
    yield ""
    if written:
        yield f"written: {written}"
    elif found.decided:
        yield "nothing was written (--dry-run)"
    else:
        keys = [one["key"] for one in (*found.conflicts, *found.problems) if one["key"]]
        yield f"nothing was written: decide {', '.join(dict.fromkeys(keys))} with --set KEY=VALUE"


def settings(found: old_config.Settings) -> Iterator[str]:
    """The four lists as lines."""
    for one in found.mapped:
        value = one["value"]
        shown = text(value) if isinstance(value, dict) else text(toml_value(value))
        yield f"{text(', '.join(one['from']))} -> {one['to']} = {shown}"
    for one in found.conflicts:
        yield f"conflict: {one['key']}: {text(one['why'])}"
        for said in one["values"]:
            yield f"    {text(said['value'])}  in {text(said['place'])}"
        yield f"    choose, for example: {text(one['choose'])}"
    for one in found.problems:
        yield f"problem: {text(one['what'])}"
    for one in found.ignored:
        yield f"not taken over: {text(one['key'])}, because {text(one['because'])}"
