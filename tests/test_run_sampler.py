"""Answers to fixed prompts and validation loss: right in a batch, and training does not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.prepare.collate import collate
from engine.prepare.prepared import Sequence
from engine.training import sampler
from engine.training.controls import Prompt
from engine.training.rng import capture_rng
from engine.training.sampler import (
    Drawing,
    answer,
    encode_prompt,
    end_tokens,
    expected_loss,
    validation_loss,
)
from queue_store.errors import DataError
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
)

PROMPTS = [
    Prompt(f"p{i}", ({"role": "user", "content": f"row {i} say " + "w1 " * (1 + 5 * i)},))
    for i in range(5)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that has learnt the answers by heart: they differ, in their lengths too."""
    root: Path = tmp_path_factory.mktemp("sampler")
    folder = make_model_folder(root / "model", dropout=0.05)
    rows = [
        [*p.messages, {"role": "assistant", "content": f"w{i} " * (2 + 4 * i)}]
        for i, p in enumerate(PROMPTS)
    ]
    (root / "a.jsonl").write_text("".join(json.dumps({"messages": r}) + "\n" for r in rows))
    prepared = prepare_file(root / "a.jsonl", folder, root / "home")
    bench = Bench(folder, training(optimizer="muon", learning_rate=1e-2))
    bench.run(prepared, Recorder(), epochs=40)
    return {"bench": bench, "prepared": prepared}


def greedy_alone(bench: Bench, prompt: Prompt, limit: int) -> list[int]:
    """The reference: one prompt, token by token, no cache, no padding."""
    model = bench.loaded.model.eval()
    ids = encode_prompt(bench.loaded.tokenizer, prompt)
    out: list[int] = []
    with torch.no_grad():
        while len(out) < limit:
            logits = model(input_ids=torch.tensor([ids + out]), use_cache=False).logits
            out.append(int(logits[0, -1].argmax()))
            if out[-1] in end_tokens(model, bench.loaded.tokenizer):
                break
    return out


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_answers_in_a_batch_are_those_of_each_prompt_alone(
    place: dict[str, Any], batch_size: int
) -> None:
    bench = place["bench"]
    loaded = bench.loaded
    answers = answer(loaded.model, loaded.tokenizer, PROMPTS, max_tokens=12, batch_size=batch_size)
    assert answers is not None and [a.id for a in answers] == [p.id for p in PROMPTS]
    ends = end_tokens(loaded.model, loaded.tokenizer)
    for prompt, given in zip(PROMPTS, answers, strict=True):
        alone = greedy_alone(bench, prompt, 12)
        ended = alone[-1] in ends
        text = loaded.tokenizer.decode(alone[:-1] if ended else alone, skip_special_tokens=True)
        assert (given.text, given.tokens, given.ended) == (text, len(alone), ended)
        assert given.seconds > 0
    assert len({a.text for a in answers}) > 1 and {a.ended for a in answers} == {True, False}


