"""Packs: every row once, never over the limit, the same everywhere; and no row sees another."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.prepare import Prepared, Sequence
from engine.prepare.collate import IGNORED, collate
from engine.prepare.packing import at_least, best_fit, one_each, tightest
from tests.prepare_model import chat, prepared, write_rows

VOCABULARY = 1024


def reference_mix(count: int) -> np.ndarray:
    """Lengths with the quantiles of the reference file: mean 860, p95 1205, p99 1250, max 1262
    (requirement D04), drawn in between."""
    shares, tokens = [0, 0.05, 0.5, 0.95, 0.99, 1], [458, 515, 860, 1205, 1250, 1262]
    drawn = np.random.default_rng(5).random(count)
    return np.interp(drawn, shares, tokens).round().astype(np.int64)


def packs_of(packed: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    return [packed[1][a:b].tolist() for a, b in itertools.pairwise(packed[0])]


def fewest_packs(lengths: list[int], limit: int) -> int:
    """The optimum, by trying everything: for few rows."""
    rows = sorted(lengths, reverse=True)
    best = len(rows)

    def place(at: int, rooms: list[int]) -> None:
        nonlocal best
        if len(rooms) >= best:
            return
        if at == len(rows):
            best = len(rooms)
            return
        for room in sorted(set(rooms)):
            if room >= rows[at]:
                i = rooms.index(room)
                place(at + 1, [*rooms[:i], room - rows[at], *rooms[i + 1 :]])
        place(at + 1, [*rooms, limit - rows[at]])

    place(0, [])
    return best


MIXES = st.one_of(
    st.lists(st.integers(1, 64), max_size=200),
    # Two rows and a half to a pack: where best fit leaves room, and packs are filled one by one.
    st.lists(st.integers(14, 39), min_size=20, max_size=200),
)


@given(MIXES, st.integers(64, 128))
@settings(max_examples=100, deadline=None)
def test_every_row_is_in_one_pack_and_no_pack_overflows(lengths: list[int], limit: int) -> None:
    values = np.array(lengths, dtype=np.int64)
    plain, tight = best_fit(values, limit), tightest(values, limit)
    for packed in (plain, tight):
        packs = packs_of(packed)
        assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
        assert all(pack == sorted(pack) for pack in packs)
        sums = sorted(sum(lengths[row] for row in pack) for pack in packs)
        assert all(0 < total <= limit for total in sums)
        assert len(packs) >= at_least(values, limit)
    # Best fit opens no pack while a row would fit another: the two emptiest never fit together.
    sums = sorted(sum(lengths[row] for row in pack) for pack in packs_of(plain))
    assert len(sums) < 2 or sums[0] + sums[1] > limit
    assert len(tight[0]) <= len(plain[0])
    again = tightest(values.copy(), limit)
    assert np.array_equal(tight[0], again[0]) and np.array_equal(tight[1], again[1])


@given(st.lists(st.integers(14, 64), min_size=1, max_size=10))
@settings(max_examples=100, deadline=None)
def test_the_bound_is_at_most_the_optimum_and_the_packs_are_near_it(lengths: list[int]) -> None:
    values = np.array(lengths, dtype=np.int64)
    optimum = fewest_packs(lengths, 64)
    assert at_least(values, 64) <= optimum <= len(tightest(values, 64)[0]) - 1 <= optimum + 1


def test_the_reference_mix_is_packed_to_98_per_cent() -> None:
    lengths = reference_mix(20_000)
    assert abs(lengths.mean() - 860.3) < 3 and lengths.max() == 1262
    assert np.abs(np.percentile(lengths, [95, 99]) - [1205, 1250]).max() <= 2
    offsets, _ = tightest(lengths, 2048)
    fill = lengths.sum() / (2048 * (len(offsets) - 1))
    assert fill > 0.985  # best fit alone: 0.982
    assert fill <= lengths.sum() / (2048 * at_least(lengths, 2048)) <= 1


def test_the_packs_of_a_mix_are_the_same_on_every_machine() -> None:
    """Integers only, and no order that is a library's choice: a recorded digest holds it."""
    lengths = (np.arange(5000, dtype=np.int64) * 7919) % 790 + 458
    digest = hashlib.sha256()
    for array in tightest(lengths, 2048):
        digest.update(array.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "916ad514ed428143"


def test_packing_many_short_rows_is_tight() -> None:
    lengths = np.random.default_rng(3).integers(20, 1262, size=20_000)
    offsets, _ = tightest(lengths, 2048)
    assert lengths.sum() / (2048 * (len(offsets) - 1)) > 0.99


def test_an_oversized_row_is_refused() -> None:
    with pytest.raises(ValueError, match="9 tokens does not fit 8"):
        tightest(np.array([3, 9]), 8)


def test_without_packing_every_row_is_a_pack() -> None:
    offsets, rows = one_each(3)
    assert offsets.tolist() == [0, 1, 2, 3] and rows.tolist() == [0, 1, 2]
    assert tightest(np.zeros(0, dtype=np.int64), 8)[0].tolist() == [0]


def rows_of(*lengths: int, seed: int = 0) -> list[Sequence]:
    """Sequences of one row each, random tokens, about half of them trained."""
    rng = np.random.default_rng(seed)
    return [
        Sequence(
            input_ids=rng.integers(3, VOCABULARY, length).astype(np.int32),
            trained=rng.random(length) < 0.5,
            position_ids=np.arange(length, dtype=np.int32),
            lines=(line,),
        )
        for line, length in enumerate(lengths, 1)
    ]


def joined(rows: list[Sequence]) -> Sequence:
    return Sequence(
        *(
            np.concatenate([getattr(row, name) for row in rows])
            for name in ("input_ids", "trained", "position_ids")
        ),
        lines=tuple(line for row in rows for line in row.lines),
    )


def test_a_batch_has_no_attention_mask_and_its_labels_stay_within_rows() -> None:
    first, second = joined(rows_of(5, 3)), joined(rows_of(1, 9, seed=1))
    first.trained[:] = True
    batch = collate([first, second], pad_id=7)
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert all(tensor.shape == (2, 16) for tensor in batch.values())
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, *range(8)]
    assert batch["labels"][0, [0, 5]].tolist() == [IGNORED, IGNORED]
    assert batch["labels"][0, 1:5].tolist() == first.input_ids[1:5].tolist()
    assert batch["labels"][0, 8:].tolist() == [IGNORED] * 8
    assert batch["input_ids"][0, 8:].tolist() == [7] * 8
    untrained = ~second.trained
    assert (batch["labels"][1, :10].numpy()[untrained] == IGNORED).all()
    assert collate([first], pad_to=32)["input_ids"].shape == (1, 32)
    with pytest.raises(ValueError, match="pad_to=4"):
        collate([first], pad_to=4)


