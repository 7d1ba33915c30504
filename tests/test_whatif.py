"""What other settings would take: the choices, the lines for config.toml, and the measuring."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.memory import cards, fitting, whatif
from engine.memory.estimate import Estimate, Ranks, estimate
from engine.memory.fitting import with_settings
from engine.memory.whatif import WhatIf
from queue_store import config as configuration
from queue_store.database import open_state
from queue_store.errors import NotFound
from queue_store.home import Home
from tests.tui_world import World
from tests.tui_world_memory import Profiled, qwen3_4b


@pytest.fixture
def found() -> WhatIf:
    """Qwen3-4B on a card of 24 GB, as config.toml ships."""
    with World().what_if() as made:
        while (config := made.wanting()) is not None:
            made.measure(config, threading.Event(), lambda done, of: None)
        return made


def row(found: WhatIf, name: str) -> whatif.Row:
    return next(row for row in found.rows if row.name == name)


def test_every_choice_of_every_setting_can_be_taken_and_left_again(found: WhatIf) -> None:
    for name in [row.name for row in found.rows]:
        found.reset()
        found.change(row(found, name), -1000)
        seen = [row(found, name).value]
        while row(found, name).at + 1 < len(row(found, name).choices):
            found.change(row(found, name), 1)
            seen.append(row(found, name).value)
            assert found.estimate() is not None
        assert seen == [choice.name for choice in row(found, name).choices]
        found.change(row(found, name), 1)
        assert row(found, name).value == seen[-1], "the last one stays"
    found.reset()
    assert found.config == found.base and found.card == whatif.HERE and not found.lines()


def test_the_lines_make_the_configuration_that_is_looked_at(found: WhatIf, tmp_path: Path) -> None:
    for one in found.rows:
        if one.name != whatif.CARD:
            found.change(row(found, one.name), 1)
    path = tmp_path / "config.toml"
    path.write_text("\n".join(found.lines()))
    assert configuration.load(path) == found.config
    assert found.config != found.base


def test_a_batch_over_the_effective_one_has_a_step_of_its_own(found: WhatIf) -> None:
    found.change(row(found, "batch_size"), 1000)
    training = found.config.training
    assert (
        training.batch_size == training.effective_batch == 8 * found.base.training.effective_batch
    )


def test_what_fits_is_taken_by_its_settings_and_fits_then(found: WhatIf) -> None:
    whole = found.estimate()
    assert whole is not None and whole.total > found.device.usable
    near = found.nearest()
    assert near
    for one in near:
        found.reset()
        found.take(one.settings)
        now = found.estimate()
        assert now == one.estimate and now.total <= found.device.usable
        assert found.changed() == {
            key: value for key, value in one.settings.items() if key in found.changed()
        }


def test_what_changes_training_least_is_proposed_first(found: WhatIf) -> None:
    whole = found.estimate()
    assert whole is not None

    def near(less: float) -> list[dict[str, Any]]:
        size = int(whole.total - less)
        device = cards.Device("a card", 2 * size, size, True)
        return [dict(one.settings) for one in fitting.nearest(found.config, device, found.estimate)]

    found.take({"training.batch_size": 8})
    whole = found.estimate()
    assert whole is not None
    assert [one.popitem() for one in near(1)] == [
        ("training.batch_size", 4),
        ("training.gradient_checkpointing", True),
        ("training.optimizer", "adamw_8bit"),
    ]
    least = {
        "training.gradient_checkpointing": True,
        "training.activation_offload": True,
        "training.optimizer": "paged_adamw_8bit",
        "training.chunked_loss": "on",
    }
    found.reset()
    found.take({**least, "training.effective_batch": 4})
    whole = found.estimate()
    assert whole is not None
    first, second, *_ = near(3e9)
    assert first == {**fitting.IN_BACKWARD, "training.batch_size": 4}
    assert second == {**fitting.IN_BACKWARD, "training.effective_batch": 1}
    assert near(12e9) == [{"model.method": "qlora"}]


def test_stepping_in_the_backward_pass_brings_what_it_needs_and_gives_it_back(
    found: WhatIf,
) -> None:
    found.take({"training.effective_batch": 4})
    found.change(row(found, "in_backward"), 1)
    training = found.config.training
    assert training.in_backward and training.batch_size == 4 and training.max_grad_norm == 0
    found.change(row(found, "batch_size"), -1)
    assert found.config.training.effective_batch == found.config.training.batch_size == 2
    found.change(row(found, "in_backward"), -1)
    assert found.config == found.base
    found.change(row(found, "offload"), 1)
    assert found.config.training.gradient_checkpointing
    found.change(row(found, "checkpointing"), -1)
    assert not found.config.training.activation_offload


def test_more_processes_share_the_step_and_give_the_batches_back(found: WhatIf) -> None:
    found.take({"training.batch_size": 2, "training.effective_batch": 6})
    alone = found.estimate()
    assert alone is not None and row(found, "processes").value == "1" and found.together == 1
    base, found.base = found.base, found.config
    found.change(row(found, "processes"), 3)
    assert row(found, "processes").value == "4 ddp" and found.together == 4
    training = found.config.training
    assert (training.batch_size, training.effective_batch) == (2, 8)
    assert all(
        c.settings["training.effective_batch"] % 4 == 0 for c in row(found, "batch_size").choices
    )
    copies = found.estimate()
    assert copies is not None and copies.weights == alone.weights
    found.change(row(found, "processes"), 1)
    parts = found.estimate()
    assert parts is not None and parts.weights == alone.weights // 4
    assert [choice.name for choice in row(found, "in_backward").choices] == ["off"]
    found.change(row(found, "processes"), -1000)
    assert not found.changed(), "the batches come back"
    found.base = base


def test_what_a_split_model_cannot_have_is_stepped_over(found: WhatIf) -> None:
    found.take({"training.processes": 2, "training.parallel": "fsdp"})
    found.change(row(found, "optimizer"), 1)
    assert row(found, "optimizer").value == "muon", "bitsandbytes' states have no parts"
    with pytest.raises(ValueError, match="no parts"):
        found.change(row(found, "optimizer"), 1)
    assert all("8bit" not in str(one.settings.values()) for one in found.nearest())
    found.reset()
    found.take({"training.optimizer": "adamw_8bit"})
    found.change(row(found, "processes"), 2)
    assert row(found, "processes").value == "4 ddp", "not 2 fsdp"
    found.reset()
    found.change(row(found, "in_backward"), 1)
    assert [choice.name for choice in row(found, "processes").choices] == ["1"]


def test_what_a_split_model_cannot_have_is_not_measured_ahead_for_it() -> None:
    with World().what_if() as found:
        found.take({"training.processes": 2, "training.parallel": "fsdp"})
        methods = []
        while (config := found.wanting()) is not None:
            methods.append(config.model.method)
            found.measure(config, threading.Event(), lambda done, of: None)
        assert methods[0] == "full" and set(methods) == {"full", "lora"}


def test_processes_share_the_memory_of_a_host_and_have_a_card_each() -> None:
    host, card = cards.Device("the host", 8 << 30, 6 << 30, False), cards.card("4090")
    assert cards.share(card, 4) == card and cards.share(host, 1) == host
    part = cards.share(host, 4)
    assert (part.total, part.free) == (2 << 30, 3 << 29) and part.name == "1/4 of the host"


def test_a_locked_key_is_named_where_the_home_has_trained(found: WhatIf) -> None:
    found.take({"training.max_length": 512, "training.batch_size": 2})
    assert found.locked() == []
    found.trained = True
    assert found.locked() == ["training.max_length"]


def test_the_logits_are_a_part_of_their_own() -> None:
    profile = qwen3_4b(2, "full")
    few = {"training.gradient_checkpointing": True, "training.effective_batch": 1}
    training = with_settings(configuration.default(), few).training
    plain = estimate(profile, training, size=2, gpu=True)
    assert plain.moment == "gradients" and plain.logits == 0, "they have gone by then"
    whole = {"training.gradient_checkpointing": True, "training.chunked_loss": "off"}
    many = with_settings(configuration.default(), whole)
    plain = estimate(profile, many.training, size=2, gpu=True)
    fused = estimate(profile, many.training, size=2, gpu=True, liger=True)
    assert plain.moment == "backward"
    assert plain.logits > 10 * training.max_length * profile.vocabulary
    assert fused.logits == 0 and fused.total < plain.total
    chunks = with_settings(many, {"training.chunked_loss": "on"})
    chunked = estimate(profile, chunks.training, size=2, gpu=True)
    assert 0 < chunked.logits < plain.logits / 4 and chunked.total < plain.total
    assert plain.to_json()["logits"] == plain.logits


def test_a_split_model_has_parts_of_weights_and_states_and_a_layer_whole() -> None:
    profile = qwen3_4b(2, "full")
    config = with_settings(
        configuration.default(),
        {"training.gradient_checkpointing": True, "training.chunked_loss": "on"},
    )

    def taken(ranks: Ranks) -> Estimate:
        return estimate(profile, config.training, size=2, gpu=True, ranks=ranks)

    alone, copies, parts = taken(Ranks()), taken(Ranks(8)), taken(Ranks(8, sharded=True))
    # Each of eight has one batch of the step: nothing adds up, but the buckets stand.
    assert copies.total == alone.total and copies.gradients == alone.gradients
    assert parts.weights == alone.weights // 8 and parts.optimizer == alone.optimizer // 8
    gathered = 2 * (profile.outer + 3 * (profile.trained - profile.outer) // profile.layers)
    assert parts.total < alone.total / 2
    assert parts.workspace > gathered
    estimator = Profiled(World()).on(cards.card("4090"))
    several = with_settings(config, {"training.processes": 8, "training.parallel": "fsdp"})
    estimator.measure(several, threading.Event(), lambda done, of: None, 0)
    assert estimator(several) == parts
    assert estimator(with_settings(several, {"training.parallel": "ddp"})) == copies


def test_an_engines_own_memory_counts_as_free() -> None:
    gpu: dict[str, Any] = {"name": "RTX 3090", "memory_total": 24 << 30, "memory_used": 20 << 30}
    other = {"pid": 77, "name": "python", "memory": 15 << 30}

    class Nvml:
        def __init__(self, others: list[dict[str, Any]]) -> None:
            self.others = others

        def sample(self) -> list[dict[str, Any]]:
            return [{**gpu, "others": self.others}]

        def close(self) -> None: ...

    def free(others: list[dict[str, Any]], *own: int) -> int:
        return cards.here(Nvml(others), own).free >> 30  # type: ignore[arg-type]

    assert free([other]) == 4
    assert free([other], 77) == 19
    assert free([other], 78) == 4
    assert free([other], os.getpid()) == 9, "all that others do not hold is its own"
    assert free([other], os.getpid(), 77) == 24
    without = cards.here()
    if not without.gpu:
        assert cards.here(own=[os.getpid()]).free > without.free - (64 << 20)


def test_a_home_is_measured_by_a_child_that_can_be_broken_off(home: Home) -> None:
    open_state(home).close()
    with whatif.begin(home) as found:
        first = found.wanting()
        assert first == found.base and found.estimate() is None
        stop = threading.Event()
        stop.set()
        found.measure(first, stop, lambda done, of: None)
        assert "broken off" in found.problems[found.needs]
        found.problems.clear()
        far: list[tuple[int, int]] = []
        found.measure(first, threading.Event(), lambda done, of: far.append((done, of)))
        whole = found.estimate()
        assert whole is not None and whole.weights > 0
        assert far[0] == (0, 8) and far[-1] == (8, 8)
        assert found.device.total > 0 and found.well is None and not found.trained
    with whatif.begin(home) as again:
        again.measure(first, stop, lambda done, of: None)
        assert again.estimate() == whole, "the store has it: no child is needed"


def test_a_model_that_is_not_here_is_said(home: Home) -> None:
    open_state(home).close()
    home.config.write_text('[model]\nbase = "/nowhere/at/all"\n')
    with pytest.raises(NotFound, match="not on this machine"), whatif.begin(home):
        pass
