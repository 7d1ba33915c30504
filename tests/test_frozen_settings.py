"""An item's frozen settings outlive a release of the program."""

from __future__ import annotations

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


def test_an_item_from_before_the_chunked_loss_goes_on_without_it() -> None:
    """Its default would change the bits of an item that is in the middle."""
    raw = Settings.of(default()).dump()
    assert raw["training"].pop("chunked_loss") == "auto"
    assert Settings.load(raw).training.chunked_loss == "off"
    assert Settings.load(Settings.of(default()).dump()).training.chunked_loss == "auto"
