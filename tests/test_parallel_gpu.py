"""Ranks on cards, over NCCL: what only several GPUs can show."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import ranks_kit
from tests.test_parallel import alone, arguments, one, place
from tests.training_kit import Recorder

__all__ = ["alone", "place"]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA cards"),
]


def cards(place: dict[str, Any], sharded: bool, name: str, **changes: Any) -> list[Any]:
    folder = place["root"] / f"cards-{name}-{sharded}"
    given = arguments(place, device="cuda", **changes)
    return ranks_kit.run("train", 2, folder, sharded=sharded, timeout=120.0, **given)


@pytest.mark.parametrize("sharded", [False, True])
def test_two_cards_train_as_one_process(
    place: dict[str, Any], alone: Recorder, sharded: bool
) -> None:
    results = cards(place, sharded, "equal", epochs=2)
    one(results, "digest")
    for mine, theirs in zip(results[0]["metrics"], alone.steps, strict=True):
        assert mine["tokens"] == theirs.tokens
        assert mine["loss"] == pytest.approx(theirs.loss, rel=1e-2)
        assert 0 < mine["memory"] < 4e9  # of the card, not of the host


@pytest.mark.parametrize("sharded", [False, True])
def test_resumed_on_two_cards_the_end_is_bit_identical(
    place: dict[str, Any], sharded: bool
) -> None:
    saved = place["root"] / f"cards-saved-{sharded}"
    settings = {"deterministic": True}
    straight = cards(
        *(place, sharded, "straight"), model="dropout", settings=settings, save_at={"3": str(saved)}
    )
    resumed = cards(
        *(place, sharded, "resumed"),
        model="dropout",
        settings=settings,
        restore=str(saved),
        cursor=straight[0]["metrics"][2]["cursor_to"],
    )
    assert one(resumed, "digest") == one(straight, "digest")
    assert [r["rng"] for r in resumed] == [r["rng"] for r in straight]
