"""What `trainctl vram` says, and what is refused before it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.memory import cards, records, refusing
from queue_store import config as configuration
from queue_store.database import open_state
from queue_store.errors import ConfigError
from queue_store.home import Home
from tests.conftest import Done
from tests.test_vram import folder_of


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose store keeps what was measured, once for all tests."""
    home = Home(tmp_path_factory.mktemp("measured"))
    home.create()
    home.config.write_text('[model]\nbase = "builtin:tiny"\n')
    return home


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.json of a model of 4 B parameters."""
    sizes = {"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32}
    more = {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728}
    return folder_of(
        tmp_path_factory.mktemp("large"),
        "qwen3",
        **sizes,
        **more,
        vocab_size=151936,
        tie_word_embeddings=True,
    )


def test_a_model_of_billions_is_counted_without_its_weights_and_told_what_would_fit(
    large: Path, trainctl: Callable[..., Done], measured: Home
) -> None:
    done = trainctl("vram", "--card", "4090", "--model", str(large), "--json", home=measured)
    assert done.code == 1, done.err
    found = json.loads(done.out)
    assert found["parameters"] == 4_022_468_096
    assert found["estimate"]["weights"] == 2 * found["parameters"]
    assert not found["fits"] and found["nearest"]
    for one in found["nearest"]:
        assert one["total"] <= found["usable"] < found["estimate"]["total"]
    with open_state(measured) as state:
        peak = {"predicted": 74, "measured": 100, "settings": "tiny"}
        records.record(state, found["device"]["name"], 1, **peak)
    options = [
        *("--checkpointing", "on", "--optimizer", "paged_adamw_8bit", "--card", "4090"),
        *("--in-backward", "on", "--offload", "on", "--chunked-loss", "on"),
        *("--model", str(large / "config.json")),
    ]
    fits = trainctl("vram", *options, home=measured)
    assert fits.code == 0, fits.out + fits.err
    assert "fits" in fits.out and "pageable" in fits.out and "in_backward" in fits.out
    assert "so far here, in 1 item: predicted 74% of what was measured" in fits.out
    options = ["--card", "4090", "--model", str(large), "--processes", "8", "--parallel", "fsdp"]
    split = trainctl("vram", *options, home=measured)
    assert split.code == 0, split.out + split.err
    assert "each of 8 processes, which has a part of the model (fsdp)" in split.out
    odd = trainctl("vram", *options, "--batch", "3", "--length", "64", home=measured)
    assert odd.code == 0 and "batch_size 1, max_length 64" in odd.out, odd.out + odd.err
    none = trainctl("vram", *options, "--optimizer", "adamw_8bit", home=measured)
    assert none.code == 2 and "no parts of a tensor" in none.err


def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, trainctl: Callable[..., Done], home: Home
) -> None:
    done = trainctl("vram", "--card", "1080", home=home)
    assert done.code == 2 and "4090, 3090" in done.err
    done = trainctl("vram", "--model", str(tmp_path / "nowhere"), home=home)
    assert done.code == 1 and "no config.json" in done.err
    own = Home(tmp_path / "own")
    own.create()
    own.config.write_text('[model]\nbase = "nobody/nothing"\n')
    done = trainctl("vram", home=own)
    assert done.code == 1 and "model.base" in done.err and "--model" not in done.err
    (tmp_path / "config.json").write_text('{"model_type": "no such"}')
    done = trainctl("vram", "--model", str(tmp_path), home=home)
    assert done.code == 4
    assert "no such" in done.err and "Traceback" not in done.err


def test_what_cannot_fit_is_refused_before_it_is_loaded_and_tried_where_that_is_wanted(
    trainctl: Callable[..., Done], home: Home
) -> None:
    home.config.write_text(
        "[training]\nmax_length = 1048576\nbatch_size = 64\neffective_batch = 64\n"
    )
    done = trainctl("--daemon", home=home)
    assert done.code == 2  # as any configuration that cannot be
    assert "training needs about" in done.err and "max_length = " in done.err, done.err
    assert "Traceback" not in done.err


def test_a_small_model_passes_without_being_measured(home: Home) -> None:
    from engine.training.base import resolve_base

    folder = resolve_base(home, "builtin:tiny", 42)
    refusing.check(home, folder, configuration.default())
    assert not home.memory.exists()


def test_what_was_loaded_once_is_not_refused_for_the_memory_that_it_holds(
    measured: Home, large: Path
) -> None:
    config = configuration.default()
    roomy = cards.Device("a card", 100 << 30, 100 << 30, True)
    refusing.check(measured, large, config, roomy)
    refusing.check(measured, large, config, cards.Device("a card", 100 << 30, 1 << 30, True))
    with pytest.raises(ConfigError, match="training needs about"):
        refusing.check(measured, large, config, cards.Device("another", 100 << 30, 1 << 30, True))
