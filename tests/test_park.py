"""`pause --park` gives the memory back and goes on exactly: the host's here, a card's by NVML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from engine.training.freeing import Pages
from tests import engine_kit as kit
from tests.training_kit import make_model_folder
from tests.waiting import wait_until


def home_of(folder: Path, hidden: int, **training: Any) -> Any:
    base = folder.parent / f"model{hidden}"
    if not base.exists():
        make_model_folder(base, hidden=hidden)
    home = kit.make_home(folder, model={"name": "big", "base": str(base)}, training=training)
    kit.add(home, "a.jsonl", 24)
    return home


def parked(running: kit.Running) -> None:
    running.ask("pause", park=True)
    worker = running.engine.worker
    assert worker is not None
    wait_until(lambda: worker.live is None, timeout=60)
    assert running.status["state"] == "paused"


def test_parked_the_host_s_memory_is_given_back_and_the_end_is_the_same(tmp_path: Path) -> None:
    home = home_of(tmp_path / "parked", 512)
    process = psutil.Process()
    with kit.Running(home) as running:
        running.pause_at(2)
        live = running.engine.worker.live  # type: ignore[union-attr]
        assert live is not None
        weights = sum(p.nbytes for p in live.loaded.model.parameters())
        states = sum(
            v.nbytes
            for state in live.optimizer.state.values()
            for v in state.values()
            if isinstance(v, torch.Tensor)
        )
        assert states >= 2 * weights > 30e6
        del live
        before = process.memory_info().rss
        parked(running)
        wait_until(
            lambda: before - process.memory_info().rss > 0.9 * (weights + states), timeout=10
        )
        running.ask("resume")
        running.wait_trained()
    clean = home_of(tmp_path / "clean", 512)
    assert kit.head(home).weights_digest == kit.train_all(clean)


def test_pages_of_an_optimizer_that_is_gone_are_used_by_the_next() -> None:
    """bitsandbytes would keep them, and make new ones."""
    parameter = torch.nn.Parameter(torch.zeros(6, 4))
    optimizer = torch.optim.SGD([parameter])
    paged, plain = torch.ones(6, 4, dtype=torch.uint8), torch.ones(2)
    paged.is_paged = True  # type: ignore[attr-defined]
    optimizer.state[parameter] = {"state1": paged, "absmax1": plain, "step": 3}
    pages = Pages()
    pages.give(optimizer)
    # Written by the host, which is what brings pages from the card; not at the next use of them.
    assert not bool(paged.any()) and bool(plain.all()) and not optimizer.state
    assert pages.take(torch.Size([6, 4]), torch.float32) is None
    assert pages.take(torch.Size([4, 6]), torch.uint8) is None
    taken = pages.take(torch.Size([6, 4]), torch.uint8)
    assert taken is paged and not bool(taken.any())
    assert pages.take(torch.Size([6, 4]), torch.uint8) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw_8bit"])
def test_parked_the_card_s_memory_is_given_back_and_the_end_is_the_same(
    tmp_path: Path, optimizer: str
) -> None:
    """All that torch had of it, as NVML counts. What stays is CUDA's context with the kernels that
    it loaded, which only the end of the process gives back."""
    import pynvml

    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)

    def used() -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(card).used)

    home = home_of(tmp_path / "parked", 2048, optimizer=optimizer, deterministic=True)
    with kit.Running(home) as running:
        running.pause_at(2)
        full, reserved = used(), torch.cuda.memory_reserved()
        assert reserved > 150e6
        parked(running)
        wait_until(
            lambda: full - used() > 0.9 * reserved,
            timeout=10,
            what=f"{reserved} bytes back of {full} (torch has {torch.cuda.memory_reserved()})",
        )
        running.ask("resume")
        running.wait_trained()
    clean = home_of(tmp_path / "clean", 2048, optimizer=optimizer, deterministic=True)
    assert kit.head(home).weights_digest == kit.train_all(clean)
