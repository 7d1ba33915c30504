"""The number by which ranks see that they hold the same weights."""

from __future__ import annotations

import pytest
import torch

from engine.training.fingerprint import _CHUNK, fingerprint


class Weights(torch.nn.Module):
    def __init__(self, *tensors: torch.Tensor) -> None:
        super().__init__()
        self.all = torch.nn.ParameterList(torch.nn.Parameter(t, False) for t in tensors)


def drawn(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 7, 4096, 2 * _CHUNK + 5])
def test_one_bit_or_two_numbers_in_each_others_place_change_it(
    count: int, dtype: torch.dtype
) -> None:
    before = fingerprint(Weights(drawn(count, dtype)))
    assert fingerprint(Weights(drawn(count, dtype))) == before
    for place in {0, count // 2, count - 1}:
        other = drawn(count, dtype)
        other.view(torch.int16 if dtype.itemsize == 2 else torch.int32)[place] ^= 1
        assert fingerprint(Weights(other)) != before
    if count > 1:
        for there in (1, count - 1):
            other = drawn(count, dtype)
            other[[0, there]] = other[[there, 0]]
            assert fingerprint(Weights(other)) != before


def test_which_tensor_holds_what_counts_and_where_it_lies_does_not() -> None:
    a, b = drawn(16), drawn(16) + 1
    assert fingerprint(Weights(a, b)) != fingerprint(Weights(b, a))
    assert fingerprint(Weights(a)) != fingerprint(Weights(a.view(4, 4)))
    moved = torch.cat([drawn(1), a])[1:]
    assert moved.storage_offset() % 2 and fingerprint(Weights(moved)) == fingerprint(Weights(a))
    assert fingerprint(Weights(torch.empty(0))) == fingerprint(Weights(torch.empty(0)))
