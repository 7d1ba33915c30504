"""Looking at a file finds what preparing it would, refuses nothing, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.prepare.footprint import bytes_per_token, positions
from engine.prepare.inspect import Source, inspect, one_row, token_rows
from engine.prepare.segments import segments
from engine.prepare.suggest import Suggestion, suggestions
from engine.prepare.template import ModelText
from queue_store import config as configuration
from queue_store.config import Config
from queue_store.heldout import HeldOut
from queue_store.rows import Message, Row, prompt_digest, quick_check
from tests.prepare_model import GSM8K, chat, model_folder, prepared, settings, write_rows

QWEN3_4B = {
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}


def digest_of(prompt: str) -> str:
    turns = (Message("user", prompt), Message("assistant", "x"))
    return prompt_digest(Row(1, turns, None))


def source(
    tmp_path: Path, path: Path, held_out: frozenset[str] = frozenset(), **changes: Any
) -> Source:
    model = ModelText(model_folder(tmp_path / "model"))
    held = HeldOut(held_out, {}, frozenset())
    return Source(path, quick_check(path), model, settings(**changes), held)


def inspected(tmp_path: Path, path: Path, **changes: Any) -> Any:
    folder = tmp_path / "looked"
    folder.mkdir(exist_ok=True)
    return inspect(source(tmp_path, path, **changes), folder, lambda done, total: None)


def rows(tmp_path: Path, path: Path, **changes: Any) -> list[dict[str, Any]]:
    return list(token_rows(source(tmp_path, path, **changes), lambda done, total: None))


def test_the_report_is_that_of_preparing(tmp_path: Path) -> None:
    found = inspected(tmp_path, GSM8K, max_length=256)
    assert found.report == prepared(tmp_path, GSM8K, max_length=256).report
    assert found.report["over_limit"]["count"] > 0 and len(found.lengths) == 100


def test_everything_wrong_is_told_at_once_where_preparing_would_refuse(tmp_path: Path) -> None:
    lines = [chat("a?", "b"), {"no": 1}, chat("c?", "d " * 100), {"text": 1}, chat("held?", "e")]
    path = write_rows(tmp_path / "a.jsonl", lines)
    held = frozenset({digest_of("held?")})
    found = inspected(
        tmp_path, path, held_out=held, max_length=30, over_length="refuse", bad_rows="reject_file"
    )
    report = found.report
    assert len(found.lengths) == 2, "of the rows that train, or would if they were shorter"
    assert [bad["line"] for bad in report["rejected"]] == [2, 4]
    assert report["over_length"] == [3] and report["held_out"] == [5] and report["rows"] == 1
    assert report["lines"] == 5 and report["accepted"] == 3


def test_a_file_of_which_no_row_can_train_has_a_report(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [chat("c?", "d " * 100)])
    report = inspected(tmp_path, path, max_length=10).report
    assert report["rows"] == 0 and report["packing"]["packs"] == 0
    assert report["tokens"]["max"] > 100


def test_ids_and_what_trains_are_those_of_the_prepared_rows(tmp_path: Path) -> None:
    data = prepared(tmp_path, GSM8K, max_length=256)
    offsets, tokens, trained = (data.arrays[n] for n in ("offsets", "tokens", "trained"))
    lines = data.arrays["lines"].tolist()
    found = {row["line"]: row for row in rows(tmp_path, GSM8K, max_length=256)}
    assert sorted(found) == list(range(1, 101)), "every line, those that are too long as well"
    for number, line in enumerate(lines):
        a, b = int(offsets[number]), int(offsets[number + 1])
        assert found[line]["ids"] == tokens[a:b].tolist()
        assert found[line]["trained"] == trained[a:b].tolist()
        assert found[line]["left_out"] == ""
    for line in set(found) - set(lines):
        assert found[line]["left_out"] == "longer than max_length 256"


def test_segments_are_the_whole_text_cut_where_training_begins_and_ends(tmp_path: Path) -> None:
    for row, raw in zip(rows(tmp_path, GSM8K), GSM8K.read_text("utf-8").splitlines(), strict=True):
        answer = json.loads(raw)["messages"][-1]["content"]
        assert [part["text"] for part in row["segments"] if part["trained"]] == [
            answer + "<|im_end|>"
        ]
        assert "".join(part["text"] for part in row["segments"]).endswith(answer + "<|im_end|>\n")
        flags = [part["trained"] for part in row["segments"]]
        assert flags == [False, True, False]


@pytest.mark.parametrize("text", ["🙂🙂", "é天\u0301", "a\x00b\x1b[2J", "<|im_end|> <|im_start|>"])
def test_segments_of_many_byte_characters_lose_none(tmp_path: Path, text: str) -> None:
    tokenizer = ModelText(model_folder(tmp_path / "model")).tokenizer
    ids = np.array(tokenizer.encode(text + " yes", add_special_tokens=False).ids)
    for cut in range(1, len(ids)):
        # Also inside a character of several tokens, where no template would cut.
        trained = np.arange(len(ids)) >= cut
        parts = segments(tokenizer, ids, trained)
        assert "".join(part["text"] for part in parts) == text + " yes"
        assert [part["trained"] for part in parts] in ([False, True], [False])


def test_ids_that_do_not_encode_back_are_shown_piece_by_piece(tmp_path: Path) -> None:
    tokenizer = ModelText(model_folder(tmp_path / "model")).tokenizer
    merged = tokenizer.encode("the", add_special_tokens=False).ids
    letters = [tokenizer.token_to_id(letter) for letter in "the"]
    assert merged != letters
    parts = segments(tokenizer, np.array(letters), np.array([False, False, True]))
    assert parts == [{"text": "th", "trained": False}, {"text": "e", "trained": True}]


def test_a_text_row_trains_all_but_its_first_token(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "the end of it"}])
    (row,) = rows(tmp_path, path)
    assert row["trained"] == [False, *[True] * (len(row["ids"]) - 1)]
    assert "".join(part["text"] for part in row["segments"]) == "the end of it<|im_end|>"


def test_one_row_is_told_as_the_whole_file_tells_it(tmp_path: Path) -> None:
    lines = [chat("a?", "b"), {"no": 1}, chat("c?", "d " * 100), chat("held?", "e")]
    path = write_rows(tmp_path / "a.jsonl", lines)
    given = source(tmp_path, path, frozenset({digest_of("held?")}), max_length=30)
    whole = list(token_rows(given, lambda done, total: None))
    from queue_store.rows import read_rows

    alone = [one_row(given.model, given.settings, given.held_out, row) for row in read_rows(path)]
    assert alone == whole
    assert [row.get("left_out") for row in whole] == [
        "",
        None,
        "longer than max_length 30",
        "in an evaluation set",
    ]
    assert "error" in whole[1] and whole[1]["line"] == 2


def test_progress_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    list(token_rows(source(tmp_path, GSM8K), lambda *done: seen.append(done)))
    size = GSM8K.stat().st_size
    assert seen[-1] == (size, size)


# -- suggestions -------------------------------------------------------------------------------


def config(**training: Any) -> Config:
    base = configuration.default()
    plain = {"liger": "off", "chunked_loss": "off"}
    changed = {"max_length": 2048, "batch_size": 2, **plain, **training}
    return msgspec.structs.replace(
        base,
        model=msgspec.structs.replace(base.model, precision="bf16"),
        training=msgspec.structs.replace(base.training, **changed),
    )


def report(**more: Any) -> dict[str, Any]:
    return {"rejected_count": 0, "rejected": [], "packing": {"fill": 0.98}, **more}


def by_key(found: list[Suggestion]) -> dict[tuple[str, Any], Suggestion]:
    return {(one.key, one.value): one for one in found}


def test_the_memory_of_a_token_is_the_formula_of_the_docstring() -> None:
    training = config().training
    layer = 4 * 2560 + 3 * (32 + 2 * 8) * 128 + 4 * 9728
    assert bytes_per_token(QWEN3_4B, config().model, training) == 10 * 151936 + 36 * layer * 2
    checkpointed = config(gradient_checkpointing=True).training
    price = bytes_per_token(QWEN3_4B, config().model, checkpointed)
    assert price == 10 * 151936 + 36 * 2560 * 2
    chunked = config(chunked_loss="auto").training
    assert bytes_per_token(QWEN3_4B, config().model, chunked) == 36 * layer * 2
    # What was measured for Qwen3-4B at 4,096 tokens: logits 6.2 GB, checkpointed 0.75 GB.
    assert abs(4096 * 10 * 151936 - 6.2e9) < 0.05e9
    assert abs(4096 * 36 * 2560 * 2 - 0.75e9) < 0.01e9
    assert bytes_per_token({"hidden_size": 4}, config().model, training) is None
    assert bytes_per_token({"text_config": QWEN3_4B}, config().model, training) is not None
    assert positions({"text_config": QWEN3_4B}) == 40960 and positions({}) is None


def test_a_limit_that_is_much_too_long_is_suggested_smaller_with_what_it_saves() -> None:
    lengths = np.array([860] * 900 + [1205] * 99 + [1262])
    found = by_key(suggestions(report(), lengths, config(), QWEN3_4B))
    best = found["training.max_length", 1280]
    price = bytes_per_token(QWEN3_4B, config().model, config().training)
    assert price is not None and best.saves_bytes == (2048 - 1280) * price * 2
    assert "1280 holds every row" in best.text and "(estimate)" in best.text
    assert best.drops == 0 and best.fill is not None and 0.6 < best.fill < 0.75
    assert set(found) == {("training.max_length", 1280)}


def test_outliers_are_named_where_leaving_them_out_saves_much() -> None:
    lengths = np.array([100] * 995 + [1900] * 5)
    found = by_key(suggestions(report(), lengths, config(), QWEN3_4B))
    assert found["training.max_length", 128].drops == 5
    assert "leaves out the longest 5 rows" in found["training.max_length", 128].text
    assert ("training.max_length", 1920) not in found, "that would save next to nothing"


def test_rows_that_are_too_long_ask_for_a_larger_limit_and_what_it_costs() -> None:
    lengths = np.array([1000] * 10 + [3000])
    (one,) = suggestions(report(), lengths, config(), QWEN3_4B)
    assert (one.key, one.value, one.drops) == ("training.max_length", 3008, 0)
    assert one.saves_bytes is not None and one.saves_bytes < 0 and "more a batch" in one.text
    assert "trains 1 more row, too long now" in one.text
    small = {**QWEN3_4B, "max_position_embeddings": 2048}
    told = suggestions(report(), lengths, config(), small)
    assert [one.key for one in told] == [""] and "made for 2048" in told[0].text


def test_packing_is_suggested_where_it_would_save_steps() -> None:
    lengths = np.array([100] * 400)
    (one,) = suggestions(report(), lengths, config(packing=False), QWEN3_4B)
    assert (one.key, one.value) == ("training.packing", True)
    assert "400 rows into 20 sequences" in one.text and one.fill == round(40000 / 20 / 2048, 4)


def test_a_setting_that_fits_and_a_model_that_says_nothing() -> None:
    assert suggestions(report(), np.array([2000] * 100), config(), QWEN3_4B) == []
    (one,) = suggestions(report(), np.array([500] * 100), config(), {})
    assert one.saves_bytes is None and "estimate" not in one.text
    bad = report(rejected_count=2, rejected=[{"line": 4, "reason": "x"}])
    (mend,) = suggestions(bad, np.array([2000] * 100), config(), QWEN3_4B)
    assert "2 rejected lines (first: line 4)" in mend.text and mend.key == "data.bad_rows"
