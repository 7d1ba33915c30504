"""The live model: which folder it comes from, its dtype, device, kernels and adapter.

The base folder is only read, never written. One dtype serves weights and compute (no autocast).
"""

from __future__ import annotations

import gc
import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.kernels import liger_missing
from engine.training.attention import attention_of, choose_attention, isolate_rows
from engine.training.failures import Caused, classify, no_thread, of_the_machine
from engine.training.folder import check_folder
from engine.training.liger import Replaced, apply_liger, put_back, words
from engine.training.loss_path import LossPath
from engine.training.quantized import (
    keep_as_loaded,
    loading,
    numbers,
    one_thread,
    refuse_quantized,
    require,
)
from engine.training.quiet import quiet
from engine.training.rng import preserve_rng
from queue_store.config import Lora, Model, Training
from queue_store.errors import ConfigError, TrainctlError

log = logging.getLogger("trainctl.engine")


@dataclass(frozen=True)
class LoadedModel:
    """The model that trains. `parameters` counts all of it, as numbers, however they are packed;
    `trained` what the optimizer moves; `method` is "full", "lora" or "qlora"; `folder` is the base
    model's; `dtype` is "bf16" or "fp32", `device` "cpu" or "cuda:0"."""

    model: Any
    tokenizer: Any
    folder: Path
    name: str
    method: str
    dtype: str
    device: str
    parameters: int
    trained: int
    loss: LossPath
    liger: Replaced = field(default_factory=dict)
    """What Liger's kernels replaced, by kind; nothing where they are not in."""

    @property
    def kernels(self) -> str:
        """How attention and loss are computed, and what of it is Liger's, in a line."""
        attention = self.model.config._attn_implementation
        fused = bool(self.liger.get("loss", (0, 0))[0])
        loss = "in chunks" if self.loss.chunked else "plain"
        if fused:
            loss = f"Liger's ({loss} with in_backward)" if self.loss.chunked else "Liger's"
        told = f"attention {attention}, loss {loss}"
        return f"{told}, Liger's: {words(self.liger)}" if self.liger else told

    @property
    def base_precision(self) -> dict[str, str]:
        """Of an adapter what its base computes beside it, as answers tell it."""
        if self.method == "full":
            return {}
        return {"base_precision": "nf4" if self.method == "qlora" else self.dtype}


def configure_process(training: Training, threads: int = 0) -> int:
    """Set the process's threads and determinism; returns the number of threads used.

    `threads` is the recorded number of a state that is continued (0 = none): on a CPU the
    result is bit-identical only with the same number. Call after engine.training.run is imported
    and before CUDA is used: what the libraries keep for ever is taken out of garbage collection,
    whose full passes would else hold the interpreter for 0.3 s.
    """
    gc.collect()
    gc.freeze()
    count = threads or training.threads or os.cpu_count() or 1
    torch.set_num_threads(count)
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")  # transformers looks there
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return count


def choose_device() -> str:
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def choose_dtype(precision: str, device: str) -> torch.dtype:
    """The one dtype of weights and compute for `model.precision`. Raises ConfigError."""
    can_bf16 = device == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        if not can_bf16:
            raise ConfigError(
                "this GPU has no bf16", where="model.precision", mend='use "auto" or "fp32"'
            )
        return torch.bfloat16
    return torch.bfloat16 if device != "cpu" and can_bf16 else torch.float32


def wants_liger(wanted: str, device: str) -> bool:
    """Whether Liger's kernels go in; nothing of them runs without CUDA and triton."""
    if wanted == "off":
        return False
    missing = liger_missing()
    if device != "cpu" and not missing:
        return True
    if wanted == "on":
        reason = "there is no CUDA GPU" if device == "cpu" else f"{', '.join(missing)} is missing"
        raise ConfigError(
            f"Liger kernels cannot run: {reason}",
            where='training.liger = "on"',
            mend='use "auto", or install trainctl[gpu] on a machine with a GPU',
        )
    return False


def check_offload(training: Training, device: str) -> None:
    """Raises ConfigError where activations have nowhere to go to."""
    if training.activation_offload and device == "cpu":
        raise ConfigError(
            "activations are in this machine's memory already: there is no GPU to take them from",
            where="training.activation_offload = true",
            mend="set it to false here",
        )


