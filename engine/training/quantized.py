"""The base model of QLoRA (Dettmers et al. 2023, arXiv 2305.14314): linear layers in 4 bits, by
bitsandbytes.

NF4 with double quantization; a layer's weights are computed back for every product, in the model's
one dtype. The files stay as they are: quantizing happens while they are read, and the same files
give the same 4 bits again with the same kind of device and the same bitsandbytes.
Head, embeddings and norms stay as they are, in the model's dtype. peft would make them fp32
(`prepare_model_for_kbit_training`), and with them, as nothing casts here, everything that is
computed; the norms compute in fp32 inside anyway, and the adapter trains in fp32.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.training.failures import of_the_machine
from queue_store.errors import ConfigError

log = logging.getLogger("trainctl.quantized")

PACKAGE = "bitsandbytes"
OLDEST = (0, 48)
"""The oldest bitsandbytes that quantizes on a CPU as on a card."""
WHERE = 'model.method = "qlora"'


def require(device: str) -> None:
    """Raise ConfigError where this machine cannot quantize on `device`, found by doing it once."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise _cannot("bitsandbytes is not installed") from None
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise _cannot(f"bitsandbytes {version} is too old")
    try:
        functional = importlib.import_module(f"{PACKAGE}.functional")
        sample = torch.linspace(-1, 1, 4096, device=device).view(64, 64)
        packed, state = functional.quantize_4bit(sample, quant_type="nf4", compress_statistics=True)
        error = float((functional.dequantize_4bit(packed, state) - sample).abs().max())
    except (ImportError, RuntimeError, OSError, NotImplementedError, AttributeError) as failed:
        if of_the_machine(failed):
            raise
        lines = [line.strip() for line in str(failed).splitlines() if line.strip()]
        reason = lines[0] if lines else type(failed).__name__
        raise _cannot(f"bitsandbytes {version} does not quantize on {device}: {reason}") from None
    if not error < 0.2:  # half of the widest gap of NF4's levels is 0.15 of a block's largest
        raise _cannot(f"bitsandbytes {version} quantizes wrongly on {device}")
    if device == "cpu":
        log.warning("a 4-bit base on a CPU: each product unpacks its layer, which takes time")


def _cannot(reason: str) -> ConfigError:
    wanted = ".".join(map(str, OLDEST))
    return ConfigError(
        reason,
        where=WHERE,
        mend=f"pip install 'bitsandbytes>={wanted}', or make a home with model.method = \"lora\"",
    )


def refuse_quantized(folder: Path) -> None:
    """Raise ConfigError where the files of the base model are quantized already: nothing trains,
    merges and counts them as the numbers that they stand for."""
    try:
        said = json.loads((folder / "config.json").read_bytes())
        method = said["quantization_config"].get("quant_method", "quantized")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # what is wrong with a config.json, its loading says
    raise ConfigError(
        f"its files are quantized already ({method})",
        where=f"model.base, {folder}",
        mend='give the model that it was made from; model.method = "qlora" quantizes that one',
    )


def loading(dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Words for `from_pretrained`: quantize each layer on `device` as it is read, so that the
    whole model never stands there in full."""
    import transformers

    return {
        "quantization_config": transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": device},
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """While a base is read and quantized on a CPU: the mean of a layer's scales, from which they
    are quantized in turn, would else depend on the number of threads in its last bits."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def keep_as_loaded(model: torch.nn.Module) -> None:
    """On a CPU with AVX512-BF16 bitsandbytes repacks a layer for good at its first evaluation, its
    scales rounded to bf16: a sample would change what trains afterwards. Never do that."""
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def numbers(parameter: torch.nn.Parameter) -> int:
    """How many numbers a parameter stands for: packed, two lie in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())
