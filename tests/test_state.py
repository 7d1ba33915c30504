"""A training state in a folder and back: every bit, plain files, and clear words on damage."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from engine.training.model import load_model
from engine.training.rng import (
    capture_rng,
    preserve_rng,
    rng_from_json,
    rng_to_json,
    seed_rng,
    set_rng,
)
from engine.training.state import read_info, save_state
from queue_store import config
from queue_store.errors import ConfigError, NotFound, TrainctlError, VerificationFailed
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("state")
    model = make_model_folder(root / "model")
    return {
        "model": model,
        "file": prepare_file(write_rows(root / "a.jsonl", 9), model, root / "home"),
    }


def draw() -> list[float]:
    return [random.gauss(0, 1), float(np.random.normal()), float(torch.randn(()))]


def test_the_generators_come_back_exactly_also_through_json() -> None:
    seed_rng(3)
    draw()  # leaves a second gaussian waiting in Python and numpy
    state = capture_rng()
    expected = [draw() for _ in range(3)]
    text = json.dumps(rng_to_json(state))
    seed_rng(99)
    set_rng(rng_from_json(json.loads(text)))
    assert [draw() for _ in range(3)] == expected
    set_rng(state)
    with preserve_rng():
        draw()
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("optimizer", "method", "precision"),
    [
        ("adamw", "full", "fp32"),
        ("muon", "full", "bf16"),
        ("adamw_8bit", "full", "fp32"),
        ("adamw_8bit", "full", "bf16"),
        ("adamw", "lora", "fp32"),
    ],
)
def test_saved_and_restored_every_bit_is_the_same_and_the_files_are_plain(
    place: dict[str, Any], tmp_path: Path, optimizer: str, method: str, precision: str
) -> None:
    bench = Bench(place["model"], training(optimizer=optimizer), method, precision)
    bench.run(place["file"], Recorder())
    folder = bench.save(tmp_path / "state")
    names = {p.name for p in folder.iterdir()}
    assert {"optimizer.safetensors", "rng.json", "training_state.json", "tokenizer.json"} <= names
    assert {p.suffix for p in folder.iterdir()} <= {".safetensors", ".json", ".jinja"}
    assert not {n for n in names if n.startswith("README")}
    other = Bench(place["model"], training(optimizer=optimizer, seed=5), method, precision)
    other.run(place["file"], Recorder(leave_at=2))  # a live state that is another
    other.restore(folder)
    assert other.digest() == bench.digest()
    assert other.schedule.global_step == bench.schedule.global_step
    info = read_info(folder)
    assert info["threads"] == 1 and info["optimizer"] == optimizer and info["branch"] == 0


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_on_embedding_and_head_comes_back_bit_for_bit(
    place: dict[str, Any], tmp_path: Path
) -> None:
    """An embedding's halves are parameters, a linear layer's modules: their names differ."""
    lora = config.Lora(r=4, alpha=4, dropout=0.1, targets=["q_proj", "embed_tokens", "lm_head"])
    bench = Bench(place["model"], training(), "lora", lora=lora)
    bench.run(place["file"], Recorder())
    folder = bench.save(tmp_path / "state")
    other = Bench(place["model"], training(seed=5), "lora", lora=lora)
    assert other.digest() != bench.digest()
    other.restore(folder)
    assert other.digest() == bench.digest()


def test_a_full_state_is_a_model_folder_that_others_load_and_serve(
    place: dict[str, Any], tmp_path: Path
) -> None:
    bench = Bench(place["model"], training())
    bench.run(place["file"], Recorder())
    folder = bench.save(tmp_path / "state")
    served = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert served.config.use_cache is True and bench.loaded.model.config.use_cache is False
    mine = bench.loaded.model.state_dict()
    assert all(torch.equal(t, mine[n]) for n, t in served.state_dict().items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == bench.loaded.tokenizer.chat_template
    straight = load_model(
        place["model"], config.default().model, training(), weights=folder, device="cpu"
    )
    assert all(torch.equal(t, mine[n]) for n, t in straight.model.state_dict().items())


def test_weights_only_has_no_training_state(place: dict[str, Any], tmp_path: Path) -> None:
    bench = Bench(place["model"], training())
    save_state(tmp_path, bench.loaded, bench.optimizer, bench.schedule, {}, weights_only=True)
    names = {p.name for p in tmp_path.iterdir()}
    assert "model.safetensors" in names and "training_state.json" not in names
    assert "optimizer.safetensors" not in names


def test_the_base_folder_is_never_written(place: dict[str, Any]) -> None:
    def state() -> list[tuple[str, int, int]]:
        return [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in place["model"].iterdir()]

    before = sorted(state())
    Bench(place["model"], training()).run(place["file"], Recorder(leave_at=1))
    assert sorted(state()) == before


def test_damage_and_strange_states_are_refused_by_name(
    place: dict[str, Any], tmp_path: Path
) -> None:
    bench = Bench(place["model"], training())
    bench.run(place["file"], Recorder(leave_at=2))

    def refused(part: str) -> str:
        with pytest.raises(VerificationFailed) as caught:
            bench.restore(folder)
        assert "\n" not in str(caught.value) and part in str(caught.value)
        return str(caught.value)

    for name in ("model.safetensors", "optimizer.safetensors", "optimizer.json", "rng.json"):
        folder = bench.save(tmp_path / "state")
        (folder / name).write_bytes((folder / name).read_bytes()[:-7])
        refused(name)
        (folder / name).unlink()
        refused("" if name == "model.safetensors" else name)
    folder = bench.save(tmp_path / "state")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused("model.norm.weight is missing")
    folder = Bench(place["model"], training(optimizer="muon")).save(tmp_path / "muon")
    refused("muon")


def test_memory_that_runs_out_while_loading_is_not_blamed_on_the_model(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def no_room(*_: object, **__: object) -> None:
        raise full

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", no_room)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(place["model"], config.default().model, training(), device="cpu")


def test_a_machine_without_threads_is_not_blamed_on_the_model(place: dict[str, Any]) -> None:
    before = threading.stack_size(1 << 46)  # more than there is: no thread starts
    try:
        with pytest.raises(TrainctlError) as caught:
            load_model(place["model"], config.default().model, training(), device="cpu")
    finally:
        threading.stack_size(before)
    assert str(caught.value).startswith("can't start new thread (lower training.threads")


def test_wrong_models_and_impossible_settings_are_one_clear_line(
    place: dict[str, Any], tmp_path: Path
) -> None:
    import msgspec

    from engine.training.base import resolve_base
    from queue_store.home import Home

    model = config.default().model
    home = Home(tmp_path / "home")
    home.create()
    with pytest.raises(NotFound, match="no model folder"):
        resolve_base(home, "./nowhere", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainctlError, match="no causal language model"):
        load_model(tmp_path / "empty", model, training(), device="cpu")
    for changes, section, text in (
        ({"attention": "flash_attention_2"}, {}, "flash"),
        ({}, {"liger": "on"}, "Liger"),
    ):
        with pytest.raises(ConfigError, match=text) as caught:
            load_model(
                place["model"],
                msgspec.structs.replace(model, **changes),
                training(**section),
                device="cpu",
            )
        assert "\n" not in str(caught.value)
    folder = resolve_base(home, "builtin:tiny", 1)
    assert folder.parent == home.models
    assert resolve_base(home, "builtin:tiny", 1) == folder
    assert all(not p.stat().st_mode & 0o222 for p in folder.iterdir())
