"""The module whose forward pass trains: the model itself, or its copy among the ranks' (DDP)."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from engine.training.parallel import Ranks


def wrap(model: Any, ranks: Ranks) -> Any:
    """`model` as it trains on these ranks. A split model (sharded.py) is wrapped already."""
    if ranks.size == 1 or ranks.sharded:
        return model
    card = torch.device(ranks.device)
    # What DDP says of the arguments below is known: that find_unused_parameters costs a walk over
    # the graph, and that torch 2.13 has another name for broadcast_buffers, which 2.9 has not.
    for known in ("find_unused_parameters=True was specified", "`broadcast_buffers` is deprecated"):
        warnings.filterwarnings("ignore", message=known)
    return torch.nn.parallel.DistributedDataParallel(
        model,
        device_ids=None if card.type == "cpu" else [card],
        # Gradients are summed in buckets, and the order of a sum over more than two ranks depends
        # on the place in the bucket. Without this DDP makes new buckets after its first step, so
        # that a run that was resumed there would not be bit-identical. No parameter is unused; the
        # walk over the graph is once a step (2 % of one of builtin:tiny with a single batch).
        find_unused_parameters=ranks.size > 2,
        # A gradient is a view of its bucket: they do not stand in memory twice.
        gradient_as_bucket_view=True,
        # Of constants (rotary frequencies), which are the same everywhere.
        broadcast_buffers=False,
        # The ranks have read the same weights. Sending rank 0's would only hide that one drifted,
        # which a save finds.
        init_sync=False,
    )
