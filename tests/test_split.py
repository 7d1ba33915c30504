"""How packs are divided over ranks."""

from __future__ import annotations

import itertools

import pytest

from engine.training.split import NO_PACK, RankBatches
from queue_store.errors import ConfigError
from queue_store.sharing import check_shared
from tests.training_kit import training


def batches(packs: int, effective: int, batch: int, rank: int, size: int) -> list[list[int]]:
    made = RankBatches(packs, effective_batch=effective, batch_size=batch, rank=rank, size=size)
    found = list(made)
    assert len(made) == len(found)
    return found


def test_one_process_takes_the_packs_in_their_order() -> None:
    assert batches(7, 4, 2, 0, 1) == [[0, 1], [2, 3], [4, 5], [6]]


def test_micro_batch_m_of_rank_r_is_its_part_of_the_step() -> None:
    assert batches(16, 8, 2, 0, 2) == [[0, 1], [4, 5], [8, 9], [12, 13]]
    assert batches(16, 8, 2, 1, 2) == [[2, 3], [6, 7], [10, 11], [14, 15]]


def test_in_the_last_step_a_rank_without_a_pack_takes_none() -> None:
    assert batches(9, 8, 2, 0, 2)[-1:] == [[8]]
    assert batches(9, 8, 2, 1, 2)[-1:] == [[NO_PACK]]


def test_every_pack_trains_once_and_in_its_step_on_all_ranks_together() -> None:
    for packs, size, batch, times in itertools.product(range(30), (1, 2, 3, 4), (1, 2), (1, 2, 3)):
        effective = size * batch * times
        ranks = [batches(packs, effective, batch, rank, size) for rank in range(size)]
        assert len({len(rank) for rank in ranks}) == 1
        seen = [pack for rank in ranks for some in rank for pack in some if pack != NO_PACK]
        assert sorted(seen) == list(range(packs))
        # Micro-batches of a step come one after the other: the step of each is known by its place.
        for rank in ranks:
            for place, some in enumerate(rank):
                for pack in some:
                    assert pack == NO_PACK or pack // effective == place // times


def test_what_cannot_be_divided_is_refused_with_the_nearest_values() -> None:
    check_shared(training(batch_size=2, effective_batch=8), 4)
    with pytest.raises(ConfigError) as caught:
        check_shared(training(batch_size=2, effective_batch=14), 4)
    assert caught.value.where == "training.effective_batch"
    assert "set it to 8 or 16" in caught.value.mend
    with pytest.raises(ConfigError) as caught:
        check_shared(training(batch_size=1, effective_batch=2), 4)
    assert "set it to 4, or" in caught.value.mend
    whole = training(batch_size=2, effective_batch=2, in_backward=True, max_grad_norm=0.0)
    check_shared(whole, 1)
    with pytest.raises(ConfigError, match="in_backward"):
        check_shared(whole, 2)
