"""A home with versions and a configured target, for the tests of backups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from queue_store import config, journal
from snapshots import backup, versions
from tests.store_world import World

RUN = """
from queue_store import config
from snapshots import backup
backup.run(world.state, config.load(world.home.config))
"""


def configure(world: World, text: str) -> None:
    """Write config.toml and remember what it says."""
    world.home.config.write_text(text)


def folder_table(name: str, place: Path, more: str = "") -> str:
    return f'[backups.{name}]\ntarget = "{place}"\n{more}\n'


def make_versions(world: World, count: int) -> list[str]:
    """So many verified versions, each of a checkpoint of its own."""
    made = []
    for _ in range(count):
        world.step += 1
        world.save()
        made.append(versions.create(world.state).name)
    return made


def run(world: World, **arguments: Any) -> list[dict[str, Any]]:
    return backup.run(world.state, config.load(world.home.config), **arguments)


def kinds(world: World, after: int = 0) -> list[str]:
    return [event.kind for event in journal.events(world.state, after, 5000)]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
