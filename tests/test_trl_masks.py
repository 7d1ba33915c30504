"""TRL as oracle: our masks are those of `assistant_only_loss` wherever TRL knows the template.

Two deliberate differences, both about text that the model never has to write:
- after the end token: Qwen's templates put one there, TRL trains it; generation has stopped at
  the end token by then, so nothing may learn to go on after it;
- before the answer: TRL trains the newline of "<|im_start|>assistant\\n" for Qwen2.5 (and the
  "<think>" that Qwen3.6's prompt ends with); it is part of the prompt that every server asks with.
Everything else is the same, token for token: text, ids, thinking, tool calls, empty answers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine.prepare.encode import EncodedRow
from queue_store.rows import BadRow, Message, Row, read_rows
from tests.prepare_model import GSM8K, MARKED
from tests.stock_templates import (
    KNOW_TOOLS,
    conversations,
    encoded,
    plain_turns,
    row,
    source,
    stock_folder,
)

chat_template_utils = pytest.importorskip("trl.chat_template_utils")

CASES = {"llama3": "template", "qwen2_5": "template", "qwen3": "keep"}
"""Template to `data.thinking`: TRL's training template for Qwen3 keeps all thinking."""

COUNT = 700
"""Made-up conversations for each template: over 2,000 in all, the rows of GSM8K besides."""


class Oracle:
    """TRL's masks for one stock template."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.template = chat_template_utils.get_training_chat_template(self.tokenizer)
        ids = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        self.newline, self.end = ids[0], self.tokenizer.eos_token_id

    def masks(self, one: Row) -> tuple[list[int], list[int]]:
        """(ids, mask) as SFTTrainer computes them."""
        found = self.tokenizer.apply_chat_template(
            plain_turns(one),
            tools=list(one.tools) or None,
            chat_template=self.template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return found["input_ids"], found["assistant_masks"]

    def without_newlines(self, ids: list[int], mask: list[int]) -> list[int]:
        """The mask less the two newlines that we leave out on purpose."""
        result = list(mask)
        for place, trains in enumerate(mask):
            if not trains or ids[place] != self.newline:
                continue
            first = not mask[place - 1]
            last = place + 1 == len(mask) or not mask[place + 1]
            if first or (last and ids[place - 1] == self.end):
                result[place] = 0
        return result

    def compare(self, folder: Path, rows: Sequence[Row], how: str) -> int:
        """Every row's ids and mask; how many were compared."""
        for one, ours in zip(rows, encoded(folder, rows, how), strict=True):
            assert not isinstance(ours, BadRow), (ours, one)
            assert isinstance(ours, EncodedRow)
            ids, mask = self.masks(one)
            assert ours.ids.tolist() == ids, one
            assert ours.trained.tolist() == [bool(m) for m in self.without_newlines(ids, mask)], one
        return len(rows)


def test_our_stock_templates_are_those_that_trl_knows() -> None:
    for name in (*CASES, "llama3_1"):
        assert source(name) == getattr(chat_template_utils, f"{name}_chat_template")


@pytest.mark.parametrize("name", CASES)
def test_masks_equal_trls_over_made_up_conversations_and_real_rows(
    tmp_path: Path, name: str
) -> None:
    folder = stock_folder(tmp_path, name)
    rows = conversations(11, COUNT, tools=name in KNOW_TOOLS, thinking=True)
    real = [one for one in read_rows(GSM8K) if isinstance(one, Row)]
    assert Oracle(folder).compare(folder, [*rows, *real], CASES[name]) == COUNT + 100


def test_thinking_as_qwen3s_own_template_has_it_equals_trls_for_one_exchange(
    tmp_path: Path,
) -> None:
    """TRL has no mask for the stock text of several exchanges; of one its text is the stock one."""
    folder = stock_folder(tmp_path, "qwen3")
    rows = [
        one
        for one in conversations(12, 300, tools=False, thinking=True)
        if sum(turn.role == "assistant" for turn in one.messages or ()) == 1
    ]
    assert Oracle(folder).compare(folder, rows, "template") > 100


def test_a_template_with_markers_needs_no_other_and_has_trls_masks(tmp_path: Path) -> None:
    folder = stock_folder(tmp_path, "chatml", MARKED)
    oracle = Oracle(folder)
    assert oracle.template is None
    rows = conversations(13, 300, tools=False, thinking=True)
    plain = stock_folder(tmp_path / "plain", "chatml")
    for one, ours, same in zip(rows, encoded(folder, rows), encoded(plain, rows), strict=True):
        assert isinstance(ours, EncodedRow) and isinstance(same, EncodedRow)
        ids, mask = oracle.masks(one)
        assert ours.ids.tolist() == ids == same.ids.tolist()
        assert ours.trained.astype(int).tolist() == mask == same.trained.astype(int).tolist()


