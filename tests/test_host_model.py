"""The worker with a real model: the texts are those of plain generation, wherever it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.training.controls import Prompt
from engine.training.sampler import answer
from engine.training.tiny import make_tiny
from evaluation.host import memory, shipment
from evaluation.host.errors import HostFailure
from evaluation.host.evaluate import evaluate_on
from evaluation.host.machine import Machine, local
from evaluation.host.session import Answer, Loaded
from evaluation.host.shipment import Weights
from evaluation.host.shipped import continuous, plain
from evaluation.host.shipped import model as shipped_model
from evaluation.host.shipped.frames import Trouble
from evaluation.host.shipped.job import Job
from queue_store import places
from queue_store.errors import NotFound, VerificationFailed
from snapshots.digest import file_digest, weights_digest
from tests.sshd_kit import make_host, needs_sshd
from tests.store_world import World, flip

CONFIG = {"max_tokens": 12, "batch": 16}


def question(n: int) -> dict[str, Any]:
    content = f"Compute: add({'⓪①' * (1 + n % 7)},①) {n}"
    return {"id": f"q{n}", "messages": [{"role": "user", "content": content}]}


QUESTIONS = [question(n) for n in range(16)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    make_tiny(made, 7)
    return made


@pytest.fixture(scope="module")
def loaded(folder: Path) -> shipped_model.Loaded:
    return shipped_model.load(folder, None, "d" * 64, "cpu", "fp32")


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    """Texts of the engine's own sampler."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [Prompt(q["id"], tuple(q["messages"])) for q in QUESTIONS]
    found = answer(model, tokenizer, prompts, max_tokens=12, batch_size=16)
    assert found is not None
    return {one.id: one.text for one in found}


def weights_of(folder: Path, **more: Any) -> Weights:
    digests = {p.name: file_digest(p) for p in folder.iterdir()}
    name = more.pop("name", "v001")
    digest = weights_digest(folder)
    return shipment.of_folder(folder, name=name, weights_digest=digest, blake3=digests, **more)


def texts(machine: Machine, weights: Weights, **more: Any) -> tuple[dict[str, str], Loaded]:
    heard: list[Answer] = []
    packed = shipment.pack(weights)
    done = evaluate_on(machine, packed, QUESTIONS, {**CONFIG, **more}, heard.append)
    assert {a.digest for a in heard} == {weights.weights_digest}
    assert done.loaded is not None
    return {a.id: a.text for a in heard}, done.loaded


def run(loaded: shipped_model.Loaded, backend: Any = plain, items: Any = None, **config: Any):
    """The frames of one job, in this process."""
    frames: list[dict[str, Any]] = []
    config["backend"] = backend.NAME
    message = {"job": "1", "items": items or QUESTIONS, "config": {**CONFIG, **config}}
    backend.run(Job(message, loaded, frames.append, lambda: False))
    return frames


def said(frames: list[dict[str, Any]]) -> dict[str, str]:
    return {f["id"]: f["text"] for f in frames if f["kind"] == "result"}


