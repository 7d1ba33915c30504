"""A tied embedding's rows wait for the head's gradient: bit for bit what autograd adds up."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.training.lookups import Lookups
from tests.model_zoo import make_model

PADDING = 0


def batch(model: Any) -> dict[str, torch.Tensor]:
    """Rows with the padding token, with one that occurs often, and with some that occur once."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 1000, (3, 24), generator=generator)
    ids[:, 5:12], ids[:, 20:] = 7, PADDING
    return {"input_ids": ids, "labels": ids}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model(**batch(model), use_cache=False).loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["qwen3", "gemma", "gemma3_text"])
def test_the_sum_is_that_of_autograd_bit_for_bit(kind: str, dtype: torch.dtype) -> None:
    """Also where the embedding scales what it looked up, as Gemma 3's does."""
    model = make_model(kind, pad_token_id=PADDING, tie_word_embeddings=True).to(dtype)
    plain = gradients(model)
    weight = model.get_input_embeddings().weight
    tied = Lookups(model)
    arrivals: list[int] = []

    def whole(parameter: torch.Tensor) -> None:
        arrivals.append(len(tied._waiting))
        tied.add_to(parameter)

    hook = weight.register_post_accumulate_grad_hook(whole)
    with tied.kept():
        for _ in range(2):
            found = gradients(model)
            assert found.keys() == plain.keys()
            assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert arrivals == [1, 1]
    hook.remove()
    after = gradients(model)
    assert all(torch.equal(after[name], plain[name]) for name in plain)
    assert model.get_input_embeddings().weight is weight
    assert model.get_input_embeddings().padding_idx == PADDING


@pytest.mark.parametrize("frozen", [True, False])
def test_an_embedding_of_its_own_or_one_that_stands_still_is_left_alone(frozen: bool) -> None:
    model = make_model("qwen3", tie_word_embeddings=frozen)
    model.get_input_embeddings().weight.requires_grad_(not frozen)
    plain = gradients(model)
    tied = Lookups(model)
    with tied.kept():
        found = gradients(model)
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_a_backward_pass_that_breaks_off_leaves_no_rows_for_the_next_run() -> None:
    model = make_model("qwen3", tie_word_embeddings=True)
    tied = Lookups(model)
    with pytest.raises(RuntimeError, match="full"), tied.kept():
        weight = model.get_input_embeddings().weight
        weight.register_hook(lambda gradient: (_ for _ in ()).throw(RuntimeError("full")))
        gradients(model)
    assert not tied._waiting


def test_a_loss_without_the_head_trains_the_embedding_as_autograd_does() -> None:
    model = make_model("qwen3", tie_word_embeddings=True)
    weight, ids = model.get_input_embeddings().weight, batch(model)["input_ids"]
    model.model(ids, use_cache=False).last_hidden_state.square().sum().backward()
    plain = weight.grad.clone()
    model.zero_grad()
    tied = Lookups(model)
    hook = weight.register_post_accumulate_grad_hook(tied.add_to)
    with tied.kept():
        model.model(ids, use_cache=False).last_hidden_state.square().sum().backward()
    hook.remove()
    assert torch.equal(weight.grad, plain)


def test_a_forward_of_the_instance_is_there_again_afterwards() -> None:
    model = make_model("qwen3", tie_word_embeddings=True)
    embedding = model.get_input_embeddings()
    embedding.forward = own = embedding.forward
    with Lookups(model).kept():
        assert embedding.forward is not own
        gradients(model)
    assert embedding.forward is own
