"""An item's frozen settings outlive a release of the program."""

from __future__ import annotations

import pytest

from engine.training.items import Settings
from queue_store.config import default


def test_settings_come_back_as_they_were_frozen() -> None:
    settings = Settings.of(default())
    assert Settings.load(settings.dump()) == settings


def test_a_key_that_is_no_more_and_one_that_is_new_do_not_fail_the_item() -> None:
    raw = Settings.of(default()).dump()
    raw["data"]["level"] = "standard"
    raw["training"]["muon"]["gone"] = 1
    raw["training"]["learning_rate"] = 0.125
    del raw["training"]["effective_batch"], raw["training"]["muon"]["momentum"]
    loaded = Settings.load(raw)
    assert loaded.training.learning_rate == 0.125
    assert loaded.training.effective_batch == default().training.effective_batch
    assert loaded.training.muon == default().training.muon


@pytest.mark.parametrize(("key", "before"), [("chunked_loss", "off"), ("rounding", "nearest")])
def test_an_item_from_before_a_key_goes_on_as_it_began(key: str, before: str) -> None:
    """The key's default would change the bits of an item that is in the middle."""
    raw = Settings.of(default()).dump()
    assert raw["training"].pop(key) == "auto"
    assert getattr(Settings.load(raw).training, key) == before
    assert getattr(Settings.load(Settings.of(default()).dump()).training, key) == "auto"
