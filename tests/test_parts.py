"""Checkpointed layers that take a batch in parts: the same loss and gradients, exact resume."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.kernels import rows_of_part
from engine.training import parts
from engine.training.model import checkpoint_activations
from queue_store import config
from tests.model_zoo import ARCHITECTURES, make_folder, make_model
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

ROWS, LENGTH = 5, 32


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of LENGTH are a part: the last of five rows is one of its own."""
    monkeypatch.setattr("engine.kernels.PART_TOKENS", 2 * LENGTH)


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows that each call of a checkpointed layer had."""
    found: list[int] = []
    own = torch.utils.checkpoint.checkpoint

    def checkpoint(layer: Any, *given: Any, **named: Any) -> Any:
        found.append(len(given[0]))
        return own(layer, *given, **named)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", checkpoint)
    yield found


def test_a_part_has_at_least_its_tokens_and_never_less_than_a_row() -> None:
    assert rows_of_part(8, 2048) == 1 and rows_of_part(8, 4096) == 1
    assert rows_of_part(8, 1024) == 2 and rows_of_part(8, 1000) == 3
    assert rows_of_part(8, 100) == 8 and rows_of_part(1, 64) == 1


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
@pytest.mark.usefixtures("small")
def test_loss_and_gradients_are_those_of_the_whole_batch(kind: str, layers: list[int]) -> None:
    """Of packed rows, other ones in every part of the batch."""
    model = make_model(kind).double().train()
    model.config.use_cache = False
    checkpoint_activations(model)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1000, (ROWS, LENGTH), generator=generator)
    borders = [5, 12, 16, 20, 31]
    positions = torch.stack(
        [torch.cat((torch.arange(at), torch.arange(LENGTH - at))) for at in borders]
    )

    def step() -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        loss = model(input_ids=ids, position_ids=positions, labels=ids).loss
        loss.backward()
        return float(loss), {name: p.grad for name, p in model.named_parameters()}

    loss, gradients = step()
    count = model.config.num_hidden_layers
    assert layers == [ROWS] * count
    layers.clear()
    with parts.in_parts(model):
        other, parted = step()
    assert layers == [2, 2, 1] * count
    assert other == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():  # Gemma norms in float32 whatever the dtype
        assert torch.allclose(parted[name], gradient, rtol=1e-5, atol=1e-7), name
    layers.clear()
    assert step()[0] == loss and layers == [ROWS] * count


def wanted(**changes: Any) -> config.Training:
    given = {"batch_size": 4, "effective_batch": 4, "gradient_checkpointing": True}
    return training(**{**given, "in_backward": True, "max_grad_norm": 0.0, **changes})


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.usefixtures("small")
def test_stopped_and_continued_the_weights_are_bit_identical(
    tmp_path: Path, layers: list[int], method: str, optimizer: str
) -> None:
    """With dropout, whose draws are those of each part."""
    folder = make_model_folder(tmp_path / "model", dropout=0.2)
    file = prepare_file(write_rows(tmp_path / "a.jsonl", 30), folder, tmp_path / "home")
    settings = wanted(optimizer=optimizer)
    straight, cursors = Bench(folder, settings, method), []

    def save(at: Any, cursor: int) -> None:
        if at.global_step == 2:
            straight.save(tmp_path / "state")
            cursors.append(cursor)

    assert straight.run(file, Recorder(on_step=save)).global_step > 3 and max(layers) < 4
    again = Bench(folder, settings, method)
    again.restore(tmp_path / "state")
    again.run(file, Recorder(), cursor=cursors[0])
    assert again.digest() == straight.digest()


@pytest.mark.usefixtures("small")
def test_only_steps_in_the_backward_pass_take_parts(tmp_path: Path, layers: list[int]) -> None:
    """Who gives a batch of several rows otherwise wants them computed together."""
    folder = make_folder(tmp_path / "model", "qwen3")
    file = prepare_file(write_rows(tmp_path / "a.jsonl", 12), folder, tmp_path / "home")
    Bench(folder, wanted(in_backward=False)).run(file, Recorder(leave_at=1))
    assert set(layers) == {4}


def taken(layer: Any, hidden: torch.Tensor, heads: int = 0, **named: Any) -> tuple[Any, bool]:
    """What a layer gives under parts, and whether it was computed whole."""
    had: list[torch.Size] = []

    def checkpoint(one: Any, *given: Any) -> Any:
        had.append(given[0].shape)
        return one(*given)

    told = parts.Parts(heads=(heads,))
    out = parts._parted(told, checkpoint, partial(layer, **named), hidden)
    assert bool(told.whole) == (had == [hidden.shape])
    return out, bool(told.whole)


SQUARE = torch.randn(LENGTH, LENGTH)


@pytest.mark.parametrize(
    ("rows", "heads", "given"),
    [
        (ROWS, 0, torch.zeros(3, ROWS, LENGTH)),
        (3, 0, torch.zeros(3, 3, LENGTH, 8)),
        (ROWS, 0, torch.zeros(ROWS + 3, dtype=torch.int32)),
        (ROWS, ROWS, torch.zeros(ROWS, 1, LENGTH, LENGTH)),
        (ROWS, 0, object()),
        (ROWS, 0, (torch.zeros(ROWS, LENGTH), object())),
        (ROWS, 0, {}),
        (ROWS, 0, []),
    ],
)
@pytest.mark.usefixtures("small")
def test_what_cannot_be_told_apart_by_rows_is_computed_whole(
    rows: int, heads: int, given: Any
) -> None:
    def layer(hidden: torch.Tensor, other: Any) -> torch.Tensor:
        assert other is given
        return hidden + 1

    hidden = torch.zeros(rows, LENGTH, 4)
    out, whole = taken(layer, hidden, heads, other=given)
    assert whole and torch.equal(out, hidden + 1)


@pytest.mark.usefixtures("small")
def test_where_rows_are_as_many_as_tokens_nothing_is_parted() -> None:
    """A bias of all rows [tokens, tokens] looks like something of each row."""
    hidden = torch.randn(LENGTH, LENGTH, 4)
    told = parts.Parts()

    def layer(states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return bias @ states

    def checkpoint(one: Any, *given: Any) -> Any:
        return one(*given)

    out = parts._parted(told, checkpoint, partial(layer, bias=SQUARE), hidden)
    assert torch.equal(out, layer(hidden, SQUARE))


@pytest.mark.usefixtures("small")
def test_masks_and_factors_go_to_their_rows() -> None:
    def layer(hidden: torch.Tensor, mask: torch.Tensor, factors: Any) -> torch.Tensor:
        assert mask.shape == (len(hidden), 1, LENGTH, LENGTH) and factors[1] == 2
        return hidden * factors[0][:, :, None] + mask.float().sum((1, 2, 3))[:, None, None]

    hidden = torch.randn(ROWS, LENGTH, 4)
    mask = torch.rand(ROWS, 1, LENGTH, LENGTH) > 0.5
    named = {"mask": mask, "factors": (torch.randn(ROWS, LENGTH), 2)}
    out, whole = taken(layer, hidden, ROWS, **named)
    assert not whole and torch.equal(out, layer(hidden, **named))


@pytest.mark.usefixtures("small")
def test_a_layer_that_tells_more_than_hidden_states_is_computed_whole_and_draws_the_same() -> None:
    def layer(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return hidden + 1, torch.rand(2)

    hidden = torch.zeros(ROWS, LENGTH, 4)
    torch.manual_seed(5)
    ((out, drawn), whole), after = taken(layer, hidden), torch.rand(3)
    torch.manual_seed(5)
    assert whole and torch.equal(out, hidden + 1)
    assert torch.equal(drawn, torch.rand(2)) and torch.equal(after, torch.rand(3))