def test_validation_loss_is_the_mean_over_tokens_whatever_the_batch(
    place: dict[str, Any],
) -> None:
    model, prepared = place["bench"].loaded.model, place["prepared"]
    total, tokens = 0.0, 0
    model.eval()
    for pack in range(prepared.packs):
        batch = collate([prepared.sequence(pack)])
        count = int((batch["labels"][:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(**batch, use_cache=False).loss) * count
        tokens += count
    model.train()
    for batch_size in (1, 3):
        result = validation_loss(model, prepared, batch_size=batch_size)
        assert result is not None
        assert result[0] == pytest.approx(total / tokens, rel=1e-5) and result[1] == tokens


def rows_of(prepared: Any) -> list[Sequence]:
    """The rows of packs one by one."""
    rows = []
    for pack in map(prepared.sequence, range(prepared.packs)):
        starts = [int(n) for n in np.flatnonzero(pack.position_ids == 0)]
        for start, end in zip(starts, [*starts[1:], len(pack.input_ids)], strict=True):
            part = slice(start, end)
            ids, trained = pack.input_ids[part], pack.trained[part]
            rows.append(Sequence(ids, trained, pack.position_ids[part], (1,)))
    return rows


@pytest.mark.parametrize("batch_tokens", [1, 150, 4096])
def test_expected_loss_is_that_of_each_row_alone(place: dict[str, Any], batch_tokens: int) -> None:
    model, rows = place["bench"].loaded.model, rows_of(place["prepared"])
    assert len(rows) == len(PROMPTS) and len({len(r.input_ids) for r in rows}) > 1
    first = rows[0]
    nothing = Sequence(first.input_ids, first.trained & False, first.position_ids, (1,))
    long = Sequence(
        *(np.resize(array, 5000) for array in (first.input_ids, first.trained)),
        np.arange(5000),
        (1,),
    )
    losses = expected_loss(model, [*rows, nothing, long], batch_tokens=batch_tokens)
    assert losses is not None and losses[-2:] == [None, None]
    model.eval()
    for row, loss in zip(rows, losses, strict=False):
        with torch.no_grad():
            alone = float(model(**collate([row]), use_cache=False).loss)
        assert loss == pytest.approx(alone, rel=1e-4)
    model.train()
    assert len({round(loss or 0, 5) for loss in losses[:-2]}) == len(rows)


def test_neither_moves_the_generators_nor_the_mode(place: dict[str, Any]) -> None:
    loaded = place["bench"].loaded
    for mode in (True, False):
        loaded.model.train(mode)
        before = capture_rng()
        answer(loaded.model, loaded.tokenizer, PROMPTS[:2], max_tokens=3)
        answer(
            loaded.model, loaded.tokenizer, PROMPTS[:2], max_tokens=3, drawing=Drawing(0.8, 1.0, 5)
        )
        validation_loss(loaded.model, place["prepared"], batch_size=2)
        expected_loss(loaded.model, rows_of(place["prepared"]))
        after = capture_rng()
        assert loaded.model.training is mode
        assert torch.equal(before.torch, after.torch) and before.python == after.python


def test_somebody_who_waits_breaks_both_off_within_a_token(place: dict[str, Any]) -> None:
    loaded = place["bench"].loaded
    asked = iter([False, False, True, True])
    result = answer(
        loaded.model, loaded.tokenizer, PROMPTS, max_tokens=50, waiting=lambda: next(asked)
    )
    assert result is None
    assert (
        validation_loss(loaded.model, place["prepared"], batch_size=1, waiting=lambda: True) is None
    )
    rows = rows_of(place["prepared"])
    assert expected_loss(loaded.model, rows, waiting=lambda: True) is None


def test_what_is_answered_when_it_is_enough_stays(place: dict[str, Any]) -> None:
    loaded = place["bench"].loaded
    whole = answer(loaded.model, loaded.tokenizer, PROMPTS[-1:], max_tokens=12)
    asked = iter([False, False, True])
    cut = answer(
        loaded.model, loaded.tokenizer, PROMPTS[-1:], max_tokens=12, until=lambda: next(asked)
    )
    assert whole is not None and cut is not None
    assert (cut[0].tokens, cut[0].ended) == (3, False)
    assert whole[0].text.startswith(cut[0].text)


def test_what_is_drawn_follows_from_the_seed(place: dict[str, Any]) -> None:
    loaded = place["bench"].loaded

    def drawn(seed: int, top_p: float = 1.0) -> str:
        how = Drawing(5.0, top_p, seed)
        found = answer(loaded.model, loaded.tokenizer, PROMPTS[:1], max_tokens=8, drawing=how)
        assert found is not None
        return found[0].text

    assert len({drawn(seed) for seed in range(6)}) > 3
    assert drawn(3) == drawn(3)
    # Of so small a share only the likeliest token is left.
    greedy = answer(loaded.model, loaded.tokenizer, PROMPTS[:1], max_tokens=8)
    assert greedy is not None and drawn(3, 1e-6) == greedy[0].text


def test_an_answer_is_told_while_it_grows(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = place["bench"].loaded
    monkeypatch.setattr(sampler, "GROWN_SECONDS", 0.0)
    told: list[tuple[str, int]] = []
    whole = answer(
        *(loaded.model, loaded.tokenizer, PROMPTS[-1:]),
        max_tokens=12,
        grown=lambda text, tokens: told.append((text, tokens)),
    )
    assert whole is not None
    assert [tokens for _, tokens in told] == list(range(1, whole[0].tokens + 1))
    assert all(whole[0].text.startswith(text) for text, _ in told)
    assert told[-1][0] == whole[0].text and told[0][0] != whole[0].text


def test_less_memory_means_smaller_batches(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = place["bench"].loaded
    plain = answer(loaded.model, loaded.tokenizer, PROMPTS, max_tokens=5)
    real, sizes = sampler._generate, []

    def scarce(model: Any, tokenizer: Any, prompts: Any, *rest: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("no room")
        return real(model, tokenizer, prompts, *rest)

    monkeypatch.setattr(sampler, "_generate", scarce)
    answers = answer(loaded.model, loaded.tokenizer, PROMPTS, max_tokens=5, batch_size=4)
    assert sizes == [4, 2, 1, 1, 1, 1, 1]
    assert answers is not None and plain is not None
    assert [a.text for a in answers] == [a.text for a in plain]


def test_a_prompt_that_fills_the_context_is_named(place: dict[str, Any]) -> None:
    loaded = place["bench"].loaded
    long = Prompt("too-long", ({"role": "user", "content": "w1 " * 3000},))
    with pytest.raises(DataError, match="too-long"):
        answer(loaded.model, loaded.tokenizer, [*PROMPTS, long], max_tokens=5)


def test_an_end_token_at_which_generation_does_not_stop_is_warned_about(
    place: dict[str, Any],
) -> None:
    loaded, report = place["bench"].loaded, place["prepared"].report
    heard = sampler.heard_ends(loaded)
    assert report["masks"]["end_tokens"] and sampler.ends_unheard(heard, report) == ""
    report = {"masks": {**report["masks"], "end_tokens": ["<|eot_id|>"]}}
    warned = sampler.ends_unheard(heard, report)
    assert warned.startswith("answers are trained to end with <|eot_id|>, and generation stops at")
    assert "set eos_token" in warned
