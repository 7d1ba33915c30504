"""What a LoRA adapter adds to which tensor of its base model, by peft's own arithmetic.

The model is built without memory for its weights and peft puts the adapter's layers into it, so
that scaling (also rank-stabilized), ranks and alphas by pattern and the orientation of a weight
are what peft says they are. What is no plain sum of base and B·A is refused, with the word for it.
Only inside the child process of engine.adapters.write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.adapters.refusal import CannotMerge

PREFIX = "base_model.model."
NAME = "default"
PLAIN_STARTS = (True, False, "gaussian")
"""Values of init_lora_weights that leave the base as it is; others train beside a changed one."""

EXCLUDED = {
    "modules_to_save": "it replaces whole layers",
    "use_dora": "DoRA scales the sum by its columns' norms",
    "lora_bias": "it has biases of its own",
    "target_parameters": "it changes parameters that are no layers of their own",
    "layer_replication": "it repeats layers of the base model",
    "trainable_token_indices": "it trains single tokens of the embedding",
    "megatron_config": "it is split for Megatron",
    "use_qalora": "QA-LoRA groups its inputs",
    "alora_invocation_tokens": "it acts on a part of each text",
    "use_bdlora": "it is split in blocks",
    "arrow_config": "it routes between adapters",
    "monteclora_config": "it draws its weights",
}
"""What peft's LoraConfig can ask for beyond the plain sum, and why that is no merge."""


@dataclass(frozen=True)
class Target:
    """A tensor of the base model's files that the adapter changes: `shape` is the one that it must
    have, `layer` peft's with the adapter's numbers in it."""

    name: str
    shape: tuple[int, ...]
    layer: Any
    embedding: bool
    copied: torch.Tensor | None = None
    """The base's tensor as the adapter's file repeats it: peft saves embeddings so."""

    @torch.no_grad()
    def add_to(self, weight: torch.Tensor) -> None:
        """Add scaling · B·A, computed in fp32, in place: what peft's `merge_and_unload` does.
        Raises CannotMerge where the adapter has a base tensor of its own."""
        if self.copied is not None and not torch.equal(weight, self.copied.to(weight.dtype)):
            raise CannotMerge(f"it has a {self.name} of its own, which is not the base model's")
        delta = self.layer.get_delta_weight(NAME)
        # peft rounds an embedding's first, and lets a matrix be summed in fp32 and rounded once.
        weight += delta.to(weight.dtype) if self.embedding else delta


def targets(base: Path, adapter: Path, tensors: dict[str, torch.Tensor]) -> dict[str, Target]:
    """By the name of the base's tensor, what the adapter in the folder `adapter`, whose file holds
    `tensors`, adds there. Raises CannotMerge."""
    import peft

    asked = peft.PeftConfig.from_pretrained(str(adapter))
    if not isinstance(asked, peft.LoraConfig):
        raise CannotMerge(f"it is a {asked.peft_type} adapter, and only LoRA is a sum")
    for key, why in EXCLUDED.items():
        if getattr(asked, key, None):
            raise CannotMerge(f"{why} ({key})")
    if asked.bias != "none":
        raise CannotMerge(f'it trained biases of the base model (bias = "{asked.bias}")')
    if asked.init_lora_weights not in PLAIN_STARTS:
        raise CannotMerge(
            f"it began beside a changed base (init_lora_weights = {asked.init_lora_weights!r})"
        )
    model = _empty_model(base)
    shared = {id(p) for p in model.parameters() if _names(model, p) > 1}
    try:
        wrapped = peft.get_peft_model(model, asked, low_cpu_mem_usage=True)
    except ValueError as error:
        raise CannotMerge(str(error).splitlines()[0]) from None
    found: dict[str, Target] = {}
    left = set(tensors)
    for full, layer in _layers(wrapped):
        target, used = _target(full, layer, tensors)
        if id(layer.get_base_layer().weight) in shared:
            raise CannotMerge(
                f"{target.name} is the embedding and the head in one (tied), and the adapter"
                " changes only one of them"
            )
        found[target.name] = target
        left -= used
    if left:
        raise CannotMerge(f"nothing is known to do with its tensor {min(left)}")
    if not found:
        raise CannotMerge("it changes no layer of the base model")
    return found


def _empty_model(base: Path) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(base, local_files_only=True)
    if getattr(config, "quantization_config", None) is not None:
        raise CannotMerge("its base model's files are quantized, and a sum would not fit them")
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def _names(model: Any, wanted: torch.Tensor) -> int:
    """Under how many names a model has a parameter: more than one is a tied one."""
    return sum(p is wanted for m in model.modules() for p in m._parameters.values())


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _target(full: str, layer: Any, tensors: dict[str, torch.Tensor]) -> tuple[Target, set[str]]:
    """The target of one of peft's layers, with the adapter's numbers in it, and the names of the
    tensors that are accounted for by it."""
    from peft.tuners import lora

    name = f"{full.removeprefix(PREFIX)}.weight"
    if type(layer) not in (lora.Linear, lora.Embedding) or layer.lora_variant:
        raise CannotMerge(f"{name} is of a kind that is no plain matrix ({type(layer).__name__})")
    embedding = type(layer) is lora.Embedding
    if embedding:
        keys = f"{full}.lora_embedding_A", f"{full}.lora_embedding_B"
    else:
        keys = f"{full}.lora_A.weight", f"{full}.lora_B.weight"
    halves = []
    own = (layer.lora_embedding_A, layer.lora_embedding_B) if embedding else None
    mine = own or (layer.lora_A, layer.lora_B)
    for key, half in zip(keys, mine, strict=True):
        if key not in tensors:
            raise CannotMerge(f"its file has no tensor {key}")
        expected = (half[NAME] if embedding else half[NAME].weight).shape
        if tensors[key].shape != expected:
            raise CannotMerge(
                f"its tensor {key} is {tuple(tensors[key].shape)}, its settings say"
                f" {tuple(expected)}"
            )
        # As peft loads an adapter: in fp32, whatever the file has.
        halves.append(torch.nn.Parameter(tensors[key].float(), requires_grad=False))
    for half, value in zip(mine, halves, strict=True):
        if embedding:
            half[NAME] = value
        else:
            half[NAME].weight = value
    shape = tuple(layer.get_base_layer().weight.shape)
    repeated = f"{full}.base_layer.weight"
    made = Target(name, shape, layer, embedding, tensors.get(repeated))
    return made, {*keys, repeated}
