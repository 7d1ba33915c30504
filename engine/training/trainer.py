"""transformers' Trainer for one epoch part of an item: thin overrides, no loop of our own.

A Trainer is made for every part, on the live model, optimizer and schedule, and must be cheap to
make. It writes nothing, prints nothing, and draws nothing from training's generators.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from engine.prepare.collate import collate
from engine.training.position import Packs
from engine.training.split import NO_PACK, NOTHING, RankBatches
from queue_store.config import Training
from queue_store.errors import TrainctlError


class PackDataset(Dataset[Any]):
    """Packs of `prepared` in the order given; map-style, so that it starts anywhere at no cost.
    NO_PACK is a pack of which nothing trains."""

    def __init__(self, prepared: Packs, packs: np.ndarray) -> None:
        self.prepared = prepared
        self.packs = packs

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> Any:
        return NOTHING if index == NO_PACK else self.prepared.sequence(int(self.packs[index]))


class Collator:
    """Sequences to a batch, with `tokens`: how many of them are no padding; and with its `longest`
    row as (tokens, line of the file)."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, sequences: list[Any]) -> dict[str, Any]:
        batch: dict[str, Any] = dict(collate(sequences, pad_id=self.pad_id))
        batch["tokens"] = sum(len(s.input_ids) for s in sequences if s is not NOTHING)
        batch["longest"] = max(s.longest_row for s in sequences)
        return batch


def make_loader(
    dataset: PackDataset, batches: RankBatches, pad_id: int, pin: bool
) -> DataLoader[Any]:
    """The batches in their order. It has a generator of its own: making an iterator draws a seed,
    which would move training's."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=Collator(pad_id),
        pin_memory=pin,
        generator=torch.Generator(),
    )


def arguments(training: Training, device: str, size: int = 1) -> TrainingArguments:
    """Everything periodic is off: ticks, saves and logs are the run's. `size`: of the ranks."""
    args = TrainingArguments(
        # Never written to: nothing saves. An existing folder, since Trainer makes it.
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.effective_batch // (training.batch_size * size),
        # A step's loss is divided by the trained tokens of all ranks.
        average_tokens_across_devices=True,
        num_train_epochs=1,
        max_grad_norm=training.max_grad_norm,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        seed=training.seed,
    )
    # One process trains on one GPU: without this, a second one would mean nn.DataParallel.
    if args.device.type == "cuda":
        args._n_gpu = 1
    return args


def _free_nothing(*objects: Any) -> list[Any]:
    """A new accelerator holds nothing that could be freed."""
    return list(objects)


class StepTrainer(Trainer):
    """Keeps the loss, the gradient norm and the tokens of the step, as tensors: nothing here
    waits for the GPU. With several ranks `module` is the model as it trains on `size` of them
    (wrapping.wrap); tokens are this rank's part of the step's, and so is the loss, times `size`,
    because DDP and FSDP take the mean of the ranks' gradients."""

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        loader: DataLoader[Any],
        optimizers: tuple[Any, Any],
        callback: TrainerCallback,
        size: int = 1,
        module: Any = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=loader.dataset,
            optimizers=optimizers,
            callbacks=[callback],
        )
        self.remove_callback(PrinterCallback)
        # Else accelerate passes the optimizer's state through load_state_dict, once an item:
        # a deep copy of it with bitsandbytes, and paged states end up in plain GPU memory.
        self.accelerator.device_placement = False
        # Else every item begins with a full garbage collection, 0.3 s with the interpreter's lock.
        self.accelerator.free_memory = _free_nothing
        if self.accelerator.num_processes != size:
            raise TrainctlError(
                f"accelerate trains in {self.accelerator.num_processes} processes, not in {size}",
                where="training.processes",
                mend="start trainctl without torchrun: it starts its processes itself",
            )
        self._module = module if module is not None else model
        self._loader = loader
        self.step_loss: torch.Tensor | None = None
        self.step_grad_norm: Any = None
        self.step_tokens = 0
        self.longest: tuple[int, int] | None = None
        """The longest row of the batch that is computed, and of the step's once it is computed,
        as (tokens, line); None between two steps."""
        self._longest_of_step = (0, 0)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loader

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        self.step_tokens += inputs.pop("tokens")
        self.longest = tuple(inputs.pop("longest"))
        self._longest_of_step = max(self._longest_of_step, self.longest)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.longest = self._longest_of_step
        # Each part is divided by the whole step's tokens, so the sum is the step's mean.
        self.step_loss = loss if self.step_loss is None else self.step_loss + loss
        return loss

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """Ours is wrapped already: accelerate then prepares the optimizer alone."""
        return self._module

    def take_step(self) -> tuple[torch.Tensor, Any, int]:
        """(loss, gradient norm, tokens) of the step just done; begins the next one."""
        loss, tokens = self.step_loss, self.step_tokens
        assert loss is not None
        self.step_loss, self.step_tokens = None, 0
        self.longest, self._longest_of_step = None, (0, 0)
        return loss, self.step_grad_norm, tokens

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        """Trained tokens of the step; at least one, so that a step with none has the loss 0."""
        count = super()._get_num_items_in_batch(batch_samples, device)
        return count.clamp(min=1) if isinstance(count, torch.Tensor) else count

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        self.step_grad_norm = super()._get_grad_norm(model, grad_norm)
        return self.step_grad_norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not used; the original walks over all parameters for every batch."""
        return 0
