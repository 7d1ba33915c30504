"""Imported weights of a real model: verified deep, restored, and trained on from their step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.training.tiny import make_tiny
from queue_store import records
from queue_store.database import open_state
from queue_store.home import Home
from snapshots.digest import weights_digest
from tests import engine_kit, old_home

STEP = 100


def old_model(root: Path, *, adapter: bool) -> Path:
    """An older system's version of a tiny model, as save_pretrained writes it."""
    made = root / "made"
    made.mkdir(parents=True)
    make_tiny(made, 7)
    model: Any = AutoModelForCausalLM.from_pretrained(made)
    version = root / "old" / "models" / "versions" / "v012_20260101_030000_it_worked"
    old_home.write(version / "metadata.json", {"total_steps": STEP, "description": "it worked"})
    if adapter:
        import peft
        import torch

        settings = peft.LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"]
        )
        model = peft.get_peft_model(model, settings)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "lora_B" in name:
                    value.fill_(0.01)
        model.to(torch.bfloat16).save_pretrained(version / "adapter")
        return version / "adapter"
    model.save_pretrained(version)
    AutoTokenizer.from_pretrained(made).save_pretrained(version)
    return version


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_imported_weights_are_verified_restored_and_trained_on(
    method: str, tmp_path: Path, trainctl
) -> None:
    place = old_model(tmp_path, adapter=method != "full")
    lora = {"r": 4, "alpha": 4, "targets": ["q_proj", "v_proj"]}
    model = {"method": method, "lora": lora} if method != "full" else {}
    home: Home = engine_kit.make_home(tmp_path / "home", model=model)
    done = trainctl("import", tmp_path / "old", "--yes", "--json", home=home)
    assert done.code == 0, done.err
    told = json.loads(done.out)["versions"][0]
    assert (told["step"], told["method"]) == (STEP, "full" if method == "full" else "lora")
    restored = trainctl("restore", "v001", "--yes", "v001", "--json", home=home)
    assert restored.code == 0, restored.err
    assert json.loads(restored.out)["step"] == STEP
    stands = engine_kit.head(home)
    assert stands.weights_digest == weights_digest(place) and stands.step == STEP
    checked = trainctl("verify", "v001", "--deep", home=home)
    assert checked.code == 0, checked.out + checked.err
    engine_kit.add(home, "a.jsonl", rows=12)
    after = engine_kit.train_all(home)
    assert after != stands.weights_digest
    steps = engine_kit.steps(home)
    assert steps[0]["step"] == STEP + 1 and engine_kit.head(home).step == steps[-1]["step"]
    engine_kit.add(home, "b.jsonl", rows=12, seed=2)
    with engine_kit.Running(home) as running:  # and once more, by a running engine
        running.ask("pause")
        back = running.ask("rollback", version="v001")
        assert back["step"] == STEP and running.step == STEP
        running.ask("resume")
        running.wait_trained()
    assert engine_kit.head(home).step > STEP
    with open_state(home) as state:
        line = records.line(state, live=False)
    assert len(line) == 1
    versions = {v["name"]: v for v in json.loads(trainctl("versions", "--json", home=home).out)}
    assert versions["v001"]["kept_because"][0] == "imported"
    assert versions["v002"]["kind"] == versions["v003"]["kind"] == "before_rollback"
    assert trainctl("doctor", "--quick", home=home).code == 0
