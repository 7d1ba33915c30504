"""What an item trains on and with: settings frozen when it is prepared, its packs on disk.

Edits of config.toml apply to the next item; an item that goes on keeps what it began with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.prepare.prepare import PrepareSettings, prepare
from engine.prepare.prepared import Prepared
from engine.training.position import Plan
from evaluation import sets
from queue_store.config import Config, Data, Training, default
from queue_store.errors import DataError, VerificationFailed
from queue_store.heldout import held_out
from queue_store.home import Home
from queue_store.items import Item
from snapshots.upkeep import quarantine

BEFORE = {"chunked_loss": "off", "rounding": "nearest"}
"""What an item trained on that was frozen before the key existed, where that is not today's
default: in the middle of an item nothing changes."""


@dataclass(frozen=True)
class Settings:
    """The settings frozen with an item. `halved`: the (cursor, packs) from which on fewer packs
    are computed at once than training.batch_size says (see engine.training.halving)."""

    training: Training
    data: Data
    halved: tuple[int, int] | None = None

    @staticmethod
    def of(config: Config) -> Settings:
        return Settings(config.training, config.data)

    @staticmethod
    def load(raw: dict[str, Any]) -> Settings:
        """The reverse of `dump`. An item outlives a release: a key that is no more is let go, one
        that is new takes its default."""
        now, halved = default(), raw.get("halved")
        return Settings(
            msgspec.convert(_today(raw["training"], now.training), Training),
            msgspec.convert(_today(raw["data"], now.data), Data),
            (int(halved[0]), int(halved[1])) if halved else None,
        )

    def dump(self) -> dict[str, Any]:
        return {
            "training": msgspec.to_builtins(self.training),
            "data": msgspec.to_builtins(self.data),
            **({"halved": list(self.halved)} if self.halved else {}),
        }

    def prepare_settings(self) -> PrepareSettings:
        return PrepareSettings(
            max_length=self.training.max_length,
            packing=self.training.packing,
            profile=self.data.profile,
            system_prompt=self.data.system_prompt,
            over_length=self.data.over_length,
            bad_rows=self.data.bad_rows,
            bad_rows_limit=self.data.bad_rows_limit,
            level=self.data.level,
            validation_split=self.data.validation_split,
            seed=self.training.seed,
            thinking=self.data.thinking,
        )


def _today(raw: dict[str, Any], defaults: msgspec.Struct) -> dict[str, Any]:
    """`raw` with exactly the keys that `defaults` has, at every depth."""
    result: dict[str, Any] = {}
    for key in defaults.__struct_fields__:
        value = getattr(defaults, key)
        if isinstance(value, msgspec.Struct):
            result[key] = _today(raw.get(key, {}), value)
        else:
            result[key] = raw.get(key, BEFORE.get(key, msgspec.to_builtins(value)))
    return result


@dataclass(frozen=True)
class Ready:
    """An item ready to train."""

    settings: Settings
    prepared: Prepared
    plan: Plan


@dataclass(frozen=True)
class Order:
    """What to prepare, and with what: all that the item decides, as plain values."""

    home: Path
    file: str
    name: str
    digest: str
    model_folder: Path
    settings: PrepareSettings

    @staticmethod
    def of(home: Home, item: Item, settings: Settings, model_folder: Path) -> Order:
        wanted = settings.prepare_settings()
        return Order(home.root, item.file, item.name, item.digest, model_folder, wanted)


def prepare_item(
    order: Order,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
    ahead: str = "",
) -> Prepared:
    """The prepared data of an item, made or found; in line and in a process beside training the
    same. Raises as `prepare`."""
    home = Home(order.home)
    held = held_out(home)
    return prepare(
        home.items / order.file,
        model_folder=order.model_folder,
        settings=order.settings,
        held_out=held.digests,
        near=held,
        root=home.prepared,
        progress=progress,
        cancelled=cancelled,
        called=order.name,
        accepted=order.digest,
        ahead=ahead,
    )


def settings_of(item: Item, config: Config, cursor: int) -> Settings:
    """Those that the item began with, if it has (`cursor` > 0), else today's."""
    return Settings.load(item.settings) if item.settings and cursor else Settings.of(config)


def make_ready(
    home: Home,
    item: Item,
    settings: Settings,
    model_folder: Path,
    cursor: int,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
    ahead: str = "",
) -> Ready:
    """The item's packs, found by the key that it was prepared with, else made; `ahead` as for
    `prepare`.

    Raises DataError where the file cannot train, is not the one that was accepted, or where its
    rows changed under a cursor.
    """
    prepared = _found(home, item) if cursor else None
    if prepared is None:
        order = Order.of(home, item, settings, model_folder)
        prepared = prepare_item(order, progress, cancelled, ahead)
        if cursor and item.prepared and prepared.key != item.prepared:
            raise DataError(
                "cannot go on where it stood: the held-out sets, the template or the file are"
                " not those that it began with",
                where=item.name,
                mend="add the file anew to train it from its start",
            )
    plan = Plan(
        prepared,
        seed=settings.training.seed,
        epochs=settings.training.epochs,
        effective_batch=settings.training.effective_batch,
    )
    return Ready(settings, prepared, plan)


def _found(home: Home, item: Item) -> Prepared | None:
    """What the item was prepared to, every byte read; None where it is not there or damaged (it
    is set apart then: the item's own file makes it anew, to the same bytes)."""
    folder = home.prepared / item.prepared if item.prepared else None
    if folder is None or not folder.exists():
        return None
    try:
        return Prepared.open(folder, verify=True)
    except VerificationFailed:
        quarantine(home, folder)
        return None


def validation_sets(
    home: Home,
    config: Config,
    settings: Settings,
    model_folder: Path,
    cancelled: Callable[[], bool],
) -> dict[str, Prepared]:
    """The held-out sets as packs, for the validation loss; by the set's name. They are rendered as
    the item's own rows, by its `settings`."""
    chosen = {one.name for one in sets.load_sets(home, config.evaluation.sets)}
    whole = msgspec.structs.replace(
        settings.data, validation_split=0.0, over_length="drop", level="quick"
    )
    result = {}
    for name, path in sets.set_files(home).items():
        if name in chosen:
            result[name] = prepare(
                path,
                model_folder=model_folder,
                settings=Settings(settings.training, whole).prepare_settings(),
                held_out=frozenset(),
                root=home.prepared,
                progress=lambda done, total: None,
                cancelled=cancelled,
            )
    return result
