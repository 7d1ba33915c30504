"""Stochastic rounding: float32 to bf16, up or down with the chances that keep the mean.

bf16 has 8 bits of a number: an update smaller than 1/256 of its weight is lost when it is rounded
to the nearest, always, and arrives on average when the side is drawn (Gupta et al. 2015; Zamirai
et al. 2021, "Revisiting BFloat16 Training"). The bits that are drawn are a function of (seed, step,
parameter), so nothing of them is saved, and ticks and dropout neither move them nor are moved.
"""

from __future__ import annotations

import hashlib

import torch

CHUNK = 1 << 22
"""Numbers that are computed at once in float32: a multiple of 256, the block of 8-bit states.
The bits that a number gets depend on it."""


class Draws:
    """Random bits by (seed, step, parameter). One generator a device, seeded anew each time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def of(self, step: int, name: str, device: torch.device) -> torch.Generator:
        """The generator for the step after `step` global steps, of the parameter `name`; the bits
        of its chunks follow each other."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        key = f"{self.seed} {step} {name}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return self._generators[device].manual_seed(int.from_bytes(digest, "big") >> 1)


@torch.no_grad()
def round_into(target: torch.Tensor, source: torch.Tensor, generator: torch.Generator) -> None:
    """Write `source` (float32 [n], overwritten) into `target` (bf16 [n]), each number as one of its
    two neighbours in bf16.

    A bf16 is the upper half of a float32: what the lower half holds is the chance of the upper
    neighbour, in 1/65536, for denormal numbers too; numbers that bf16 has, infinities and -0.0
    stay. Takes 5 more bytes a number in passing.
    """
    none = source != source
    bits = source.view(torch.int32)
    noise = torch.empty_like(bits).random_(0, 1 << 16, generator=generator)
    target.view(torch.int16).copy_(bits.add_(noise).bitwise_right_shift_(16))
    # The bits of a NaN would carry over, into an infinity or a zero.
    target.masked_fill_(none, float("nan"))
