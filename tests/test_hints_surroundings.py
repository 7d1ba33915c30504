"""The rules over disk, GPUs, queue, inbox and failed items; their order, and how a hint is told."""

from __future__ import annotations

import pytest

from engine.hints import surroundings as around
from engine.hints.hint import RULES, Hint, fields, in_order
from engine.hints.surroundings import Clock, Failed, Waits
from queue_store.failures import Cause

GB = 1_000_000_000


def test_a_low_disk_stays_low_until_there_is_clearly_room() -> None:
    limit, size = 3 * GB, GB
    assert around.disk_low(3 * GB, limit, size, "/s") is None
    hint = around.disk_low(2 * GB, limit, size, "/s")
    assert hint is not None and "2.0 GB are free" in hint.text and hint.figures["checkpoints"] == 2
    assert "prune" in hint.advice
    assert around.disk_low(31 * GB // 10, limit, size, "/s", held=True) is not None
    assert around.disk_low(34 * GB // 10, limit, size, "/s", held=True) is None


def test_a_queue_is_nearly_empty_when_the_last_item_ends_within_half_an_hour() -> None:
    assert around.queue_nearly_empty(0, 1700.0, "a.jsonl") is not None
    assert around.queue_nearly_empty(0, 1900.0, "a.jsonl") is None
    assert around.queue_nearly_empty(0, 1900.0, "a.jsonl", held=True) is not None
    assert around.queue_nearly_empty(0, 2800.0, "a.jsonl", held=True) is None
    assert around.queue_nearly_empty(1, 60.0, "a.jsonl", held=True) is None
    assert around.queue_nearly_empty(0, None, "a.jsonl") is None


def test_the_file_that_waits_longest_is_named_with_its_reason() -> None:
    files = [Waits("new", "quiet", 5.0), Waits("b", "a folder", 300.0), Waits("a", "open", 900.0)]
    hint = around.file_waits(files)
    assert hint is not None
    assert hint.text == "a waits in the inbox for 15 min: open (and 1 more)"
    assert around.file_waits(files[:1]) is None


def test_the_newest_failure_of_a_day_is_told_with_its_class_and_its_advice() -> None:
    old = Failed(1, "old", Cause.DATA, "line 3", 0.0)
    oom = Failed(2, "big.jsonl", Cause.CUDA_MEMORY, "tried to allocate 2 GiB", 90_000.0, tries=3)
    refused = Failed(3, "bad.jsonl", "rejected", "line 7: no messages", 89_000.0)
    hint = around.item_fails([old, oom, refused], 90_100.0)
    assert hint is not None
    assert hint.text == "big.jsonl: CUDA out of memory: tried to allocate 2 GiB (and 1 more)"
    assert "gradient_checkpointing" in hint.advice and "retry 2" in hint.advice
    assert hint.figures == {"item": 2, "cause": Cause.CUDA_MEMORY, "tries": 3, "items": 2}
    assert around.item_fails([old], 90_100.0) is None
    mend = around.failing(refused).advice
    assert "validate" in mend and "add it anew" in mend and "retry" not in mend


def test_memory_is_told_with_its_peak_and_nan_with_where_the_model_stands_again() -> None:
    oom = Failed(2, "b", Cause.CUDA_MEMORY, "no room", 0.0, peak_bytes=23_100_000_000, back_to=100)
    assert around.failing(oom).text == (
        "b: CUDA out of memory: no room; peak of its steps 23.1 GB; the model is back at step 100"
    )
    assert around.failing(oom).figures["peak_bytes"] == 23_100_000_000
    nan = Failed(3, "c", Cause.NOT_A_NUMBER, "loss is nan at step 7", 0.0, peak_bytes=9, back_to=5)
    hint = around.failing(nan)
    assert hint.text == "c: not a number: loss is nan at step 7; the model is back at step 5"
    assert "lower training.learning_rate" in hint.advice and "peak_bytes" not in hint.figures


HOT = Clock(0, ("sw_thermal_slowdown",), 91.0)
COOL = Clock(0, (), 70.0)


@pytest.mark.parametrize(
    ("hot", "held", "raised"),
    [(12, False, True), (8, False, False), (4, True, True), (2, True, False)],
)
def test_a_gpu_is_told_that_is_held_back_for_most_of_a_minute(
    hot: int, held: bool, raised: bool
) -> None:
    looks = [[COOL]] * (12 - hot) + [[HOT]] * hot
    hint = around.gpu_throttles(looks, held)
    assert (hint is not None) == raised
    if hint is not None:
        assert "GPU 0 is held back at 91 °C: it is too hot" in hint.text


def test_a_card_at_its_power_limit_or_that_does_not_tell_raises_nothing() -> None:
    card = {"throttle": ["sw_power_cap"], "temperature": {"unknown": "no"}}
    assert around.clocks([card]) == [Clock(0, (), None)]
    assert around.clocks([{"throttle": {"unknown": "not supported"}}, {}]) == []
    assert around.clocks({"unknown": "NVML"}) == []
    assert around.gpu_throttles([around.clocks([card])] * 12) is None
    assert around.gpu_throttles([[HOT]] * 5) is None, "five looks are no minute"


def test_hints_come_in_the_order_of_their_importance_one_a_rule() -> None:
    told = [Hint("plateau", "p"), Hint("item_fails", "first"), Hint("item_fails", "second")]
    assert [hint.text for hint in in_order(told)] == ["first", "p"]


def test_what_stops_training_says_more_than_that_it_is_paused() -> None:
    assert [h.rule for h in in_order([around.paused(3), Hint("disk_full", "d")])] == ["disk_full"]


def test_a_hint_is_told_with_rule_text_figures_reason_advice_and_since() -> None:
    found = fields([around.paused(120, 5.0), Hint("plateau", "flat")], 200, 9.0)
    assert found["hint"] == "flat"
    assert [hint["rule"] for hint in found["hints"]] == ["plateau", "paused"]
    assert found["hints"][0]["since"] == {"step": 200, "time": 9.0}
    paused = found["hints"][1]
    assert paused["since"] == {"step": 120, "time": 5.0} and paused["figures"] == {"step": 120}
    for hint in found["hints"]:
        assert set(hint) == {"rule", "level", "text", "figures", "reason", "advice", "since"}
        assert hint["reason"] == RULES[hint["rule"]].reason
    assert fields([], 0, 0.0) == {"hint": "", "hints": []}
