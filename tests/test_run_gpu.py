"""On an NVIDIA card: a bf16 training step, and exact continuation with deterministic kernels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from engine.training.model import configure_process
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adamw_8bit", "paged_adamw_8bit"])
def test_bf16_trains_and_goes_on_exactly(tmp_path: Path, optimizer: str) -> None:
    folder = make_model_folder(tmp_path / "model", dropout=0.1, hidden=256)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 24), folder, tmp_path / "home")
    settings = training(optimizer=optimizer, deterministic=True, learning_rate=1e-3)
    configure_process(settings)

    def bench() -> Bench:
        return Bench(folder, settings, precision="bf16", device="cuda:0")

    straight, recorder = bench(), Recorder()
    straight.run(prepared, recorder)
    assert straight.loaded.dtype == "bf16"
    assert all(p.dtype is torch.bfloat16 for p in straight.loaded.model.parameters())
    assert all(math.isfinite(m.loss) and m.memory > 0 for m in recorder.steps)
    first, second = bench(), bench()
    stopped = first.run(prepared, Recorder(leave_at=3))
    second.restore(first.save(tmp_path / "state"))
    second.run(prepared, Recorder(), cursor=stopped.cursor)
    assert second.digest() == straight.digest()


def test_beside_a_4_bit_base_it_goes_on_exactly_in_less_memory(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "model", dropout=0.1, hidden=512)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 24), folder, tmp_path / "home")
    settings = training(deterministic=True, learning_rate=1e-3, gradient_checkpointing=True)
    configure_process(settings)

    def bench(method: str = "qlora") -> Bench:
        return Bench(folder, settings, method, precision="bf16", device="cuda:0")

    def taken(method: str) -> int:
        before = torch.cuda.memory_allocated()
        made = bench(method)
        assert made.loaded.method == method
        return torch.cuda.memory_allocated() - before

    assert taken("qlora") < 0.7 * taken("lora")
    straight, recorder = bench(), Recorder()
    straight.run(prepared, recorder)
    assert all(math.isfinite(m.loss) for m in recorder.steps)
    first, second = bench(), bench()
    stopped = first.run(prepared, Recorder(leave_at=3))
    second.restore(first.save(tmp_path / "state"))
    second.run(prepared, Recorder(), cursor=stopped.cursor)
    assert second.digest() == straight.digest()
