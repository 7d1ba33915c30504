"""A number for the bytes of a model's weights, cheap enough to be asked at every save.

It finds ranks that drifted apart; it is no protection against a forger. Each tensor's words are
summed with odd factors that depend on their place, modulo 2^64: one pass at the speed of memory, on
the device that holds the weights, the same on every machine.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

_CHUNK = 1 << 20
"""Words of 8 bytes at once: of the factors and of the products, 8 MB each."""

_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 over the golden ratio (Knuth's multiplicative hashing), as a signed number."""


@torch.no_grad()
def fingerprint(model: Any) -> str:
    """Of all weights with their names, dtypes and shapes, in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    factors: dict[torch.device, torch.Tensor] = {}
    sums: list[torch.Tensor] = []
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        device = tensor.device
        if device not in factors:
            places = torch.arange(1, _CHUNK + 1, dtype=torch.int64, device=device)
            factors[device] = places.mul_(_FACTOR).bitwise_or_(1)
        sums.append(_sum(tensor, factors[device]))
    for total in torch.stack(sums).tolist():  # waits for a GPU once
        digest.update(total.to_bytes(8, "little", signed=True))
    return digest.hexdigest()


def _sum(tensor: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if flat.storage_offset() % 8:
        flat = flat.clone()
    whole = flat.numel() // 8 * 8
    total = (flat[whole:].to(torch.int64) * factors[: flat.numel() - whole]).sum()
    for number, words in enumerate(flat[:whole].view(torch.int64).split(_CHUNK)):
        total += (words * factors[: words.numel()]).sum() * (2 * number + 3)
    return total
