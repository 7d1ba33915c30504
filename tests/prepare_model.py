"""A small byte-level BPE with ChatML tokens and model folders around it: for tests of preparing."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.prepare import Prepared, PrepareSettings, prepare

DATA = Path(__file__).parent / "data"
GSM8K = DATA / "gsm8k_100.jsonl"

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

MARKED = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

THINKING = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role != 'assistant' %}
{{- message.content }}
{%- else %}
{%- set parts = message.content.split('</think>') %}
{%- if loop.index0 > ns.last %}
{{- '<think>\\n' + (parts[0].split('<think>')[-1].strip('\\n') if parts|length > 1 else '') }}
{{- '\\n</think>\\n\\n' }}
{%- endif %}
{{- parts[-1].lstrip('\\n') if parts|length > 1 else message.content }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
"""Like Qwen3's: thinking of earlier turns is dropped, the last turn gets a think block."""

TRIMMED = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|header|>' + message.role + '<|end_header|>\\n\\n' + message.content | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|header|>assistant<|end_header|>\\n\\n' }}
{%- endif %}"""
"""Like Llama 3's: contents are trimmed, a bos token stands first."""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|header|>", "<|end_header|>", "<|eot|>"]


@functools.cache
def tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = [
        message["content"]
        for line in GSM8K.read_text("utf-8").splitlines()
        for message in json.loads(line)["messages"]
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # What a saved training run leaves behind, and what must not cut a row.
    tokenizer.enable_truncation(16)
    return str(tokenizer.to_str())


def model_folder(folder: Path, template: str | None = CHATML, eos: str = "<|im_end|>") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json(), "utf-8")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": {"content": eos, "special": True, "__type": "AddedToken"},
        "pad_token": "<|endoftext|>",
        "model_max_length": 1000000,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder


def chat(*contents: str, system: str = "") -> dict[str, Any]:
    """A row whose turns alternate, the user's first."""
    turns = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    turns += [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"messages": turns}


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def settings(**changes: Any) -> PrepareSettings:
    values: dict[str, Any] = {
        "max_length": 2048,
        "packing": True,
        "profile": "none",
        "system_prompt": "",
        "over_length": "drop",
        "bad_rows": "reject_file",
        "validation_split": 0.02,
        "seed": 42,
    }
    return PrepareSettings(**{**values, **changes})


def prepared(
    tmp_path: Path,
    source: Path,
    *,
    template: str | None = CHATML,
    held_out: frozenset[str] = frozenset(),
    **changes: Any,
) -> Prepared:
    """Prepare `source` in a home at tmp_path/home."""
    return prepare(
        source,
        model_folder=model_folder(tmp_path / "model", template),
        settings=settings(**changes),
        held_out=held_out,
        root=tmp_path / "home" / "store" / "prepared",
        progress=lambda done, total: None,
        cancelled=lambda: False,
    )
