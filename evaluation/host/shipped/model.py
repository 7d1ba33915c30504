"""A model loaded to answer: its folder, its proof, and what it is asked.

Safetensors only, no code of the model's own. The probe says what the loaded model computes:
the likeliest next tokens of a fixed prompt with their log-probabilities.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

from evaluation.host.shipped.frames import Trouble

PROBE = "The answer is"
PROBE_TOKENS = 16
Json = dict[str, Any]


class Loaded:
    """`digest` is that of the files the model was loaded from, recomputed here."""

    def __init__(self, model: Any, tokenizer: Any, digest: str, device: str, dtype: str) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.digest, self.device, self.dtype = digest, device, dtype
        self.ends = _ends(model, tokenizer)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.ends[0]
        self.context = int(getattr(model.config, "max_position_embeddings", 0)) or 1 << 30

    def encode(self, item: Json, template: Json) -> list[int]:
        """The tokens up to where the answer begins: of the item's `text`, else of its `messages`
        as the chat template writes them. Raises Trouble with the item at fault."""
        try:
            text = item.get("text") or self.tokenizer.apply_chat_template(
                item["messages"], add_generation_prompt=True, tokenize=False, **template
            )
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        except Exception as error:  # a template is a program: it raises what it likes
            raise Trouble("item", f"the chat template: {error}"[:300]) from None
        if not ids or len(ids) >= self.context:
            what = f"the prompt has {len(ids)} tokens, the model's context {self.context}"
            raise Trouble("item", what)
        return ids

    def probe(self) -> list[list[float]]:
        """[[token, log-probability]…], the likeliest first."""
        import torch

        ids = self.tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            out = self.model(input_ids=torch.tensor([ids], device=self.model.device))
            found = torch.log_softmax(out.logits[0, -1].float(), -1).topk(PROBE_TOKENS)
        tokens, values = found.indices.tolist(), found.values.tolist()
        if any(value != value for value in values):
            raise Trouble("model", "the loaded model computes no numbers (NaN)")
        return [[token, round(value, 5)] for token, value in zip(tokens, values, strict=True)]


def prepare_process(device: str, threads: int) -> None:
    """Before torch is imported: no network, no chatter, and no card where none is wanted."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def load(folder: Path, adapter: Path | None, digest: str, device: str, precision: str) -> Loaded:
    """Load the model of `folder`, with the LoRA adapter of `adapter` where there is one. `device`
    is "auto" or torch's name for one; `precision` "auto", "bf16", "fp32". Raises Trouble."""
    collects = gc.isenabled()
    gc.disable()  # the libraries make millions of objects and hardly any garbage
    try:
        return _load(folder, adapter, digest, device, precision)
    finally:
        if collects:
            gc.enable()


def _load(folder: Path, adapter: Path | None, digest: str, device: str, precision: str) -> Loaded:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise Trouble("no_packages", f"{error.name} cannot be imported: {error}") from None
    cuda = torch.cuda.is_available()
    if device == "auto":
        device = "cuda:0" if cuda else "cpu"
    if precision == "auto":
        half = device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if half else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
        text = adapter if adapter and (adapter / "tokenizer.json").is_file() else folder
        tokenizer = transformers.AutoTokenizer.from_pretrained(text, local_files_only=True)
        if adapter is not None:
            model = _with_adapter(model, adapter)
        model.to(device)
    except torch.cuda.OutOfMemoryError:
        raise Trouble("no_memory", f"the model does not fit on {device}") from None
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Trouble("model", f"it does not load: {reason}") from None
    model.eval()
    # What a sampler needs is said in each job; a default of the model's own must not mix in.
    ends = _ends(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    model.generation_config = transformers.GenerationConfig(eos_token_id=ends, pad_token_id=pad)
    return Loaded(model, tokenizer, digest, device, precision)


def _with_adapter(model: Any, adapter: Path) -> Any:
    try:
        import peft
    except ImportError:
        raise Trouble("no_packages", "peft is not installed, and this is an adapter") from None
    return peft.PeftModel.from_pretrained(model, adapter, is_trainable=False)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's and the generation config's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(configured if type(configured) is list else [configured])}
    found = sorted(i for i in ids if i is not None)
    if not found:
        raise Trouble("model", "neither the tokenizer nor generation_config.json names an end")
    return found


def seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 3)
