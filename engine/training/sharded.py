"""A model split over the ranks by FSDP2 (torch's fully_shard): for models that fit no single card.

Each rank holds a part of every weight, gradient and optimizer state, as DTensors on a mesh over all
ranks; a layer's weights are gathered while it computes. What is saved is gathered to rank 0 and is
the same files as of one process, and what is read is split again.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from engine.training.parallel import Ranks
from queue_store.errors import ConfigError

log = logging.getLogger("trainctl.engine")


def shard(model: Any, ranks: Ranks) -> None:
    """Split the model in place, layer by layer; its parameters are DTensors from then on, on the
    ranks' devices. Every rank calls it with the same weights; make the optimizer afterwards.

    Raises ConfigError where weights are in a form that has no parts.
    """
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise ConfigError(
            "a base in 4 or 8 bits is not for a split model: its weights have no parts",
            where="model.method",
            mend='use "lora", or training.parallel = "ddp"',
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(ranks.device).type, (ranks.size,))
    plain = getattr(model, "get_base_model", lambda: model)()
    names = set(getattr(plain, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers and ranks.rank == 0:
        log.warning("%s does not name its layers: it is gathered whole", type(plain).__name__)
    # The root, too, gives up what it gathered after its forward pass: else a validation would
    # leave whole tensors in the model, and an optimizer that is made next would step those.
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # accelerate leaves alone what it believes to have prepared itself: it would wrap it in DDP.
    model._is_accelerate_prepared = True


def is_part(tensor: torch.Tensor) -> bool:
    """Whether this is a DTensor (asked without importing them, which takes a while)."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: torch.Tensor, rank: int) -> torch.Tensor:
    """The tensor with the parts of all ranks, in host memory on rank 0; on the others an empty one.
    All ranks call it, in the same order; what is no DTensor is what it is."""
    if not is_part(tensor):
        return tensor.detach()
    full: torch.Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return full.cpu() if rank == 0 else full.new_empty(0)


def gathered(tensors: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """Every tensor `whole`; two names of one parameter (a tied head) share what is gathered."""
    found: dict[int, torch.Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in found:
            found[id(tensor)] = whole(tensor, rank)
    return {name: found[id(tensor)] for name, tensor in tensors.items()}


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of it."""
    return tensor.to_local() if is_part(tensor) else tensor  # type: ignore[attr-defined]


def part_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This rank's part of the whole `value`, split as `like` is; every rank has the value. Where
    `like` is not split, the value."""
    if not is_part(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        value.to(like.device),
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        src_data_rank=None,  # nothing is sent
    )


def plain_class(model: Any) -> type:
    """The model's class before fully_shard made it an FSDP one."""
    kind = type(model)
    return kind.__mro__[2] if kind.__name__.startswith("FSDP") else kind