def _own_memory(model: torch.nn.Module) -> None:
    """Give every CPU tensor memory of its own: loaded ones are views of the mapped file, and
    their alignment can change the last bit of a matrix product."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def add_lora(model: Any, lora: Lora, seed: int) -> Any:
    """The model with fresh adapters, their initial values drawn from `seed` alone.

    Adapters stay in fp32 (peft's default): they are small, and bf16 would lose their updates.
    """
    import peft

    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    with preserve_rng():
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, settings)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(reason, where="model.lora.targets") from None


def load_model(
    folder: Path,
    config: Model,
    training: Training,
    *,
    weights: Path | None = None,
    device: str | None = None,
    on_host: bool = False,
) -> LoadedModel:
    """Load the base model of `folder` for training, with its tokenizer.

    `weights`: a saved state's folder; a full model is then read from there at once instead of
    the base (adapters come by state.restore_state). `on_host`: leave the weights mapped from the
    file, where all processes of a host have them once, for whoever copies each its part.

    Raises ConfigError where config.toml asks for what this machine cannot do, and TrainctlError
    where the folder is no causal language model.
    """
    quiet()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    device = device or choose_device()
    dtype = choose_dtype(config.precision, device)
    with_liger = wants_liger(training.liger, device)
    check_offload(training, device)
    source = weights if weights is not None and config.method == "full" else folder
    refuse_quantized(folder)
    four_bit = config.method == "qlora"
    if four_bit:
        require(device)
    check_folder(source)
    put_back()
    before = attention_of(weights)
    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        read = transformers.AutoConfig.from_pretrained(source, **own)
        with one_thread() if four_bit else nullcontext():
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                config=read,
                dtype=dtype,
                attn_implementation=choose_attention(config.attention, device, dtype, read, before),
                use_safetensors=True,
                **own,
                **(loading(dtype, device) if four_bit else {}),
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **own)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if no_thread(error):
            raise Caused(*classify(error)) from None
        if of_the_machine(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainctlError(
            f"is no causal language model that loads here: {reason}",
            where=str(source),
            mend="model.base must be a Hugging Face folder with config, weights and tokenizer",
        ) from None
    if four_bit:
        keep_as_loaded(model)
    elif not on_host:
        model.to(device)
    if not on_host:
        _own_memory(model)
    isolate_rows(model)
    liger: Replaced = {}
    if with_liger:
        adapted = config.method != "full" and _head_name(model) in config.lora.targets
        liger = apply_liger(model, own_head=adapted, wanted=training.liger)
    if config.method != "full":
        model = add_lora(model, config.lora, training.seed)
    if training.gradient_checkpointing:
        checkpoint_activations(model, offload=training.activation_offload)
    # Packed rows are isolated only without a cache (engine.prepare.collate).
    model.config.use_cache = False
    parameters = list(model.parameters())
    loss = LossPath(model)
    loss.use(training.chunked_loss)
    loaded = LoadedModel(
        model=model,
        tokenizer=tokenizer,
        folder=folder,
        name=config.name,
        method=config.method,
        dtype="bf16" if dtype is torch.bfloat16 else "fp32",
        device=device,
        parameters=sum(numbers(p) for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        loss=loss,
        liger=liger,
    )
    log.info("%s: %s", config.name, loaded.kernels)
    return loaded


def _head_name(model: Any) -> str:
    """The head's own name among its neighbours, "lm_head" mostly; "" without a head."""
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is head]
    return names[0].rpartition(".")[2] if names and head is not None else ""


def checkpoint_activations(model: Any, *, offload: bool = False) -> None:
    """Recompute activations in the backward pass; the non-reentrant way keeps the RNG right.
    `offload`: what the layers begin with waits in host memory, page-locked."""
    plain = getattr(model, "get_base_model", lambda: model)()
    kwargs = {"use_reentrant": False}
    if hasattr(plain, "activation_checkpointing_enable"):
        plain.activation_checkpointing_enable(
            activation_checkpointing_kwargs=kwargs, offload=offload
        )
    else:
        plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
