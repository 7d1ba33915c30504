"""Copies of a state in host memory: complete, apart from what trains, and bounded."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from engine.training.hostcopy import SPARE, HostBuffers, free_memory, size_of


def test_a_copy_is_complete_and_apart_and_shared_memory_is_copied_once() -> None:
    tied = torch.randn(40, 30)
    tensors = {
        "a": tied,
        "b": tied.detach(),
        "turned": torch.randn(8, 6).t(),
        "half": torch.randn(7).to(torch.bfloat16),
        "empty": torch.empty(0),
        "number": torch.tensor(3.0),
    }
    wanted = {name: tensor.clone() for name, tensor in tensors.items()}
    copies = HostBuffers().copy(tensors)
    for tensor in tensors.values():
        tensor.fill_(9)
    for name, tensor in copies.items():
        assert torch.equal(tensor, wanted[name]) and tensor.dtype == wanted[name].dtype, name
        assert tensor.is_contiguous()
    assert copies["a"].data_ptr() == copies["b"].data_ptr()
    assert size_of(tensors) == tied.nbytes + 8 * 6 * 4 + 7 * 2 + 4


def test_the_memory_is_used_again_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, tensors = HostBuffers(), {"a": torch.randn(100), "b": torch.randn(3, 3)}
    first = buffers.copy(tensors)
    assert buffers.held == size_of(tensors)
    tensors["b"] = torch.randn(5)  # the optimizer is another one now
    second = buffers.copy(tensors)
    assert second["a"].data_ptr() == first["a"].data_ptr()
    assert torch.equal(second["b"], tensors["b"])
    monkeypatch.setattr("engine.training.hostcopy.free_memory", lambda: int(SPARE * buffers.held))
    buffers.trim()
    assert buffers.held == size_of(tensors)
    monkeypatch.setattr(
        "engine.training.hostcopy.free_memory", lambda: int(SPARE * buffers.held) - 1
    )
    buffers.trim()
    assert buffers.held == 0


def test_a_copy_asks_for_half_as_much_memory_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.hostcopy.free_memory", lambda: 1500)
    buffers = HostBuffers()
    assert buffers.fit(1000) and not buffers.fit(1001)


def test_free_memory_is_that_of_the_machine_or_of_the_container(tmp_path: Path) -> None:
    available = psutil.virtual_memory().available
    assert abs(free_memory(tmp_path) - available) < available / 2
    for name, text in (
        ("memory.max", "4000000\n"),
        ("memory.current", "3000000\n"),
        ("memory.stat", "anon 1\ninactive_file 500000\n"),
    ):
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) > 1_500_000
