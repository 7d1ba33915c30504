"""The five mask checks: good data passes each, and each sees the fault that it is there for."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.prepare import Prepared, encode, mask_checks
from engine.prepare.encode import EncodedRow
from engine.prepare.mask_checks import (
    ALTERNATION,
    CONTENT,
    COUNT,
    LABELS,
    RATIO,
    MaskCheck,
    MaskChecks,
)
from engine.prepare.mask_notes import ROWS_READ, MaskNotes
from engine.prepare.masks import Masker
from engine.prepare.template import ModelText
from queue_store.errors import DataError
from queue_store.rows import BadRow, Row, read_rows
from tests.prepare_model import CHATML, GSM8K, MARKED, chat, model_folder, prepared, write_rows
from tests.stock_templates import ENDS, KNOW_TOOLS, conversations, encoded, stock_folder

ALL = [RATIO, COUNT, CONTENT, ALTERNATION, LABELS]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[MaskCheck]:
    """The outcomes of the checks of every preparing in the test."""
    found: list[MaskCheck] = []
    run = mask_checks.MaskChecks.run

    def watched(self: mask_checks.MaskChecks, data: Prepared) -> list[MaskCheck]:
        made = run(self, data)
        found.extend(made)
        return made

    monkeypatch.setattr(mask_checks.MaskChecks, "run", watched)
    return found


def failed(seen: list[MaskCheck]) -> set[str]:
    return {check.name for check in seen if not check.passed}


def change_rows(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Plant a fault in every row that leaves the tokenizer."""
    collect = encode.Encoder.collect

    def planted(self: encode.Encoder, batch: encode.Batch) -> list[EncodedRow | BadRow]:
        return [change(row) for row in collect(self, batch)]

    monkeypatch.setattr(encode.Encoder, "collect", planted)


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_good_data_passes_and_the_report_says_so(tmp_path: Path, template: str) -> None:
    data = prepared(tmp_path, GSM8K, template=template)
    checks = data.report["masks"]["checks"]
    assert [check["name"] for check in checks] == ALL
    assert all(check["passed"] and check["text"] for check in checks)
    assert all(check["line"] == {"unknown": "it passed"} for check in checks)
    assert json.loads(json.dumps(checks)) == checks
    assert data.report["masks"]["end_tokens"] == ["<|im_end|>"]
    assert data.report["rendering"] == data.rendering


def test_every_kind_of_good_row_passes(tmp_path: Path) -> None:
    kinds = conversations(21, 300, tools=False, thinking=True)
    rows: list[Any] = [
        {"messages": [{"role": t.role, "content": t.content} for t in one.messages or ()]}
        for one in kinds
    ]
    rows += [{"text": "a story of a number"}, chat("q", ""), chat("", "a")]
    rows.append({"messages": [{"role": "assistant", "content": "Hi"}, *chat("q", "a")["messages"]]})
    data = prepared(tmp_path, write_rows(tmp_path / "a.jsonl", rows))
    assert data.rows == len(rows)


def test_instructions_that_train_are_refused_with_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    render = Masker.render

    def planted(self: Masker, messages: Any, tools: Any = ()) -> Any:
        text, spans = render(self, messages, tools)
        return text, [(text.index(messages[-2].content), spans[-1][1])]

    monkeypatch.setattr(Masker, "render", planted)
    with pytest.raises(DataError, match=r"^gsm8k_100\.jsonl:\d+: masking ratio: \d+ of its \d+ "):
        prepared(tmp_path, GSM8K)
    assert {RATIO, CONTENT} <= failed(seen)
    ratio = seen[0]
    question = json.loads(GSM8K.read_text("utf-8").splitlines()[(ratio.line or 0) - 1])
    assert 'the row: masked "<|im_start|>' in ratio.text and "trains " in ratio.text
    assert question["messages"][-2]["content"][:20] in ratio.text
    assert "\n" not in ratio.text


def test_instructions_that_train_beside_the_answer_are_one_segment_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    render = Masker.render

    def planted(self: Masker, messages: Any, tools: Any = ()) -> Any:
        text, spans = render(self, messages, tools)
        start = text.index(messages[-2].content)
        return text, [(start, start + len(messages[-2].content)), *spans]

    monkeypatch.setattr(Masker, "render", planted)
    with pytest.raises(DataError):
        prepared(tmp_path, GSM8K)
    count = next(check for check in seen if check.name == COUNT)
    assert not count.passed and count.line == 1
    assert "2 segments train and it has 1 assistant turns: something else" in count.text


