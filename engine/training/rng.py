"""The random number generators that training draws from: Python, numpy, torch on every device.

Ticks and the construction of Trainers must not move them: `preserve_rng` sees to it. With several
ranks each has its own, so that dropout differs between them; a saved state holds those of all.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.training.parallel import ALONE, Ranks

log = logging.getLogger("trainctl.engine")


@dataclass(frozen=True)
class RngState:
    """One moment of all generators. `cuda` holds the state of the GPU that trains, if one does:
    asking the other ones would make a context on each, 0.4 GB of their memory."""

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    torch: Tensor
    cuda: tuple[Tensor, ...]


def seed_rng(seed: int) -> None:
    """Set every generator from `seed` (the beginning of a home's training)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # and every GPU's


def seed_rank(seed: int, step: int, rank: int) -> None:
    """Set the generators of a rank that begins at global step `step`: rank 0's from `seed`, as in
    one process, the others' from all three."""
    if rank:
        digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=7).digest()
        seed = int.from_bytes(digest, "big")
    seed_rng(seed)


def capture_rng() -> RngState:
    return RngState(
        python=random.getstate(),
        numpy=dict(np.random.get_state(legacy=False)),
        torch=torch.get_rng_state(),
        cuda=(torch.cuda.get_rng_state(),) if torch.cuda.is_initialized() else (),
    )


def set_rng(state: RngState) -> None:
    """Bring the generators back to `state`; a GPU's only where the state has one."""
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.torch)
    if state.cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.cuda[0])


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Whatever is drawn inside is not missed outside."""
    state = capture_rng()
    try:
        yield
    finally:
        set_rng(state)


def _text(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.numpy().tobytes()).decode()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def rng_to_json(state: RngState) -> dict[str, Any]:
    """Exact, as plain JSON values."""
    version, internal, gauss = state.python
    mt = state.numpy
    return {
        "python": {"version": version, "state": list(internal), "gauss": gauss},
        "numpy": {
            "bit_generator": mt["bit_generator"],
            "key": [int(x) for x in mt["state"]["key"]],
            "pos": int(mt["state"]["pos"]),
            "has_gauss": int(mt["has_gauss"]),
            "gauss": float(mt["gauss"]),
        },
        "torch": _text(state.torch),
        "cuda": [_text(one) for one in state.cuda],
    }


def rng_from_json(raw: dict[str, Any]) -> RngState:
    """The reverse of `rng_to_json`. Raises KeyError or ValueError on damage."""
    python, mt = raw["python"], raw["numpy"]
    return RngState(
        python=(python["version"], tuple(python["state"]), python["gauss"]),
        numpy={
            "bit_generator": mt["bit_generator"],
            "state": {"key": np.array(mt["key"], dtype=np.uint32), "pos": mt["pos"]},
            "has_gauss": mt["has_gauss"],
            "gauss": mt["gauss"],
        },
        torch=_bytes(raw["torch"]),
        cuda=tuple(_bytes(one) for one in raw["cuda"]),
    )


def ranks_rng_to_json(ranks: Ranks = ALONE) -> dict[str, Any]:
    """This moment of the generators of all ranks, on every rank: rank 0's as `rng_to_json` has it,
    and under "others" those of the ranks after it. Called by all."""
    first, *others = ranks.collect(rng_to_json(capture_rng()))
    return {**first, "others": others} if others else dict(first)


def set_ranks_rng(raw: dict[str, Any], ranks: Ranks, *, seed: int, step: int) -> None:
    """Bring this rank's generators to what `ranks_rng_to_json` saved at global step `step`. Where
    another number of ranks saved it, rank 0's go on and the others' begin anew.

    Raises KeyError, ValueError or TypeError on damage.
    """
    saved = [raw, *raw.get("others", [])]
    if len(saved) == ranks.size or ranks.rank == 0:
        set_rng(rng_from_json(saved[ranks.rank]))
    else:
        seed_rank(seed, step, ranks.rank)
    if len(saved) != ranks.size and ranks.rank == 0:
        log.info(
            "the state of step %d is of %d processes, %d go on: equal in loss, not bit-identical",
            *(step, len(saved), ranks.size),
        )