@needs_sshd[0]
@needs_sshd[1]
def test_over_ssh_the_texts_are_those_of_local_generation(
    folder: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    host = make_host(tmp_path, "titan")
    host.start()
    try:
        place = places.parse_host("titan", "titan", str(tmp_path / "store"), str(host.config))
        machine = Machine("titan", place, sys.executable, threads=1)
        found, there = texts(machine, weights_of(folder))
    finally:
        host.stop()
    assert found == expected and there.sent > 3_000_000
    assert len(set(found.values())) > 3, "the model tells its prompts apart"


@pytest.mark.slow
def test_on_this_machine_an_adapter_answers_with_its_base_and_nothing_is_copied(
    folder: Path, loaded: shipped_model.Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=2.0)
    model.save_pretrained(tmp_path / "adapter")
    base = weights_of(folder, name="base")
    with pytest.raises(NotFound):
        weights_of(tmp_path / "adapter")
    adapter = weights_of(tmp_path / "adapter", base=base)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    found, there = texts(local(threads=1), adapter)
    assert there.sent == 0 and not list(scratch.iterdir()), "its folder of links is gone"
    model.eval()
    twin = shipped_model.Loaded(model, loaded.tokenizer, "d" * 64, "cpu", "fp32")
    assert found == said(run(twin)) != said(run(loaded))
    packed = shipment.pack(adapter)
    assert packed.digest == there.digest and packed.base is not None
    assert packed.digest != shipment.digest_of(packed.files), "the base is part of what it is"


def test_a_weight_that_rotted_here_is_never_shipped(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = weights_of(copy)
    flip(copy / "model.safetensors")
    with pytest.raises(VerificationFailed):
        shipment.pack(weights)


def test_a_home_reads_no_file_twice_and_knows_names_and_probes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "home")
    weights = weights_of(folder)
    first = memory.packed(world.state, weights)
    monkeypatch.setattr(shipment, "_digests", lambda *_: pytest.fail("read again"))
    assert memory.packed(world.state, weights).digest == first.digest
    assert memory.names(world.state) == {first.digest: "v001"}
    assert memory.probe(world.state, first.digest) is None
    probed = Loaded(first.digest, "cpu", "fp32", ((1, -0.5),), 0.0, 0)
    memory.keep_probe(world.state, probed)
    memory.keep_probe(world.state, Loaded(first.digest, "cpu", "fp32", ((2, -9.0),), 0.0, 0))
    assert memory.probe(world.state, first.digest) == probed
    world.close()


def test_answers_do_not_depend_on_the_batch_they_are_in(loaded: shipped_model.Loaded) -> None:
    assert said(run(loaded, batch=1)) == said(run(loaded, batch=5)) == said(run(loaded))


def test_a_batch_that_does_not_fit_is_halved_and_named(
    loaded: shipped_model.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, generate = said(run(loaded)), loaded.model.generate

    def small_memory(**words: Any) -> Any:
        if len(words["input_ids"]) > 4:
            raise torch.cuda.OutOfMemoryError
        return generate(**words)

    monkeypatch.setattr(loaded.model, "generate", small_memory)
    frames = run(loaded)
    assert said(frames) == good
    assert {f["batch"] for f in frames} == {4}

    def no_memory(**words: Any) -> Any:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(loaded.model, "generate", no_memory)
    with pytest.raises(Trouble) as caught:
        run(loaded)
    assert caught.value.trouble == "no_memory"


def test_continuous_batching_gives_the_same_texts(loaded: shipped_model.Loaded) -> None:
    good = said(run(loaded))
    frames = run(loaded, continuous)
    assert said(frames) == good
    assert {f["backend"] for f in frames if f["kind"] == "result"} == {"continuous"}
    assert said(run(loaded)) == good, "the plain backend is as before"
    with pytest.raises(Trouble):
        run(loaded, continuous, penalties={"think": {"texts": ["a"], "penalty": 1}})


def test_a_stop_text_ends_its_own_row_and_is_cut_off(loaded: shipped_model.Loaded) -> None:
    free = run(loaded, max_tokens=24)
    row = next(f for f in free if f["kind"] == "result" and len(set(f["text"])) > 1)
    stop = row["text"][len(row["text"]) // 2 :][:3]
    for frame in run(loaded, max_tokens=24, stop=[stop]):
        if frame["kind"] == "result":
            whole = said(free)[frame["id"]]
            assert frame["text"] == whole.split(stop)[0]
            assert frame["finish"] == ("stop" if stop in whole else "length")


def test_sampling_repeats_with_its_seed(loaded: shipped_model.Loaded) -> None:
    one = said(run(loaded, temperature=1.5, seed=3))
    assert one == said(run(loaded, temperature=1.5, seed=3))
    assert one != said(run(loaded, temperature=1.5, seed=4)) != said(run(loaded))


def test_an_answer_is_told_while_it_grows(
    loaded: shipped_model.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "STREAM_SECONDS", 0)
    frames = run(loaded, items=QUESTIONS[:1], stream=True)
    grown = [f["text"] for f in frames if f["kind"] == "progress"]
    assert len(grown) >= 10 and said(frames)["q0"] == grown[-1]


@pytest.fixture
def ends(loaded: shipped_model.Loaded) -> Iterator[str]:
    """A sign that a free answer says early in some rows and never in others."""
    whole = said(run(loaded, max_tokens=24))
    for sign in sorted({c for text in whole.values() for c in text[:6]}):
        rows = [text for text in whole.values() if sign in text]
        if 0 < len(rows) < len(whole):
            yield sign
            return
    pytest.fail("every row says the same")


def test_after_a_stop_sign_each_row_ends_by_itself(loaded: shipped_model.Loaded, ends: str) -> None:
    penalty = {"after_stop": {"texts": [ends], "base": 100, "rate": 10, "reward": 50}}
    free = said(run(loaded, max_tokens=24))
    batch = run(loaded, max_tokens=24, penalties=penalty)
    alone = run(loaded, max_tokens=24, penalties=penalty, batch=1)
    assert said(batch) == said(alone), "a row's state is its own"
    for frame in batch:
        if frame["kind"] == "result":
            text, whole = frame["text"], free[frame["id"]]
            assert (frame["finish"] == "stop") == (ends in whole)
            # The token that holds the sign is the last one; it may hold more.
            assert whole.startswith(text) and (ends in text) == (ends in whole)
            assert text == whole or ends not in text[:-6]


def test_a_thinking_tag_is_kept_back_by_its_schedule(loaded: shipped_model.Loaded) -> None:
    free = said(run(loaded))
    first = next(text[0] for text in free.values() if text)
    ids = loaded.tokenizer(first, add_special_tokens=False)["input_ids"]
    assert len(ids) == 1
    think = {"texts": [first], "penalty": 80, "schedule": [[4, 8], [4, 2]]}
    assert not any(
        t.startswith(first) for t in said(run(loaded, penalties={"think": think})).values()
    )
    short = {"texts": [first], "penalty": 0, "schedule": [[4, 8]]}
    assert said(run(loaded, penalties={"think": short})) == free


@pytest.mark.parametrize(
    "config",
    [
        {"max_tokens": 0},
        {"max_token": 5},
        {"batch": True},
        {"top_p": 0.0},
        {"penalties": {"thunk": {}}},
        {"penalties": {"think": {"penalty": 80}}},
        {"penalties": {"after_stop": {"texts": ["a"], "rate": "x"}}},
        {"stop": [""]},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    loaded: shipped_model.Loaded, config: dict[str, Any]
) -> None:
    with pytest.raises(Trouble) as caught:
        run(loaded, **config)
    assert caught.value.trouble == "config"


def test_a_prompt_beyond_the_context_is_an_error_of_its_own(loaded: shipped_model.Loaded) -> None:
    long = {"id": "long", "messages": [{"role": "user", "content": "① " * 5000}]}
    frames = run(loaded, items=[*QUESTIONS[:2], long])
    (wrong,) = [f for f in frames if f.get("error")]
    assert wrong["id"] == "long" and "4096" in wrong["error"] and len(frames) == 4


def test_a_version_that_is_gone_is_said(folder: Path) -> None:
    packed = shipment.pack(weights_of(folder))
    packed.files[0]["path"] += ".gone"
    with pytest.raises(HostFailure) as caught:
        evaluate_on(local(), packed, QUESTIONS, CONFIG, lambda answer: None)
    assert caught.value.code == "digest"