def model(attention: str) -> transformers.Qwen3ForCausalLM:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    config._attn_implementation = attention
    built = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():  # large weights: what leaks shows
        for parameter in built.parameters():
            parameter.mul_(3.0)
    return built


def leak(
    built: transformers.Qwen3ForCausalLM, packs: list[list[Sequence]], **extra: torch.Tensor
) -> float:
    """The largest difference between a packed row's logits and those of the row alone."""
    batch = collate([joined(rows) for rows in packs])
    kwargs = {"use_cache": False, **extra}
    worst = 0.0
    with torch.no_grad():
        packed = built(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], **kwargs
        ).logits
        for place, rows in enumerate(packs):
            at = 0
            for row in rows:
                end = at + len(row.input_ids)
                ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
                alone = built(input_ids=ids, use_cache=False).logits[0]
                worst = max(worst, float((packed[place, at:end] - alone).abs().max()))
                at = end
    return worst


PACKS = [rows_of(17, 5, 30), rows_of(9, 1, 21, 4, seed=1)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [True, False])
def test_packed_rows_have_the_logits_of_the_rows_alone(attention: str, training: bool) -> None:
    built = model(attention).train(training)
    assert leak(built, PACKS) <= 1e-5


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_check_sees_the_leak_of_an_all_ones_attention_mask(attention: str) -> None:
    length = collate([joined(rows) for rows in PACKS])["input_ids"].shape
    assert leak(model(attention), PACKS, attention_mask=torch.ones(length)) > 0.01


def test_loss_and_gradients_of_packs_are_those_of_the_rows() -> None:
    def train(sequences: list[Sequence]) -> tuple[float, torch.Tensor]:
        built = model("sdpa").train()
        loss = built(**collate(sequences), use_cache=False).loss
        loss.backward()
        gradients = [p.grad.flatten() for p in built.parameters() if p.grad is not None]
        return float(loss.detach()), torch.cat(gradients)

    packed, packed_gradients = train([joined(rows) for rows in PACKS])
    plain, plain_gradients = train([row for rows in PACKS for row in rows])
    assert packed == pytest.approx(plain, rel=1e-5)
    difference = (packed_gradients - plain_gradients).norm() / plain_gradients.norm()
    assert float(difference) < 1e-5


def test_packs_of_a_real_file_do_not_leak(tmp_path: Path) -> None:
    rows = [chat(f"What is {i} plus {i}?", f"{'so ' * (i % 7)}{2 * i}") for i in range(40)]
    data: Prepared = prepared(tmp_path, write_rows(tmp_path / "f.jsonl", rows), max_length=160)
    assert data.packs < 40 / 3
    built = model("sdpa").eval()
    for pack in range(data.packs):
        sequence = data.sequence(pack)
        starts = [*np.flatnonzero(sequence.position_ids == 0).tolist(), len(sequence.input_ids)]
        assert len(starts) - 1 == len(sequence.lines)
        split = [
            Sequence(
                sequence.input_ids[a:b], sequence.trained[a:b], sequence.position_ids[a:b], (1,)
            )
            for a, b in itertools.pairwise(starts)
        ]
        assert leak(built, [split]) <= 1e-5
