"""What is saved is what other programs demand of a model's folder.

The demands, and where they stand:
- llama.cpp, convert_hf_to_gguf.py: `ModelBase.index_tensors` (the names of an index are exactly
  those of the files), `get_vocab_base` (every token's id is below config.json's vocab_size),
  `set_vocab` (AutoTokenizer loads the folder), `TextModel` (config.json names its architecture);
  gguf-py/gguf/vocab.py: `SpecialVocab` (special tokens of tokenizer_config.json stand in
  tokenizer.json's added_tokens; the template in tokenizer_config.json or chat_template.jinja).
- vLLM: model_loader/default_loader.py `_prepare_weights` (every *.safetensors of the folder is
  weights; consolidated*.safetensors means Mistral's own format) with weight_utils.py
  `filter_duplicate_safetensors_files` (unless model.safetensors.index.json leaves it out);
  generation_config.json for the tokens that end an answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

from tests.model_zoo import make_folder
from tests.training_kit import Bench, training

INDEX = "model.safetensors.index.json"
DTYPES = {"F32": "float32", "BF16": "bfloat16"}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Name to dtype and shape."""
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (one.get_dtype(), one.get_shape()) for name, one in slices.items()}


def vllm_files(folder: Path) -> list[Path]:
    """The files that vLLM takes for weights."""
    assert not list(folder.glob("consolidated*.safetensors"))
    found = sorted(folder.glob("*.safetensors"))
    if (folder / INDEX).is_file():
        indexed = set(read(folder / INDEX)["weight_map"].values())
        found = [path for path in found if path.name in indexed]
    return found


CASES = [
    ("qwen3", "fp32", {}),
    ("qwen3", "bf16", {}),
    ("llama", "fp32", {}),
    ("mistral", "bf16", {}),
    ("gemma2", "fp32", {}),
    ("gemma3_text", "fp32", {}),
    ("llama", "fp32", {"shards": "60KB"}),
]


@pytest.mark.parametrize(("kind", "precision", "changes"), CASES)
def test_the_folder_meets_vllm_and_llama_cpp(
    kind: str,
    precision: str,
    changes: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = make_folder(tmp_path / "base", kind, **changes)
    if changes:
        own = transformers.PreTrainedModel.save_pretrained

        def in_shards(self: Any, *args: Any, **named: Any) -> None:
            own(self, *args, max_shard_size=changes["shards"], **named)

        monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", in_shards)
    bench = Bench(base, training(), precision=precision)
    folder = bench.save(tmp_path / "saved")
    assert (folder / "optimizer.safetensors").is_file(), "what must not be taken for weights"

    files = vllm_files(folder)
    assert (len(files) > 2) == bool(changes)
    found: dict[str, tuple[str, list[int]]] = {}
    for path in files:
        found |= tensors(path)
    index = read(folder / INDEX)
    assert index["weight_map"].keys() == found.keys()
    assert {index["weight_map"][n] for n in found} == {path.name for path in files}
    for name, place in index["weight_map"].items():
        assert name in tensors(folder / place)
    original: dict[str, tuple[str, list[int]]] = {}
    for path in sorted(base.glob("model*.safetensors")):
        original |= tensors(path)
    assert {n: s for n, (_, s) in found.items()} == {n: s for n, (_, s) in original.items()}

    config, before = read(folder / "config.json"), read(base / "config.json")
    for key in ("architectures", "model_type", "vocab_size", "tie_word_embeddings"):
        assert config.get(key) == before.get(key), key
    assert config["architectures"][0].endswith("ForCausalLM")
    assert config["use_cache"] is True and "auto_map" not in config
    told = config.get("dtype") or config.get("torch_dtype")
    assert {DTYPES[dtype] for dtype, _ in found.values()} == {told}
    rows = found["model.embed_tokens.weight"][1][0]
    assert config["vocab_size"] == rows
    assert ("lm_head.weight" in found) != config.get("tie_word_embeddings", True)

    served = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    live = bench.loaded.model.state_dict()
    assert served.keys() == live.keys()
    assert all(torch.equal(tensor, live[name]) for name, tensor in served.items())

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert max(tokenizer.vocab.values()) < config["vocab_size"]
    settings = read(folder / "tokenizer_config.json")
    added = {
        token["content"]: token["id"] for token in read(folder / "tokenizer.json")["added_tokens"]
    }
    for kind_of_token in ("eos", "pad"):
        content = settings[f"{kind_of_token}_token"]
        content = content["content"] if isinstance(content, dict) else content
        assert added[content] == getattr(tokenizer, f"{kind_of_token}_token_id") < rows
    template = folder / "chat_template.jinja"
    text = settings.get("chat_template") or template.read_text()
    assert text == tokenizer.chat_template
    ends = read(folder / "generation_config.json")["eos_token_id"]
    assert ends == read(base / "generation_config.json")["eos_token_id"]
    assert tokenizer.eos_token_id in ends