def test_every_label_masked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    def masked(row: EncodedRow | BadRow) -> EncodedRow | BadRow:
        assert isinstance(row, EncodedRow)
        return dataclasses.replace(row, trained=np.zeros_like(row.trained))

    change_rows(monkeypatch, masked)
    with pytest.raises(DataError):
        prepared(tmp_path, GSM8K)
    labels = seen[-1]
    assert labels.name == LABELS and not labels.passed and labels.line == 1
    assert "every label is masked: nothing would train" in labels.text


def test_one_masked_row_among_good_ones_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    def masked(row: EncodedRow | BadRow) -> EncodedRow | BadRow:
        assert isinstance(row, EncodedRow)
        return (
            dataclasses.replace(row, trained=np.zeros_like(row.trained))
            if row.row.line == 77
            else row
        )

    change_rows(monkeypatch, masked)
    with pytest.raises(DataError, match=r"^gsm8k_100\.jsonl:77: "):
        prepared(tmp_path, GSM8K)
    assert seen[-1].line == 77 and "every label of the row is masked" in seen[-1].text


def test_a_file_of_which_one_token_trains_is_refused(tmp_path: Path, seen: list[MaskCheck]) -> None:
    source = write_rows(tmp_path / "a.jsonl", [chat(f"{i}?", "") for i in range(5)])
    with pytest.raises(DataError, match=r"label distribution: all that trains is the token"):
        prepared(tmp_path, source)
    assert failed(seen) == {LABELS} and '"<|im_end|>"' in seen[-1].text


def test_the_second_segment_of_a_pack_unmasked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    sequence = Prepared.sequence

    def planted(self: Prepared, pack: int) -> Any:
        made = sequence(self, pack)
        starts = np.flatnonzero(made.position_ids == 0)
        trained = made.trained.copy()
        if len(starts) > 1:
            trained[starts[1] :] = True
        return dataclasses.replace(made, trained=trained)

    monkeypatch.setattr(Prepared, "sequence", planted)
    with pytest.raises(DataError, match=r"^gsm8k_100\.jsonl:\d+: packed alternation: row 2 of"):
        prepared(tmp_path, GSM8K)
    assert failed(seen) == {ALTERNATION}


def test_rows_that_share_positions_in_a_pack_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    sequence = Prepared.sequence

    def planted(self: Prepared, pack: int) -> Any:
        made = sequence(self, pack)
        return dataclasses.replace(
            made, position_ids=np.arange(len(made.position_ids), dtype=np.int32)
        )

    monkeypatch.setattr(Prepared, "sequence", planted)
    with pytest.raises(DataError, match=r"pack 0 has \d+ rows and 1 starts"):
        prepared(tmp_path, GSM8K)
    assert failed(seen) == {ALTERNATION}


def test_a_row_that_trains_from_its_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    def from_start(row: EncodedRow | BadRow) -> EncodedRow | BadRow:
        assert isinstance(row, EncodedRow)
        trained = row.trained.copy()
        trained[1:4] = True
        return dataclasses.replace(row, trained=trained)

    change_rows(monkeypatch, from_start)
    with pytest.raises(DataError):
        prepared(tmp_path, GSM8K)
    assert {ALTERNATION, COUNT} <= failed(seen)


MISMATCHED = {
    "end token left out": (
        MARKED.replace(
            "message['content'] + '<|im_end|>' }}{%- endg", "message['content'] }}{%- endg"
        ),
        "no end token",
    ),
    "more than the answer": (
        MARKED.replace("{%- generation %}{{- ", "{%- generation %}{{- 'Well, ' + "),
        "and the answer is",
    ),
    "more than an answer with thinking": (
        MARKED.replace(
            "{%- generation %}{{- message['content']",
            "{%- generation %}{{- messages[0]['content'] + '<think>' + '\\n' * 9"
            " + '</think>' + message['content']",
        ),
        "and the answer is",
    ),
}


@pytest.mark.parametrize("kind", MISMATCHED)
def test_a_template_that_marks_something_else_is_refused(
    tmp_path: Path, seen: list[MaskCheck], kind: str
) -> None:
    template, why = MISMATCHED[kind]
    assert template != MARKED
    rows = [chat(f"{i} + {i}?", f"that is {2 * i}") for i in range(20)]
    with pytest.raises(DataError, match=r"^a\.jsonl:\d+: "):
        prepared(tmp_path, write_rows(tmp_path / "a.jsonl", rows), template=template)
    content = next(check for check in seen if check.name == CONTENT)
    assert not content.passed and why in content.text