FAMILIES = {
    "cohere": ("template", set()),
    "cohere2": ("template", set()),
    "gemma": ("template", {"\n"}),
    "gemma3": ("template", {"\n"}),
    "lfm2": ("template", {"\n"}),
    "phi3": (
        "template",
        {"\n", "\n<eos>"},
    ),  # it ends an answer with <|end|>
    "qwen3_instruct_2507": ("template", {"\n"}),
    "qwen3_6": ("keep", {"\n", "<think>\n"}),  # its prompt ends with <think>
}
"""Other templates that TRL knows: `data.thinking`, and the stretches that TRL trains and we leave
out on purpose."""

SPECIAL = re.compile(r"<\|[\w ]+\|>|<(?:start|end)_of_turn>")


@pytest.mark.parametrize("name", FAMILIES)
def test_masks_of_other_families_equal_trls_but_for_what_the_model_never_writes(
    tmp_path: Path, name: str
) -> None:
    how, left_out = FAMILIES[name]
    template = getattr(chat_template_utils, f"{name}_chat_template")
    folder = stock_folder(tmp_path, "chatml", template)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<bos>", "<eos>", *sorted(set(SPECIAL.findall(template)))])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    oracle = Oracle(folder)
    rows = conversations(14, 150, tools=False, thinking=name == "qwen3_6")
    compared = 0
    for one, ours in zip(rows, encoded(folder, rows, how), strict=True):
        if isinstance(ours, BadRow):
            assert name == "gemma" and "System role not supported" in ours.reason
            continue
        ids, mask = oracle.masks(one)
        trl = np.array(mask, dtype=np.bool_)
        assert ours.ids.tolist() == ids and not (ours.trained & ~trl).any()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], trl & ~ours.trained, [False]])))
        for start, end in edges.reshape(-1, 2).tolist():
            assert oracle.tokenizer.decode(ids[start:end]) in left_out
        compared += 1
    assert compared > 80


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
EXCHANGES = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.none(), TEXTS), EXCHANGES)
@pytest.mark.parametrize("name", CASES)
def test_masks_equal_trls_over_any_text(
    tmp_path_factory: Any, name: str, system: str | None, exchanges: list[tuple[str, str]]
) -> None:
    oracle, folder = _once(tmp_path_factory, name)
    turns = [Message("system", system)] if system is not None else []
    for asked, said in exchanges:
        turns += [Message("user", asked), Message("assistant", said)]
    oracle.compare(folder, [row(1, *turns)], CASES[name])


_MADE: dict[str, tuple[Oracle, Path]] = {}


def _once(tmp_path_factory: Any, name: str) -> tuple[Oracle, Path]:
    if name not in _MADE:
        folder = stock_folder(tmp_path_factory.mktemp(name), name)
        _MADE[name] = Oracle(folder), folder
    return _MADE[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_masks_equal_trls_over_the_files_of_a_folder(tmp_path: Path, name: str) -> None:
    """TRAINCTL_TEST_DATA names a folder with JSONL files of conversations."""
    place = os.environ.get("TRAINCTL_TEST_DATA")
    if not place:
        pytest.skip("TRAINCTL_TEST_DATA names no folder")
    rows = [
        one
        for file in sorted(Path(place).glob("*.jsonl"))
        for one in read_rows(file)
        if isinstance(one, Row) and one.messages
    ]
    folder = stock_folder(tmp_path, name)
    assert Oracle(folder).compare(folder, rows, CASES[name]) >= 1000


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_sees_a_mask_that_is_one_token_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = stock_folder(tmp_path, name)
    one = row(1, ("user", "q"), ("assistant", "an answer"))
    (ours,) = encoded(folder, [one], CASES[name])
    assert isinstance(ours, EncodedRow)
    first, last = np.flatnonzero(ours.trained)[[0, -1]].tolist()
    for place, trains in ((first, False), (last, False), (first - 1, True)):
        wrong = ours.trained.copy()
        wrong[place] = trains
        off = dataclasses.replace(ours, trained=wrong)
        monkeypatch.setattr("tests.test_trl_masks.encoded", lambda *_, off=off: [off])
        with pytest.raises(AssertionError):
            Oracle(folder).compare(folder, [one], CASES[name])
