"""Whether this machine has the memory for a model that a job would load beside training."""

from __future__ import annotations

from pathlib import Path

import psutil

from engine.judging import evaluating
from engine.training.base import base_here
from evaluation.host.shipment import ADAPTER
from queue_store.config import Config
from queue_store.database import State
from queue_store.errors import TrainctlError

WIDER = 2
"""A CPU computes in fp32 what may lie on the disk in bf16."""
BESIDE = 1 << 30
"""Bytes of the worker itself: torch, and what an answer needs."""


def missing_memory(state: State, config: Config, model: str) -> str:
    """Why a model does not fit into the free memory, with the figures; "" where it does, and where
    the model is not here (its job says so)."""
    try:
        folder = evaluating.model(state, config, model).folder
    except TrainctlError:
        return ""
    size = _weights(folder)
    if (folder / ADAPTER).is_file():
        base = base_here(state.home, config.model.base, config.training.seed)
        size += _weights(base) if base is not None else 0
    needed, free = WIDER * size + BESIDE, psutil.virtual_memory().available
    if needed <= free:
        return ""
    return (
        f"{needed / 1e9:.1f} GB of memory are needed to ask {model} here, {free / 1e9:.1f} GB are"
        " free; name a host in [hosts]"
    )


def _weights(folder: Path) -> int:
    """Bytes of the weights in a model's folder, without an optimizer's."""
    files = [p for p in folder.glob("*.safetensors") if not p.name.startswith("optimizer")]
    return sum(path.stat().st_size for path in files)
