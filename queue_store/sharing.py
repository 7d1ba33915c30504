"""Whether several processes can share the steps that `[training]` asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queue_store.errors import ConfigError

if TYPE_CHECKING:
    from queue_store.config import Config, Training


def check_processes(config: Config, path: str = "") -> None:
    """Raises ConfigError, with the key and `path` before it, where the processes that `config`
    names cannot train its settings. Of processes = "auto" that is known when they are started."""
    training = config.training
    if training.processes == "auto":
        return
    size = training.processes * config.launch.nodes
    check_shared(training, size, path)
    if size > 1 and training.parallel == "fsdp":
        check_parts(training, config.model.method, path)


def check_shared(training: Training, size: int, path: str = "") -> None:
    """Raises ConfigError, with the key and `path` before it, where `size` processes cannot train
    these settings together."""
    at = f"{path}: " if path else ""
    if size > 1 and training.in_backward:
        raise ConfigError(
            f"the gradients of {size} processes are summed before a parameter can be stepped",
            where=f"{at}training.in_backward",
            key="training.in_backward",
            mend='set it to false; training.parallel = "fsdp" saves the memory of gradients too',
        )
    whole = training.batch_size * size
    if training.effective_batch % whole == 0:
        return
    near = [str(n * whole) for n in (training.effective_batch // whole,) if n]
    near.append(str((training.effective_batch // whole + 1) * whole))
    raise ConfigError(
        f"effective_batch {training.effective_batch} is not a multiple of batch_size"
        f" {training.batch_size} x {size} processes, of which each trains as many packed sequences"
        " of a step as the others",
        where=f"{at}training.effective_batch",
        key="training.effective_batch",
        mend=f"set it to {' or '.join(near)}, or change training.processes",
    )


def check_parts(training: Training, method: str, path: str = "") -> None:
    """Raises ConfigError where an optimizer or a method cannot work on parts of tensors, as a model
    has them that is split over processes (FSDP2)."""
    at = f"{path}: " if path else ""
    muon8 = training.optimizer == "muon" and training.muon.rest == "adamw_8bit"
    if muon8 or "8bit" in training.optimizer:
        raise ConfigError(
            "bitsandbytes' kernels know no parts of a tensor, which a split model has",
            where=f"{at}training.optimizer",
            key="training.optimizer",
            mend='use "adamw", whose states are split over the processes, or training.parallel ='
            ' "ddp"',
        )
    if method == "qlora":
        raise ConfigError(
            "a 4-bit base cannot be split over processes: bitsandbytes' tensors have no parts",
            where=f"{at}model.method",
            key="model.method",
            mend='use training.parallel = "ddp", where each process holds the 4-bit base',
        )
