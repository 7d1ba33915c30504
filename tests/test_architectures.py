"""Each architecture trains through the engine's run, goes on bit-identically after a kill, keeps
packed rows apart, and is saved so that transformers loads it with equal logits."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.prepare.collate import collate
from engine.training.base import resolve_base
from engine.training.model import load_model
from queue_store import config
from queue_store.errors import NotFound, TrainctlError
from queue_store.home import Home
from tests.model_zoo import ARCHITECTURES, make_folder, make_model
from tests.training_kit import Bench, Recorder, prepare_file, training, write_rows


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Packs for all of them: the tokenizer is the same."""
    root = tmp_path_factory.mktemp("rows")
    folder = make_folder(root / "model", "qwen3")
    return prepare_file(write_rows(root / "rows.jsonl", 9), folder, root / "home", max_length=192)


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_it_trains_goes_on_exactly_and_is_saved(kind: str, tmp_path: Path, prepared: Any) -> None:
    folder = make_folder(tmp_path / "model", kind)
    settings = training(batch_size=2, effective_batch=2, warmup_steps=1)
    straight, recorder = Bench(folder, settings), Recorder()
    total = straight.run(prepared, recorder).global_step
    first = Bench(folder, settings)
    stopped = first.run(prepared, Recorder(leave_at=total - 1))
    state = first.save(tmp_path / "state")
    second = Bench(folder, settings)
    second.restore(state)
    second.run(prepared, Recorder(), cursor=stopped.cursor)
    assert second.digest() == straight.digest()
    assert recorder.steps[-1].loss < recorder.steps[0].loss

    saved = straight.save(tmp_path / "saved")
    served = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
    live = straight.loaded.model.eval()
    packs = map(prepared.sequence, range(prepared.packs))
    pack = max(packs, key=lambda one: (one.position_ids == 0).sum())
    batch = collate([pack])
    del batch["labels"]
    with torch.no_grad():
        packed = live(**batch, use_cache=False).logits
        assert torch.equal(packed, served(**batch, use_cache=False).logits)
        starts = [*(pack.position_ids == 0).nonzero()[0].tolist(), len(pack.input_ids)]
        assert len(starts) > 2
        for begin, end in itertools.pairwise(starts):
            alone = live(batch["input_ids"][:, begin:end], use_cache=False).logits
            assert torch.allclose(alone, packed[:, begin:end], atol=1e-5)


def test_a_base_in_shards_is_the_same_model(tmp_path: Path) -> None:
    whole = make_folder(tmp_path / "whole", "llama")
    parts = make_folder(tmp_path / "parts", "llama", shards="60KB")
    assert len(list(parts.glob("model-*-of-*.safetensors"))) > 2
    weights = [
        load_model(folder, config.default().model, training(), device="cpu").model.state_dict()
        for folder in (whole, parts)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())


def refused(folder: Path) -> str:
    with pytest.raises(TrainctlError) as caught:
        load_model(folder, config.default().model, training(), device="cpu")
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text
    return text


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "qwen3")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    text = refused(folder)
    assert "pytorch_model.bin" in text and "safetensors" in text


def test_a_model_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "qwen3")
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "mine.py").write_text("raise SystemExit('code of a model ran')")
    assert "runs no code of a model" in refused(folder)


def test_code_beside_an_architecture_that_is_known_is_not_run(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "qwen3")
    raw = json.loads((folder / "config.json").read_text())
    raw["auto_map"] = {"AutoModelForCausalLM": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "mine.py").write_text("raise SystemExit('code of a model ran')")
    loaded = load_model(folder, config.default().model, training(), device="cpu")
    assert type(loaded.model) is transformers.Qwen3ForCausalLM


def test_a_hub_id_without_network_is_one_clear_line(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with pytest.raises(NotFound) as caught:
        resolve_base(home, "someone/some-model", 1)
    text = str(caught.value)
    assert "\n" not in text and "someone/some-model is no folder here" in text
    assert "network" in text and not (home.models / "someone--some-model").exists()


def test_a_hub_model_without_safetensors_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.create()

    def download(base: str, local_dir: Path, allow_patterns: list[str]) -> None:
        make_model("qwen3").config.save_pretrained(local_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(NotFound, match="has no safetensors weights"):
        resolve_base(home, "someone/pickled", 1)
    assert not (home.models / "someone--pickled").exists()
