"""builtin:tiny: a complete model folder, the same bytes for the same seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engine.training.tiny import POSITIONS, make_tiny
from engine.training.tiny_tokenizer import SPECIAL, VOCABULARY
from evaluation.skills import generate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, 42)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_is_byte_identical_for_a_seed_in_another_process(
    folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys;from pathlib import Path;from engine.training.tiny import make_tiny;"
        "make_tiny(Path(sys.argv[1]),int(sys.argv[2]));"
        "assert not {'torch','numpy','transformers'} & set(sys.modules)"
    )
    for name, seed in (("same", "42"), ("other", "43")):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-c", code, str(tmp_path / name), seed]
        subprocess.run(command, check=True, env=environment)
    same, other = contents(tmp_path / "same"), contents(tmp_path / "other")
    assert same == contents(folder)
    assert other["model.safetensors"] != same["model.safetensors"]
    assert other["config.json"] == same["config.json"]


def test_it_loads_as_a_qwen3_model_of_about_a_million_parameters(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert 700_000 < sum(p.numel() for p in model.parameters()) < 1_100_000
    assert model.dtype is torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.generation_config.eos_token_id == [SPECIAL.index("<|im_end|>"), 0]
    deviations = {n: float(p.detach().std()) for n, p in model.named_parameters() if p.ndim == 2}
    assert all(0.019 < deviation < 0.021 for deviation in deviations.values()), deviations
    with torch.no_grad():
        loss = model(torch.arange(64)[None], labels=torch.arange(64)[None]).loss
    assert 6.5 < float(loss) < 7.5  # ln 1024 = 6.93: it knows nothing yet


def test_it_loads_with_auto_tokenizer_and_renders_chatml(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == VOCABULARY
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.model_max_length == POSITIONS
    rows = [*generate("syllo", 1, 5, 1), *generate("binary", 4, 5, 1)]
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for row in rows:
        user, assistant = row["messages"]
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        assert prompt == (f"<|im_start|>user\n{user['content']}<|im_end|>\n<|im_start|>assistant\n")
        assert text == f"{prompt}{assistant['content']}<|im_end|>\n"
        ids = tokenizer(text)["input_ids"]
        assert ids == plain.encode(text).ids and tokenizer.decode(ids) == text


def test_every_digit_is_one_token_and_runs_of_digits_do_not_merge(tokenizer: Tokenizer) -> None:
    for digit in "⓪①0123456789":
        assert len(tokenizer.encode(digit).ids) == 1, digit
    assert len(tokenizer.encode("①⓪⓪①").ids) == 4 and len(tokenizer.encode("1024").ids) == 4


def test_no_token_lies_across_the_border_of_prompt_and_answer(tokenizer: Tokenizer) -> None:
    for row in [*generate("syllo", 3, 20, 4), *generate("binary", 5, 20, 4)]:
        user, assistant = row["messages"]
        prompt = f"<|im_start|>user\n{user['content']}<|im_end|>\n<|im_start|>assistant\n"
        answer = f"{assistant['content']}<|im_end|>"
        whole = tokenizer.encode(prompt + answer).ids
        assert whole == tokenizer.encode(prompt).ids + tokenizer.encode(answer).ids


def test_a_syllable_is_tokenized_alike_in_the_bank_and_in_the_answer(
    tokenizer: Tokenizer,
) -> None:
    for syllable in ("win", "dow", "tri", "gle", "ey", "phant"):
        alone = tokenizer.encode(syllable).ids
        for text in (f"Tiles: {syllable} er", f'"syllables":["{syllable}","er"]'):
            ids = tokenizer.encode(text).ids
            assert any(ids[n : n + len(alone)] == alone for n in range(len(ids))), text


def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    for text in ("", " \n\t x", "naïve 東京 🙂 é", "a" * 500, "\x00\x7f", "<|im_start|"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_rows_of_the_demo_levels_are_as_short_as_the_recipe_needs(tokenizer: Tokenizer) -> None:
    lengths = [
        len(tokenizer.encode("".join(m["content"] for m in row["messages"])).ids) + 10
        for row in generate("syllo", 1, 200, 1)
    ]
    assert sum(lengths) / len(lengths) < 190 and max(lengths) < 256
