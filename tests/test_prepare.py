"""A file becomes prepared data once, completely or not at all, and the same everywhere."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.prepare import Cancelled, Prepared, prepare
from engine.prepare.prepared import META, file_of
from queue_store.errors import DataError, VerificationFailed
from queue_store.rows import Message, Row, prompt_digest
from tests.prepare_model import (
    CHATML,
    GSM8K,
    MARKED,
    chat,
    model_folder,
    prepared,
    settings,
    write_rows,
)


def sums(count: int, start: int = 0) -> list[Any]:
    return [chat(f"{i} + {i}?", f"= {2 * i}") for i in range(start, start + count)]


def rows_of(data: Prepared) -> dict[int, list[int]]:
    """Line to token ids, from the packs."""
    found: dict[int, list[int]] = {}
    for pack in range(data.packs):
        sequence = data.sequence(pack)
        starts = [*np.flatnonzero(sequence.position_ids == 0).tolist(), len(sequence.input_ids)]
        for line, a, b in zip(sequence.lines, starts[:-1], starts[1:], strict=True):
            assert line not in found, "a row is in two packs"
            found[line] = sequence.input_ids[a:b].tolist()
    return found


def test_real_rows_are_prepared_each_once_with_its_tokens(tmp_path: Path) -> None:
    import transformers

    data = prepared(tmp_path, GSM8K, max_length=512)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    lines = [json.loads(line) for line in GSM8K.read_text("utf-8").splitlines()]
    expected = {
        number: tokenizer.apply_chat_template(row["messages"], return_dict=False)
        for number, row in enumerate(lines, 1)
    }
    fitting = {number: ids for number, ids in expected.items() if len(ids) <= 512}
    assert rows_of(data) == fitting
    assert data.rows == len(fitting) and data.lines == 100 and data.held_out == []
    assert data.over_length == sorted(set(expected) - set(fitting))
    lengths = [len(ids) for ids in expected.values()]
    tokens = data.report["tokens"]
    assert tokens["max"] == max(lengths) and tokens["total"] == sum(lengths)
    assert tokens["p50"] in lengths and sum(tokens["histogram"]["counts"]) == 100
    assert data.report["packing"]["fill"] > 0.8
    assert data.validation.packs == 0 and data.validation.rows == 0
    assert data.sequence(0).input_ids.dtype == np.int32
    assert data.sequence(0).trained.dtype == np.bool_
    assert all(len(data.sequence(p).input_ids) <= 512 for p in range(data.packs))


def test_what_is_prepared_is_found_again_and_not_made_again(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(50))
    first = prepared(tmp_path, source)
    stamp = (first.folder / META).stat().st_mtime_ns
    again = prepared(tmp_path, write_rows(tmp_path / "renamed.jsonl", sums(50)))
    assert again.folder == first.folder and (again.folder / META).stat().st_mtime_ns == stamp
    assert again.digest == first.digest and again.key == first.key == first.folder.name


def test_the_key_covers_everything_that_decides_the_arrays(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(40))
    base = prepared(tmp_path, source)
    keys = {base.key}
    changes: list[dict[str, Any]] = [
        {"max_length": 100},
        {"packing": False},
        {"system_prompt": "x"},
        {"profile": "regime3"},
        {"thinking": "keep"},
        {"over_length": "refuse"},
        {"bad_rows": "drop"},
        {"bad_rows_limit": 0.5},
        {"level": "deep"},
        {"validation_split": 0.1},
        {"seed": 7},
        {"template": MARKED},
        {"held_out": frozenset({"00"})},
    ]
    for change in changes:
        keys.add(prepared(tmp_path, source, **change).key)
    keys.add(prepared(tmp_path, write_rows(tmp_path / "a.jsonl", sums(41))).key)
    assert len(keys) == len(changes) + 2


def test_the_same_rows_give_the_same_bytes_in_another_home(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(300))
    one, two = prepared(tmp_path / "one", source), prepared(tmp_path / "two", source)
    assert one.folder != two.folder and one.digest == two.digest
    for path in sorted(one.folder.iterdir()):
        assert path.read_bytes() == (two.folder / path.name).read_bytes()


def test_order_is_a_permutation_of_seed_digest_and_epoch_alone(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(120))
    data = prepared(tmp_path, source, max_length=64)
    order = data.order(42, 0)
    assert sorted(order.packs.tolist()) == list(range(data.packs))
    assert order.packs.dtype == np.int64 and order.packs.tolist() != sorted(order.packs.tolist())
    sizes = [len(data.rows_of(pack)) for pack in order.packs.tolist()]
    assert order.rows_before.tolist() == [sum(sizes[:n]) for n in range(data.packs + 1)]
    assert order.rows_before[-1] == data.rows == 120
    reopened = Prepared.open(data.folder)
    assert np.array_equal(reopened.order(42, 0).packs, order.packs)
    for seed, epoch in ((42, 1), (43, 0)):
        assert not np.array_equal(data.order(seed, epoch).packs, order.packs)
    assert data.steps_per_epoch(8) == -(-data.packs // 8)
    assert prepared(tmp_path, source).validation.order(1, 0).packs.tolist() == []


def test_order_stays_what_it_was_in_earlier_releases() -> None:
    data = Prepared(
        Path(),
        {"format": 2, "digest": "fixed", "report": {}},
        {
            "pack_offsets": np.arange(11),
            "pack_rows": np.arange(10),
            "offsets": np.arange(0, 110, 10),
        },
    )
    assert data.order(42, 3).packs.tolist() == [1, 8, 5, 3, 0, 2, 4, 9, 6, 7]
    # The first epoch begins with the longest pack (all are of one row here, all of 10 tokens), but
    # for an item that began with data of format 1.
    of_format_1 = dataclasses.replace(data, meta={**data.meta, "format": 1})
    begun = of_format_1.order(42, 0).packs.tolist()
    assert begun != sorted(begun) and begun[0] != 0
    assert data.order(42, 0).packs.tolist() == [0, *(pack for pack in begun if pack)]
    assert of_format_1.order(42, 3).packs.tolist() == data.order(42, 3).packs.tolist()


@pytest.mark.parametrize("packing", [True, False])
def test_the_first_epoch_begins_with_the_longest_pack(tmp_path: Path, packing: bool) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(60))
    data = prepared(tmp_path, source, max_length=100, packing=packing)
    tokens = [len(data.sequence(pack).input_ids) for pack in range(data.packs)]
    first = int(data.order(42, 0).packs[0])
    assert tokens[first] == max(tokens) == data.report["packing"]["longest_pack"]
    assert sorted(data.order(42, 0).packs.tolist()) == list(range(data.packs))
    others = [data.order(42, 0).packs[1:].tolist(), data.order(42, 1).packs.tolist()]
    assert all(packs != sorted(packs) for packs in others)
    assert {int(data.order(42, epoch).packs[0]) for epoch in range(1, 9)} != {first}


def test_rows_of_an_evaluation_set_never_train(tmp_path: Path) -> None:
    rows = sums(30)
    turns = tuple(Message(m["role"], m["content"]) for m in rows[4]["messages"])
    held = frozenset({prompt_digest(Row(0, turns, None, {}))})
    rows.append(chat(" 4  + 4? ", "another answer"))
    data = prepared(tmp_path, write_rows(tmp_path / "a.jsonl", rows), held_out=held)
    assert data.held_out == [5, 31] and data.rows == 29
    assert not {5, 31} & set(rows_of(data))


def test_over_length_rows_are_dropped_by_line_or_refuse_the_file(tmp_path: Path) -> None:
    rows = [*sums(5), chat("q", "long " * 100), *sums(3, 10), chat("q", "words " * 300)]
    source = write_rows(tmp_path / "a.jsonl", rows)
    data = prepared(tmp_path, source, max_length=64)
    assert data.over_length == [6, 10] and data.rows == 8
    assert data.report["over_limit"]["count"] == 2
    longest = data.report["over_limit"]["longest"]
    assert data.report["over_limit"]["longest_line"] == 10 and longest > 300
    with pytest.raises(DataError, match=rf"a\.jsonl: 2 of 10 rows .*max_length = {longest}"):
        prepared(tmp_path, source, max_length=64, over_length="refuse")
    assert prepared(tmp_path, source, max_length=longest, over_length="refuse").rows == 10


def test_bad_rows_reject_the_file_or_are_dropped_and_counted(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [*sums(2), {"nothing": 1}, *sums(2, 5), [7]])
    with pytest.raises(DataError, match=r"^a\.jsonl:3: has no messages.*data\.bad_rows"):
        prepared(tmp_path, source)
    data = prepared(tmp_path, source, bad_rows="drop", bad_rows_limit=0.5)
    assert data.rows == 4 and data.lines == 6 and data.report["accepted"] == 4
    assert [entry["line"] for entry in data.report["rejected"]] == [3, 6]


def test_a_file_of_which_nothing_trains_is_refused_with_the_reasons(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [{"x": 1}, chat("q", "long " * 100)])
    with pytest.raises(
        DataError, match=r"no row can train: 1 refused, 1 longer than max_length 64"
    ):
        prepared(tmp_path, source, max_length=64, bad_rows="drop")
    empty = write_rows(tmp_path / "e.jsonl", [])
    for bad_rows in ("drop", "reject_file"):
        with pytest.raises(DataError, match="the file is empty"):
            prepared(tmp_path, empty, bad_rows=bad_rows)


def test_all_masked_and_nothing_masked_are_told_apart(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(2))
    without = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match=r"a\.jsonl:1: no assistant segment"):
        prepared(tmp_path, source, template=without)
    everything = (
        "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}"
    )
    with pytest.raises(DataError, match=r"a\.jsonl:1: nothing is masked"):
        prepared(tmp_path, source, template=everything)
    assert not list((tmp_path / "home" / "store" / "tmp").iterdir())


def test_validation_takes_its_share_by_prompt_and_only_of_large_files(tmp_path: Path) -> None:
    rows = sums(2000)
    data = prepared(tmp_path, write_rows(tmp_path / "a.jsonl", rows), validation_split=0.05)
    held, train = rows_of(data.validation), rows_of(data)
    assert len(held) == data.validation.rows == 100 and len(train) == data.rows == 1900
    assert not set(held) & set(train) and set(held) | set(train) == set(range(1, 2001))
    assert data.report["validation"] == {"rows": 100, "packs": data.validation.packs}
    # The same prompts wherever their rows stand, others with another seed.
    shuffled = list(enumerate(rows, 1))
    random.Random(1).shuffle(shuffled)
    moved = prepared(
        tmp_path,
        write_rows(tmp_path / "b.jsonl", [row for _, row in shuffled]),
        validation_split=0.05,
    )
    assert {shuffled[line - 1][0] for line in rows_of(moved.validation)} == set(held)
    other = prepared(tmp_path, tmp_path / "a.jsonl", validation_split=0.05, seed=1)
    assert set(rows_of(other.validation)) != set(held)
    small = prepared(tmp_path, write_rows(tmp_path / "s.jsonl", rows[:1999]), validation_split=0.4)
    assert small.validation.rows == 0 and small.rows == 1999


def test_rows_with_one_prompt_are_all_trained_or_all_held_out(tmp_path: Path) -> None:
    rows = [chat(f"{i % 500}?", f"answer {i}") for i in range(2000)]
    source = write_rows(tmp_path / "a.jsonl", rows)
    data = prepared(tmp_path, source, validation_split=0.1)
    held = {(line - 1) % 500 for line in rows_of(data.validation)}
    assert data.validation.rows == 200 and len(held) == 50
    assert not held & {(line - 1) % 500 for line in rows_of(data)}
    same = write_rows(tmp_path / "b.jsonl", [chat("one prompt", str(i)) for i in range(2000)])
    assert prepared(tmp_path, same, validation_split=0.1).rows == 2000


def test_without_packing_each_row_is_a_pack_in_the_order_of_the_file(tmp_path: Path) -> None:
    data = prepared(tmp_path, write_rows(tmp_path / "a.jsonl", sums(9)), packing=False)
    assert [data.sequence(pack).lines for pack in range(9)] == [(n,) for n in range(1, 10)]
    with pytest.raises(IndexError):
        data.sequence(9)


def test_calling_off_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [chat("q", "word " * 2000) for _ in range(800)])
    seen: list[tuple[int, int]] = []
    with pytest.raises(Cancelled):
        prepare(
            source,
            model_folder=model_folder(tmp_path / "model"),
            settings=settings(max_length=100_000),
            held_out=frozenset(),
            root=tmp_path / "home" / "store" / "prepared",
            progress=lambda done, total: seen.append((done, total)),
            cancelled=lambda: len(seen) >= 2,
        )
    size = source.stat().st_size
    assert len(seen) == 2 and all(0 < done < total == size for done, total in seen)
    store = tmp_path / "home" / "store"
    assert not list((store / "prepared").iterdir()) and not list((store / "tmp").iterdir())


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(10))
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        seen.clear()
        prepare(
            source,
            model_folder=model_folder(tmp_path / "model"),
            settings=settings(),
            held_out=frozenset(),
            root=tmp_path / "home" / "store" / "prepared",
            progress=lambda done, total: seen.append((done, total)),
            cancelled=lambda: False,
        )
        assert seen[-1] == (source.stat().st_size, source.stat().st_size)


def test_damage_on_disk_is_seen_and_not_trained_on(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(20))
    data = prepared(tmp_path, source)
    tokens = data.folder / file_of("tokens")
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-4])
    with pytest.raises(VerificationFailed, match=r"tokens\.bin has"):
        Prepared.open(data.folder)
    tokens.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(VerificationFailed, match="other bytes"):
        Prepared.open(data.folder, verify=True)
    # Found so when it is to train, it is set apart and made anew.
    again = prepared(tmp_path, source)
    assert (again.folder / file_of("tokens")).read_bytes() == whole
    assert len(list((tmp_path / "home" / "store" / "quarantine").iterdir())) == 1
    tokens.unlink()
    with pytest.raises(VerificationFailed, match="damaged"):
        Prepared.open(data.folder)


def test_a_kill_between_the_files_and_their_name_leaves_no_half_folder(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", sums(20))
    root = tmp_path / "home" / "store" / "prepared"
    code = (
        "from pathlib import Path; from tests.prepare_model import prepared; "
        f"prepared(Path({str(tmp_path)!r}), Path({str(source)!r}))"
    )
    environment = {"TRAINCTL_CRASH_AT": "publish.synced", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -9 and not list(root.iterdir())
    assert prepared(tmp_path, source).rows == 20


def test_text_and_chat_rows_of_one_file_train_together(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [*sums(3), {"text": "a story of a number"}])
    data = prepared(tmp_path, source, template=CHATML)
    assert data.rows == 4
    assert (data.report["chat_rows"], data.report["text_rows"]) == (3, 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(rows: int) -> float:
        source = write_rows(
            tmp_path / f"{rows}.jsonl",
            [chat(f"{i}?", "seven words of text " * 200) for i in range(rows)],
        )
        code = (
            "import resource; from pathlib import Path; from tests.prepare_model import prepared; "
            f"prepared(Path({str(tmp_path)!r}), Path({str(source)!r}), max_length=8192); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    small, large = peak(500), peak(4000)  # 2 MB and 16 MB of text
    assert large - small < 100
