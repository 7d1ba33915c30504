"""What a deep verification looks at, part by part: each function returns what it saw, in a few
words, and raises what it found wrong.

Only inside the child process of engine.verify.deep_verify: the models loaded here are thrown away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers

from engine.training.loss_path import LossPath
from engine.training.model import LoadedModel, load_model
from engine.training.optim import by_rule, make_optimizer
from engine.training.optimizer_state import GROUPS, TENSORS, restore_optimizer
from engine.training.quiet import quiet
from engine.training.rng import rng_from_json, set_rng
from engine.training.state import ADAPTER, INFO, RNG, TOKENIZER_FILES, read_info, restore_weights
from queue_store.config import Lora, Training, default
from queue_store.errors import ConfigError, VerificationFailed

SHAPED = ("exp_avg", "exp_avg_sq", "momentum_buffer", "state1", "state2")
"""Tensors of an optimizer that have a number for each of the parameter's."""

TOKENS = 16
"""Length of the row that is computed."""


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def _dtype(folder: Path) -> str:
    """What to load the weights in: as they trained, else as they lie there."""
    info = folder / INFO
    if info.is_file():
        return str(read_info(folder).get("dtype"))
    from safetensors import safe_open

    path = next(iter(sorted(folder.glob("model*.safetensors"))), None)
    if path is None:
        return "fp32"
    with safe_open(path, framework="pt") as file:
        first = next(iter(file.keys()))
        return "bf16" if file.get_slice(first).get_dtype() == "BF16" else "fp32"


def load(folder: Path, base: Path | None) -> LoadedModel:
    """The model of a version's folder, on the CPU, with every tensor of it and no other.

    `base` is the base model's folder, where the version is an adapter; it is loaded in full
    precision, also for one that trained beside a 4-bit base: nothing is quantized to be looked at.
    """
    if base is None:
        return _load_full(folder)
    settings = default()
    raw = json.loads((folder / "adapter_config.json").read_bytes())
    targets = raw["target_modules"]
    lora = Lora(
        r=int(raw["r"]),
        alpha=int(raw["lora_alpha"]),
        dropout=float(raw["lora_dropout"]),
        targets=sorted(targets) if isinstance(targets, list) else [str(targets)],
    )
    model = msgspec.structs.replace(
        settings.model, method="lora", precision=_dtype(folder), attention="sdpa", lora=lora
    )
    training = msgspec.structs.replace(
        settings.training, liger="off", chunked_loss="off", gradient_checkpointing=False
    )
    loaded = load_model(base, model, training, device="cpu")
    # Weights without a training state may be another program's, in another dtype.
    restore_weights(folder, loaded, cast=not (folder / INFO).is_file())
    return loaded


def _load_full(folder: Path) -> LoadedModel:
    quiet()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    name = _dtype(folder)
    models: Any = transformers.AutoModelForCausalLM
    found, told = models.from_pretrained(
        folder,
        dtype=torch.bfloat16 if name == "bf16" else torch.float32,
        attn_implementation="sdpa",
        local_files_only=True,
        output_loading_info=True,
    )
    # The library fills what is missing with random numbers and leaves out what it does not know.
    for kind, what in (
        ("missing_keys", "is missing"),
        ("mismatched_keys", "has another shape"),
        ("unexpected_keys", "is none of the model's"),
        ("error_msgs", ""),
    ):
        for key in sorted(map(str, told.get(kind) or ())):
            raise VerificationFailed(f"the tensor {key} {what}".strip())
    tokenizer: Any = None  # imported weights may have come without one: the base model's is used
    if any((folder / file).is_file() for file in TOKENIZER_FILES):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    parameters = sum(p.numel() for p in found.parameters())
    return LoadedModel(
        model=found,
        tokenizer=tokenizer,
        folder=folder,
        name=folder.name,
        method="full",
        dtype=name,
        device="cpu",
        parameters=parameters,
        trained=parameters,
        loss=LossPath(found),
    )


def _training(folder: Path) -> Training:
    training = default().training
    if not (folder / INFO).is_file():
        return training
    return by_rule(training, str(read_info(folder).get("optimizer")))


def finite_weights(loaded: LoadedModel) -> str:
    """No weight is NaN or infinite."""
    for name, tensor in (*loaded.model.named_parameters(), *loaded.model.named_buffers()):
        _finite(name, tensor)
    return "all weights are finite"