def truncate(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """A tokenizer that cuts, as one saved with `truncation` would."""
    whole = ModelText.tokenizer.fget
    assert whole is not None

    def cut(self: ModelText) -> Any:
        tokenizer = whole(self)
        tokenizer.enable_truncation(length)
        return tokenizer

    monkeypatch.setattr(ModelText, "tokenizer", property(cut))


def test_an_answer_cut_away_is_told_from_a_template_without_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    rows = [chat("1?", "one", "2?", "two", "3?", "three") for _ in range(4)]
    source = write_rows(tmp_path / "a.jsonl", rows)
    some = "{%- if message['role'] == 'assistant' and loop.first %}"
    first_only = MARKED.replace("{%- if message['role'] == 'assistant' %}", some)
    first_only = first_only.replace("loop.first", "loop.index == 2")
    with pytest.raises(DataError, match="the chat template has no markers for it"):
        prepared(tmp_path, source, template=first_only)
    assert COUNT in failed(seen)
    seen.clear()
    whole = prepared(tmp_path, source)
    cut_at = int(whole.arrays["offsets"][1]) - 14  # inside the second answer's exchange
    seen.clear()
    truncate(monkeypatch, cut_at)
    with pytest.raises(DataError, match=r"^b\.jsonl:1: response count: .* the answer was cut away"):
        prepared(tmp_path, write_rows(tmp_path / "b.jsonl", [*rows, rows[0]]))


def test_an_answer_cut_in_its_middle_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[MaskCheck]
) -> None:
    truncate(monkeypatch, 40)
    rows = [chat(f"{i}?", "a long answer of many words " * 9) for i in range(4)]
    with pytest.raises(DataError):
        prepared(tmp_path, write_rows(tmp_path / "a.jsonl", rows))
    content = next(check for check in seen if check.name == CONTENT)
    assert not content.passed and "no end token" in content.text


def test_what_fails_is_not_stored_and_the_file_prepares_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "a.jsonl", [chat(f"{i}?", "") for i in range(5)])
    with pytest.raises(DataError):
        prepared(tmp_path, source)
    store = tmp_path / "home" / "store"
    assert not list((store / "prepared").iterdir()) and not list((store / "tmp").iterdir())
    assert prepared(tmp_path, write_rows(source, [chat(f"{i}?", "ok") for i in range(5)])).rows == 5


def test_the_rows_that_are_read_again_are_chosen_alike_and_hold_the_extremes(
    tmp_path: Path,
) -> None:

    rows = [one for one in read_rows(GSM8K) if isinstance(one, Row)]
    with ThreadPoolExecutor(1) as executor:
        encoder = encode.Encoder(ModelText(model_folder(tmp_path)), "", executor)
        made = encoder.collect(encoder.submit(rows))
    whole = [row for row in made if isinstance(row, EncodedRow)]
    chosen = []
    for _ in range(2):
        notes = MaskNotes()
        for number, row in enumerate(whole):
            notes.note(row, rank=number * 7919 % 101)
        chosen.append([number for number, _ in notes.read_again()])
    assert chosen[0] == chosen[1] and ROWS_READ <= len(chosen[0]) <= ROWS_READ + 4
    lengths = [len(row.ids) for row in whole]
    assert lengths.index(max(lengths)) in chosen[0]


@pytest.mark.parametrize("how", ["template", "keep", "drop"])
@pytest.mark.parametrize("name", ENDS)
def test_no_good_row_of_a_stock_template_fails_a_check(tmp_path: Path, name: str, how: str) -> None:
    model = ModelText(stock_folder(tmp_path, name))
    rows = conversations(31, 120, tools=name in KNOW_TOOLS, thinking=True)
    notes, made = MaskNotes(), encoded(model.folder, rows, how)
    for number, row in enumerate(made):
        assert isinstance(row, EncodedRow), row
        notes.note(row, rank=number)
    kept = [row for row in made if isinstance(row, EncodedRow)]
    arrays = {
        "tokens": np.concatenate([row.ids for row in kept]),
        "trained": np.concatenate([row.trained for row in kept]),
        "offsets": np.cumsum([0, *(len(row.ids) for row in kept)]),
        "lines": np.arange(1, len(kept) + 1),
        "pack_offsets": np.arange(0, len(kept) + 1, 4),
        "pack_rows": np.arange(len(kept)),
        "validation_pack_offsets": np.zeros(1, dtype=np.int64),
        "validation_pack_rows": np.zeros(0, dtype=np.int64),
    }
    checks = MaskChecks(notes, model.tokenizer, model.eos_id, how)
    assert [c for c in checks.run(Prepared(tmp_path, {}, arrays)) if not c.passed] == []
    found = notes.thinking
    assert found["answers"] == found["trained"] + found["left_out"] > 0
    assert (found["left_out"] > 0) is (how == "drop" or (how, name) == ("template", "qwen3"))
    if name == "qwen3":
        assert (found["empty_blocks"] > 0) is (how != "drop")
