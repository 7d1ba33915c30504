"""init --from and import: settings, files and weights of an older system."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queue_store.errors import Refused, TrainctlError
from queue_store.lock import EngineLock
from trainctl.confirm import confirm
from trainctl.context import Context
from trainctl.importing import old_config, old_hosts
from trainctl.importing.folder import LeftOut
from trainctl.output import count, counted, size, table, text
from trainctl.settings_text import parse_set, toml_value

if TYPE_CHECKING:
    from trainctl.importing.plan import Plan

Json = dict[str, Any]


def init(context: Context, arguments: argparse.Namespace, folder: Path) -> int:
    """A new home with the settings of an older config.json; exit 1, and nothing is written, where
    the file says two things or what config.toml does not take."""
    from trainctl.commands.home import make_home

    chosen = parse_set(arguments.set)
    source = Path(arguments.source).expanduser()
    found = old_config.translate(old_config.read(source), chosen, old_hosts.beside(source))
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


def take_over(context: Context, arguments: argparse.Namespace) -> int:
    """Take over an older system's folder: the plan, and once somebody agreed, the copies. Exit 1
    where anything was left out for an error."""
    from trainctl.importing import plan as plans
    from trainctl.importing import take

    chosen = parse_set(arguments.set)
    root = Path(arguments.path).expanduser().absolute()
    with ExitStack() as stack:
        locked = arguments.dry_run or _locked(context, stack)
        if locked and not arguments.dry_run:
            take.tidy(context.state)
        plan = plans.look(context.state, root, chosen)
        errors = [one for one in plan.left_out if one.error]
        if arguments.dry_run:
            shown = plan.json(context.home)
            context.show({**shown, "done": None}, lambda: "\n".join(_plan(plan, shown)))
            return 1 if errors else 0
        shown = plan.json(context.home)
        if not context.json:
            print("\n".join(_plan(plan, shown)), flush=True)
        if plan.new or arguments.config:
            more = ", and config.toml is changed" if arguments.config else ""
            confirm(f"{counted(plan.new, 'thing')} will be copied{more}", yes=arguments.yes)

        def tell(line: str) -> None:
            if not context.json:
                print(text(line), flush=True)

        done, failed = take.take(context.state, plan, locked=locked, tell=tell)
        if arguments.config:
            try:
                done.append(
                    {
                        "kind": "settings",
                        "name": "config.json",
                        "is": take.settings(context.state, plan),
                    }
                )
            except TrainctlError as error:
                failed.append(LeftOut("config.json", str(error), True))
    errors += failed
    shown = {**shown, "left_out": [one.json() for one in (*plan.left_out, *failed)], "done": done}
    context.show(shown, lambda: _ended(done, errors))
    return 1 if errors else 0


def _locked(context: Context, stack: ExitStack) -> bool:
    """Take the home's lock; False where an engine holds it."""
    try:
        stack.enter_context(EngineLock.acquire(context.home, "import"))
    except Refused:
        if not context.views.live():
            raise
        return False
    return True


def _plan(plan: Plan, shown: Json) -> Iterator[str]:
    yield f"from {text(str(plan.root))}"
    yield ""
    yield table(
        ("file", "as", "priority", ">rows", ">size", "note"),
        [
            (
                file.path,
                f"already {here}" if here else "failed" if file.failed else "queued",
                *(file.priority.word, count(file.rows), size(file.size), file.note),
            )
            for file, here in plan.items
        ],
        empty="no file to queue",
    )
    yield ""
    yield table(
        ("held-out set", "as", ">rows", "of"),
        [
            (one.name, f"already {here}" if here else "new", len(one.rows), ", ".join(one.sources))
            for one, here in plan.sets
        ],
        empty="no held-out set",
    )
    yield ""
    yield table(
        ("weights", "as", ">step", "kind", ">size", "note"),
        [
            (
                *(one.name, f"already {here}" if here else "a version", count(one.step)),
                *(one.method, size(one.size), _restorable(plan, one.name)),
            )
            for one, here in plan.versions
        ],
        empty="no weights",
    )
    yield ""
    if plan.settings is not None:
        yield "settings (written with --config):"
        yield from (f"  {line}" for line in settings(plan.settings))
        yield ""
    for left in plan.left_out:
        word = "ERROR" if left.error else "left out"
        yield f"{word}: {text(left.path)}: {text(left.because)}"
    free = size(shown["free_bytes"])
    yield f"to copy: {counted(plan.new, 'thing')}, {size(plan.bytes)}; {free} are free"


def _restorable(plan: Plan, name: str) -> str:
    note = plan.notes.get(name)
    return f"cannot be restored in this home: {note}" if note else ""


def _ended(done: list[Json], errors: list[LeftOut]) -> str:
    taken = f"taken over: {counted(len(done), 'thing')}"
    if not errors:
        return taken
    lines = [f"  {text(one.path)}: {text(one.because)}" for one in errors]
    return "\n".join([f"{taken}; {counted(len(errors), 'thing')} not:", *lines])