def _finite(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise VerificationFailed(f"{bad} numbers of {name} are NaN or infinite")


@torch.no_grad()
def forward(loaded: LoadedModel) -> str:
    """One row of tokens through the model: logits of the right shape, all finite."""
    model = loaded.model
    model.eval()
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    told = loaded.tokenizer("One and one is two.") if loaded.tokenizer else {"input_ids": [0, 1]}
    ids = told["input_ids"][:TOKENS]
    if not ids:
        raise VerificationFailed("the tokenizer gives no tokens")
    if max(ids) >= vocabulary:
        raise VerificationFailed(
            f"the tokenizer gives token {max(ids)}, the model knows {vocabulary}"
        )
    logits = model(input_ids=torch.tensor([ids])).logits
    if logits.shape[:2] != (1, len(ids)):
        raise VerificationFailed(f"logits of shape {tuple(logits.shape)} for {len(ids)} tokens")
    _finite("the logits", logits)
    return f"{len(ids)} tokens gave finite logits"


def training_info(folder: Path, step: int | None) -> str:
    """training_state.json has what continuing needs, and is of the recorded step."""
    info = read_info(folder)
    for key in ("global_step", "optimizer", "method", "dtype", "threads"):
        if key not in info:
            raise VerificationFailed(f"training_state.json says nothing of {key}")
    if step is not None and int(info["global_step"]) != step:
        raise VerificationFailed(
            f"training_state.json is of step {info['global_step']}, the version of step {step}"
        )
    if (info["method"] == "full") == is_adapter(folder):
        what = "an adapter" if is_adapter(folder) else "a full model"
        raise VerificationFailed(f"training_state.json says {info['method']}, this is {what}")
    return f"of step {info['global_step']}, {info['optimizer']}"


def generators(folder: Path) -> str:
    """The generators' states are complete and the generators take them."""
    raw = json.loads((folder / RNG).read_text(encoding="utf-8"))
    state = rng_from_json(raw)
    set_rng(state)
    return "the random number generators take their states"


def optimizer(folder: Path, loaded: LoadedModel) -> str:
    """The optimizer's state fits the model's parameters, number for number, and loads."""
    parameters = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}
    saved = json.loads((folder / GROUPS).read_text(encoding="utf-8"))
    named = [name for group in saved["groups"] for name in group["params"]]
    if sorted(named) != sorted(parameters):
        odd = sorted(set(named) ^ set(parameters)) or ["one stands there twice"]
        raise VerificationFailed(f"its parameters are not the model's: {odd[0]}")
    keys: dict[str, set[str]] = {}
    for name, key, tensor in _saved_tensors(folder, saved):
        parameter = parameters.get(name)
        if parameter is None:
            raise VerificationFailed(f"state of {name}, which the model does not train")
        if key in SHAPED:
            keys.setdefault(name, set()).add(key)
            if tensor.shape != parameter.shape:
                raise VerificationFailed(
                    f"{key} of {name} has shape {tuple(tensor.shape)}, the parameter"
                    f" {tuple(parameter.shape)}"
                )
        _finite(f"{key} of {name}", tensor)
    if keys and (missing := sorted(parameters.keys() - keys.keys())):
        raise VerificationFailed(f"no state of {missing[0]}")
    for name, found in keys.items():
        for one, other in (("exp_avg", "exp_avg_sq"), ("state1", "state2")):
            if (one in found) != (other in found):
                raise VerificationFailed(f"half of the state of {name} is missing")
    try:
        made = make_optimizer(loaded.model, _training(folder))
    except ConfigError as error:
        return f"{saved['rule']}: every tensor fits; not loaded: {error.what}"
    restore_optimizer(folder, loaded.model, made)
    return f"{saved['rule']} took the state of {len(keys)} parameters"


def _saved_tensors(folder: Path, saved: dict[str, Any]) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(parameter, key, tensor), one in memory at a time; shared ones under every name."""
    from safetensors import safe_open

    with safe_open(folder / TENSORS, framework="pt") as file:
        for full in file.keys():  # noqa: SIM118
            name, key = full.rsplit("/", 1)
            yield name, key, file.get_tensor(full)
        for full, first in saved["shared"].items():
            name, key = full.rsplit("/", 1)
            yield name, key, file.get_tensor(first)
