"""demo, init and config: making a home and looking at its settings.

A home that exists is never written over: `init` refuses, `demo` opens it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from queue_store import config as configuration
from queue_store.durable import write_new
from queue_store.errors import Refused, UsageError
from queue_store.home import Home
from queue_store.locked import would_mean
from trainctl.confirm import confirm
from trainctl.context import Context
from trainctl.output import pairs, table
from trainctl.settings_text import edited, own_config, parse_set, toml_value


def refuse_used(folder: Path) -> None:
    """Raise Refused where `folder` is a file or a home."""
    if folder.exists() and not folder.is_dir():
        raise Refused("this is a file", where=str(folder), mend="name a folder")
    if Home(folder).exists():
        raise Refused("there is a home already", where=str(folder), mend="nothing was changed")


def make_home(folder: Path, values: Mapping[str, object] | None = None) -> Home:
    """A new home in `folder` with a config.toml of its own, in which `values` (by dotted key) are
    set. Raises Refused if there is one, or if it cannot be written."""
    refuse_used(folder)
    home = Home(folder)
    default = configuration.default_path().read_text(encoding="utf-8")
    text = edited(own_config(default), values or {}, home.config)
    home.create()
    write_new(home.config, text.encode())
    return home


def init(context: Context, arguments: argparse.Namespace) -> int:
    """Make a home; with --demo the demo's, with --from one with an older system's settings."""
    folder = Path(arguments.folder).expanduser().absolute()
    refuse_used(folder)
    if arguments.source is not None:
        from trainctl.commands import importing

        return importing.init(context, arguments, folder)
    if arguments.dry_run:
        raise UsageError("--dry-run goes with --from", mend="trainctl init --help")
    values = parse_set(arguments.set)
    if arguments.demo:
        if values:
            raise UsageError("the demo has settings of its own", mend="leave out --set or --demo")
        from trainctl.demo_home import make_demo_home

        make_demo_home(folder)
        home = Home(folder)
    else:
        home = make_home(folder, values)
    data = {"home": str(home.root), "config": str(home.config), "inbox": str(home.inbox)}
    context.show(
        data,
        lambda: (
            f"home      {home.root}\n"
            f"settings  {home.config}\n"
            f"inbox     {home.inbox}  (put JSONL files here)\n"
            f"console   trainctl --home {home.root}\n"
            f"headless  trainctl --daemon --detach --home {home.root}"
        ),
    )
    return 0


def demo(context: Context, arguments: argparse.Namespace) -> int:
    """Open the console on the demo's home, made first where there is none."""
    from trainctl import console
    from trainctl.demo_home import make_demo_home

    folder = Path(arguments.folder).expanduser().absolute()
    made = make_demo_home(folder)
    if not context.json:
        print("\n".join(made), flush=True)
    context.given_home = str(folder)
    return console.command(context, arguments)


def config_show(context: Context, arguments: argparse.Namespace) -> int:
    """Every key and its value; with --origin where it comes from."""
    from tui import themes
    from tui.actions import remapped

    path = context.home.config
    console = configuration.load(path).console
    remapped(console.keys, str(path))
    themes.checked(console.theme, str(path))
    rows = configuration.origins(path)
    if arguments.origin:
        data = [{"key": key, "value": value, "origin": origin} for key, value, origin in rows]
        context.show(
            data,
            lambda: table(("key", "value", "origin"), [(k, toml_value(v), o) for k, v, o in rows]),
        )
    else:
        context.show(
            configuration.to_dict(configuration.load(path)),
            lambda: pairs((key, toml_value(value)) for key, value, _ in rows),
        )
    return 0


MEANS = {
    "model.name": "what was trained so far keeps the old name in the journal",
    "training.max_length": "from the next item on rows are packed, and dropped, by the new length;"
    " losses before and after do not compare",
}
"""Locked keys that can change, and what that means; the others would need another model."""


def config_unlock(context: Context, arguments: argparse.Namespace) -> int:
    """Accept the value of a locked key that stands in config.toml now, once."""
    from queue_store import journal

    key = arguments.key
    if key not in configuration.LOCKED:
        raise UsageError(f"{key} is not locked", mend=f"locked: {', '.join(configuration.LOCKED)}")
    path = context.home.config
    value = configuration.flat(configuration.to_dict(configuration.load(path)))[key]
    locked = context.state.meta_get("locked")
    if locked is None:
        raise Refused("nothing is locked before the first step", mend="just edit config.toml")
    before = locked[key]
    if value == before:
        raise Refused(
            f"{key} is {toml_value(before)} already",
            where=str(path),
            mend="first write the new value",
        )
    if key not in MEANS:
        why = would_mean(key, before, value)
        raise Refused(
            f"the checkpoints of this home are of {key} = {toml_value(before)}"
            + (f": {why}" if why else ""),
            where=str(path),
            mend="set it back, or make another home: trainctl init",
        )
    change = f"{key}: {toml_value(before)} -> {toml_value(value)}"
    confirm(f"{change}\n  means   {MEANS[key]}", yes=arguments.yes)
    with context.state.transaction():
        context.state.meta_set("locked", {**locked, key: value})
        journal.record(context.state, "unlocked", f"{change}, by hand", data={"key": key})
    context.show({"key": key, "before": before, "value": value}, lambda: f"{change}, accepted")
    return 0
