"""A model split over ranks (FSDP2, on gloo): exact in itself, and in its files as one process's."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import transformers
from safetensors.torch import load_file

from engine.training.parallel import Ranks
from engine.training.sharded import shard
from queue_store.errors import ConfigError
from queue_store.home import Home
from queue_store.sharing import check_parts
from tests import ranks_kit
from tests.test_parallel import EFFECTIVE, alone, arguments, one, place, ranks_train
from tests.training_kit import Bench, Recorder, training

__all__ = ["alone", "place"]


def split(place: dict[str, Any], size: int, name: str, **changes: Any) -> list[Any]:
    folder = place["root"] / f"split-{name}"
    return ranks_kit.run("train", size, folder, sharded=True, **arguments(place, **changes))


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_loss_and_gradients_are_those_of_one_process(
    place: dict[str, Any], alone: Recorder, size: int
) -> None:
    results = split(place, size, "equal", epochs=2)
    assert one(results, "outcome")["cursor"] == 2 * place["prepared"].rows
    metrics = results[0]["metrics"]
    for mine, theirs in zip(metrics, alone.steps, strict=True):
        assert mine["tokens"] == theirs.tokens
        assert mine["loss"] == pytest.approx(theirs.loss, rel=2e-4)
        assert mine["grad_norm"] == pytest.approx(theirs.grad_norm, rel=5e-3)
    assert metrics[0]["grad_norm"] == pytest.approx(alone.steps[0].grad_norm, rel=1e-4)


@pytest.mark.parametrize(
    ("size", "effective", "method", "checkpointing"),
    [
        (2, 4, "full", False),
        pytest.param(2, 2, "full", True, marks=pytest.mark.slow),
        pytest.param(2, 4, "lora", False, marks=pytest.mark.slow),
        pytest.param(4, 4, "full", False, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_the_end_is_bit_identical(
    place: dict[str, Any], size: int, effective: int, method: str, checkpointing: bool
) -> None:
    root = place["root"]
    settings = {"effective_batch": effective, "gradient_checkpointing": checkpointing}
    name, common = f"kill{size}{effective}{method}", {"settings": settings, "method": method}
    saved = root / f"{name}.saved"
    straight = split(place, size, name, model="dropout", leave_at=6, **common)
    killed = ranks_kit.start(
        *("train", size, root / name),
        sharded=True,
        **arguments(
            *(place, "dropout"),
            save_at={"3": str(saved)},
            acts_at={"4": "die"},
            **common,
        ),
    )
    assert killed.codes == [-signal.SIGKILL] * size
    resumed = split(
        *(place, size, name),
        model="dropout",
        leave_at=6,
        restore=str(saved),
        cursor=straight[0]["metrics"][2]["cursor_to"],
        **common,
    )
    assert one(resumed, "digest") == one(straight, "digest")
    assert [r["rng"] for r in resumed] == [r["rng"] for r in straight]


def _shapes(path: Path) -> dict[str, Any]:
    return {name: (t.dtype, tuple(t.shape)) for name, t in load_file(path).items()}


def test_the_files_are_those_of_one_process_and_either_goes_on_with_them(
    place: dict[str, Any], alone: Recorder
) -> None:
    root, settings = place["root"], training(effective_batch=EFFECTIVE)
    first = split(place, 2, "files", leave_at=3, save_at={"3": str(root / "split3")})
    bench = Bench(place["plain"], settings)
    cursor = bench.run(place["prepared"], Recorder(3)).cursor
    bench.save(root / "one3")
    assert {p.name for p in (root / "split3").iterdir()} == {
        p.name for p in (root / "one3").iterdir()
    }
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert _shapes(root / "split3" / name) == _shapes(root / "one3" / name)
    for name in ("config.json", "generation_config.json", "optimizer.json"):
        mine, theirs = (json.loads((root / f / name).read_text()) for f in ("split3", "one3"))
        assert mine == theirs, name
    model = transformers.AutoModelForCausalLM.from_pretrained(root / "split3")
    assert type(model).__name__ == "Qwen3ForCausalLM"
    for name, value in bench.loaded.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    # The split one goes on in one process, and the other one split.
    second, recorder = Bench(place["plain"], settings), Recorder(5)
    second.restore(root / "split3")
    second.run(place["prepared"], recorder, cursor=cursor)
    third = split(place, 2, "on", leave_at=5, restore=str(root / "one3"), cursor=cursor)
    wanted = [m.loss for m in alone.steps[3:5]]
    assert [m.loss for m in recorder.steps] == pytest.approx(wanted, rel=2e-4)
    assert [m["loss"] for m in third[0]["metrics"]] == pytest.approx(wanted, rel=2e-4)
    assert first[0]["outcome"]["cursor"] == cursor


def test_ticks_are_looked_at_by_all_ranks_together_and_move_nothing(place: dict[str, Any]) -> None:
    settings = {"eval_steps": 2, "sample_steps": 2, "monitoring_budget": 1.0}
    saved = [place["root"] / f"split-at2-{name}" for name in ("plain", "ticks")]
    common: dict[str, Any] = {"model": "dropout", "leave_at": 4}
    plain = split(place, 2, "noticks", save_at={"2": str(saved[0])}, **common)
    # The save and the end come right after a tick, which gathered the weights.
    ticks = split(
        *(place, 2, "ticks"),
        settings=settings,
        ticks=True,
        save_at={"2": str(saved[1])},
        **common,
    )
    assert one(ticks, "parts")
    for name in ("model.safetensors", "optimizer.safetensors", "rng.json"):
        assert (saved[0] / name).read_bytes() == (saved[1] / name).read_bytes()
    assert one(ticks, "digest") == one(plain, "digest")
    assert [r["rng"] for r in ticks] == [r["rng"] for r in plain]
    assert [len(r["validations"]) for r in ticks] == [2, 0]
    assert [len(r["answers"]) for r in ticks] == [2, 0]


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        ("adamw", "full"),
        pytest.param("muon", "full", marks=pytest.mark.slow),
        pytest.param("adamw", "lora", marks=pytest.mark.slow),
    ],
)
def test_bf16_weights_are_rounded_stochastically_in_parts_too(
    place: dict[str, Any], optimizer: str, method: str
) -> None:
    """As copies learn, and bit-identical when resumed."""
    root, name = place["root"], f"bf16-{optimizer}-{method}"
    common = {
        "settings": {"optimizer": optimizer, "learning_rate": 1e-3},
        **{"method": method, "precision": "bf16", "leave_at": 5},
    }
    saved = root / f"{name}.saved"
    straight = split(place, 2, name, save_at={"3": str(saved)}, **common)
    cursor = straight[0]["metrics"][2]["cursor_to"]
    resumed = split(place, 2, name, restore=str(saved), cursor=cursor, **common)
    assert one(resumed, "digest") == one(straight, "digest")
    copies = ranks_train(place, 2, name, **common)
    losses = [[m["loss"] for m in r[0]["metrics"]] for r in (straight, copies)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    if method == "full":
        nearest = {**common["settings"], "rounding": "nearest"}
        other = split(place, 2, name, **{**common, "settings": nearest})
        assert one(other, "digest") != one(straight, "digest")


@pytest.mark.slow
def test_muon_takes_the_matrices_whole(place: dict[str, Any]) -> None:
    """torch's Muon on DTensors: the same steps as with copies."""
    settings = {"optimizer": "muon"}
    copies = ranks_train(place, 2, "muon", settings=settings, leave_at=3)
    parts = split(place, 2, "muon", settings=settings, leave_at=3)
    losses = ([m["loss"] for m in r[0]["metrics"]] for r in (parts, copies))
    assert next(losses) == pytest.approx(next(losses), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "method", "key"),
    [
        ({"optimizer": "adamw_8bit"}, "full", "training.optimizer"),
        ({"optimizer": "paged_adamw_8bit"}, "full", "training.optimizer"),
        ({"optimizer": "muon", "muon": {"rest": "adamw_8bit"}}, "full", "training.optimizer"),
        ({}, "qlora", "model.method"),
    ],
)
def test_what_needs_whole_tensors_is_refused_with_the_alternative(
    changes: dict[str, Any], method: str, key: str
) -> None:
    if "muon" in changes:
        changes["muon"] = msgspec.structs.replace(training().muon, **changes["muon"])
    with pytest.raises(ConfigError, match=key) as caught:
        check_parts(training(**changes), method)
    assert "ddp" in caught.value.mend


def test_a_quantized_base_is_refused_with_the_alternative() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ConfigError) as caught:
        shard(model, Ranks(size=1))
    assert caught.value.where == "model.method" and '"lora"' in caught.value.mend


@pytest.mark.parametrize("parallel", [False, True])
def test_the_live_state_of_a_home_is_loaded_by_all(tmp_path: Path, parallel: bool) -> None:
    """The base model is made by one of them, and a checkpoint is read by each."""
    home = Home(tmp_path / "home")
    home.create()
    first = ranks_kit.run("live", 2, tmp_path / "out", sharded=parallel, home=str(home.root))
    again = ranks_kit.run(
        *("live", 2, tmp_path / "out"), sharded=parallel, home=str(home.root), checkpoint="c1"
    )
    assert one(first, "digest") == one(again, "digest")
    assert one(again, "step") == 2
    assert [r["rng"] for r in first] == [r["rng"] for r in again]
    assert len({r["rng"] for r in first}) == 2
    # What is to be split is in a host's memory once: each rank copies its part out of the file.
    assert one(first, "mapped") == one(again, "mapped") == ([1, 0] if parallel else [0, 0])
