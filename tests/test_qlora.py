"""QLoRA: an adapter beside a 4-bit base, exactly continued, and honest about which base answers."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import peft
import pytest
import torch
import transformers

from engine.adapters import write as writing
from engine.loop.recovery import check_locked
from engine.training import quantized
from engine.training.controls import Prompt
from engine.training.model import load_model
from engine.training.run import Monitoring
from engine.training.ticks import Monitor
from engine.verify import verifying
from engine.verify.deep_verify import _words, examine
from evaluation.make import make_file
from queue_store import config, intake
from queue_store.database import open_state
from queue_store.errors import ConfigError
from queue_store.home import Home
from snapshots import child, fits, merged, rollback, verify, versions
from snapshots.digest import weights_digest
from snapshots.verify import Outcome
from tests import engine_kit as kit
from tests.engine_process import EngineProcess
from tests.test_evaluate import write_set
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)
from trainctl.__main__ import main

QLORA = {"method": "qlora", "lora": {"r": 8, "alpha": 8, "targets": ["q_proj", "v_proj"]}}


# -- the model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of two layers, each as wide as bitsandbytes' kernels for CPUs want it."""
    root = tmp_path_factory.mktemp("qlora")
    model = make_model_folder(root / "model", hidden=64)
    files = [
        prepare_file(write_rows(root / f"{n}.jsonl", n, 100 * n), model, root / "home")
        for n in (14, 6)
    ]
    return {"model": model, "files": files}


def linear(model: Any) -> dict[str, Any]:
    """The 4-bit layers of a model, by name."""
    from bitsandbytes.nn import Linear4bit

    return {name: m for name, m in model.named_modules() if isinstance(m, Linear4bit)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_base_lies_in_4_bits_beside_an_adapter_and_its_files_stay(
    place: dict[str, Any], precision: str
) -> None:
    from bitsandbytes.functional import dequantize_4bit

    before = weights_digest(place["model"])
    full = Bench(place["model"], training(), "lora", precision).loaded
    loaded = Bench(place["model"], training(), "qlora", precision).loaded
    assert weights_digest(place["model"]) == before
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    assert (loaded.parameters, loaded.trained) == (full.parameters, full.trained)
    assert (loaded.method, loaded.dtype) == ("qlora", precision)
    layers = linear(loaded.model)
    assert len(layers) == 2 * 7  # the linear ones of both layers
    plain = dict(full.model.named_modules())
    for name, layer in layers.items():
        packed = layer.weight
        assert packed.dtype is torch.uint8 and not packed.requires_grad
        assert packed.quant_state.quant_type == "nf4" and packed.quant_state.nested
        assert layer.compute_dtype is dtype
        wanted = plain[name].weight.detach().float()
        got = dequantize_4bit(packed.data, packed.quant_state).float()
        blocks = wanted.reshape(-1, 64).abs().amax(1, keepdim=True)
        off = (got - wanted).reshape(-1, 64).abs() / blocks
        assert 0 < float(off.max()) < 0.2, name
    trained = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n and p.dtype is torch.float32 for n, p in trained.items())
    rest = [
        p
        for n, p in loaded.model.named_parameters()
        if n not in trained and getattr(p, "quant_state", None) is None
    ]
    assert rest and all(p.dtype is dtype for p in rest)  # head, embeddings and norms
    again = Bench(place["model"], training(), "qlora", precision).loaded
    ours, theirs = loaded.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_4_bits_are_the_same_with_any_number_of_threads(tmp_path: Path) -> None:
    """Of a layer that is large enough for two threads to share its scales."""
    folder = make_model_folder(tmp_path / "model", hidden=64)
    raw = json.loads((folder / "config.json").read_text())
    raw.update(hidden_size=2048, intermediate_size=2048, num_hidden_layers=1, vocab_size=1024)
    raw["layer_types"] = ["full_attention"]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**raw))
    model.to(torch.bfloat16).save_pretrained(folder)
    states = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        loaded = load_model(folder, settings_of(precision="bf16"), training(), device="cpu")
        assert torch.get_num_threads() == threads
        states.append(loaded.model.state_dict())
    torch.set_num_threads(1)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("optimizer", "precision", "checkpointing"),
    [("adamw", "fp32", False), ("adamw_8bit", "bf16", True), ("muon", "fp32", False)],
)
def test_stopped_and_restored_the_end_is_bit_identical(
    place: dict[str, Any], tmp_path: Path, optimizer: str, precision: str, checkpointing: bool
) -> None:
    """The adapter, its optimizer and the 4-bit base; two epochs, accumulation, dropout."""
    prepared = place["files"][0]
    settings = training(optimizer=optimizer, gradient_checkpointing=checkpointing)
    straight = Bench(place["model"], settings, "qlora", precision)
    first = straight.digest()
    total = straight.run(prepared, Recorder(), epochs=2).global_step
    assert straight.digest() != first
    for k in (1, total - 1):
        one = Bench(place["model"], settings, "qlora", precision)
        stopped = one.run(prepared, Recorder(leave_at=k), epochs=2)
        saved = one.save(tmp_path / f"state{k}")
        other = Bench(place["model"], settings, "qlora", precision)
        torch.rand(k + 3)
        other.restore(saved)
        assert other.run(prepared, Recorder(), epochs=2, cursor=stopped.cursor).global_step == total
        assert other.digest() == straight.digest(), f"stopped at {k}"
    names = {path.name for path in saved.iterdir()}
    assert "adapter_model.safetensors" in names
    assert not [name for name in names if name.startswith("model")]
    info = json.loads((saved / "training_state.json").read_text())
    assert info["method"] == "qlora"
    assert info["versions"]["bitsandbytes"] == importlib.metadata.version("bitsandbytes")


def test_validation_and_samples_do_not_move_the_result(place: dict[str, Any]) -> None:
    """With AVX512-BF16 bitsandbytes would repack the base for good at its first evaluation."""
    prepared, held = place["files"]
    quiet = Bench(place["model"], training(), "qlora")
    quiet.run(prepared, Recorder())
    asked = Bench(place["model"], training(eval_steps=1, sample_steps=1), "qlora")
    prompts = [Prompt("p", ({"role": "user", "content": "say w1"},))]
    asked.monitoring = Monitoring(Monitor(1e9), {"held": held}, prompts, max_tokens=3)
    recorder = Recorder()
    asked.run(prepared, recorder)
    assert recorder.validations and recorder.sampled
    assert asked.digest() == quiet.digest()


def test_it_learns_the_demos_rows_as_lora_does(tmp_path: Path) -> None:
    """Beside a base that has begun to learn them: the losses of both come down alike."""
    model = make_model_folder(tmp_path / "model", hidden=64)
    rows = make_file("syllo", 1, 12, 3, False, tmp_path / "rows.jsonl")
    prepared = prepare_file(rows, model, tmp_path / "home", max_length=256)
    settings = training(learning_rate=1e-2, effective_batch=4, batch_size=4)
    begun = Bench(model, settings)
    begun.run(prepared, Recorder(), epochs=4)
    base = begun.save(tmp_path / "base")
    lora = config.Lora(r=16, alpha=64, dropout=0.0, targets=config.default().model.lora.targets)
    losses = {}
    for method in ("lora", "qlora"):
        bench, recorder = Bench(base, settings, method, lora=lora), Recorder()
        bench.run(prepared, recorder, epochs=12)
        losses[method] = [metric.loss for metric in recorder.steps]
    ends = {method: sum(told[-3:]) / 3 for method, told in losses.items()}
    falls = {method: sum(told[:3]) / 3 - ends[method] for method, told in losses.items()}
    assert falls["lora"] > 0.25, losses
    assert losses["qlora"] != losses["lora"]
    assert falls["qlora"] == pytest.approx(falls["lora"], rel=0.2)
    assert ends["qlora"] == pytest.approx(ends["lora"], rel=0.02)


# -- what is refused ---------------------------------------------------------------------------


def settings_of(**changes: Any) -> config.Model:
    return msgspec.structs.replace(config.default().model, **{"method": "qlora", **changes})


@pytest.mark.parametrize(
    ("found", "says"),
    [(None, "bitsandbytes is not installed"), ("0.43.1", r"bitsandbytes 0\.43\.1 is too old")],
)
def test_without_bitsandbytes_it_is_said_in_a_line_before_anything_is_loaded(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, found: str | None, says: str
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(quantized.importlib.metadata, "version", version)
    with pytest.raises(ConfigError, match=says) as refused:
        load_model(place["model"], settings_of(), training(), device="cpu")
    assert refused.value.where == 'model.method = "qlora"'
    assert "pip install 'bitsandbytes" in refused.value.mend
    load_model(place["model"], config.default().model, training(), device="cpu")


def test_one_whose_library_does_not_load_is_found_by_asking_it(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitsandbytes import functional

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("\n  Attempted to use its library.\n\nLong advice")

    monkeypatch.setattr(functional, "quantize_4bit", broken)
    with pytest.raises(ConfigError, match="does not quantize on cpu: Attempted to use its library"):
        load_model(place["model"], settings_of(), training(), device="cpu")


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_base_that_is_quantized_already_is_refused(
    place: dict[str, Any], tmp_path: Path, method: str
) -> None:
    folder = shutil.copytree(place["model"], tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"quantized already \(gptq\)"):
        load_model(folder, settings_of(method=method), training(), device="cpu")


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ("lora", "qlora", "beside the full-precision base: beside the 4-bit base it would be"),
        ("qlora", "lora", "beside the 4-bit base: beside the full-precision base it would be"),
        ("full", "qlora", "a full model and an adapter share no weights"),
        ("qlora", "full", "a full model and an adapter share no weights"),
    ],
)
def test_another_method_is_refused_with_what_it_would_mean(
    tmp_path: Path, trainctl: Callable[..., Any], before: str, now: str, says: str
) -> None:
    home = kit.make_home(tmp_path / "home", model={"method": now})
    settings = config.load(home.config)
    with open_state(home) as state:
        locked = {key: config.flat(config.to_dict(settings))[key] for key in config.LOCKED}
        state.meta_set("locked", {**locked, "model.method": before})
        with pytest.raises(ConfigError, match=says):
            check_locked(state, settings, home.config)
    unlocked = trainctl("config", "unlock", "model.method", "--yes", home=home)
    assert unlocked.code == 1 and says in unlocked.err, unlocked.err


# -- a home ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that trained beside a 4-bit base, undisturbed, with v001 of its head."""
    home = make(tmp_path_factory.mktemp("qlora") / "home")
    kit.train_all(home)
    with open_state(home) as state:
        versions.create(state)
    return home


def make(folder: Path) -> Home:
    home = kit.make_home(
        folder, model=QLORA, training={"max_length": 256}, samples={"max_tokens": 4}
    )
    write_set(home, "few", *(f"What is {n} + 2?" for n in range(3)))
    make_file("syllo", 1, 24, 5, False, home.root / "rows.jsonl")
    with open_state(home) as state:
        intake.add_file(state, home.root / "rows.jsonl")
    return home


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    shutil.copytree(trained.root, tmp_path / "home", symlinks=True)
    return Home(tmp_path / "home")


def test_killed_and_continued_the_adapter_is_the_undisturbed_one(
    trained: Home, tmp_path: Path
) -> None:
    home = make(tmp_path / "home")
    killed = EngineProcess(home, {"TRAINCTL_CRASH_AT": "step:8"})
    assert killed.wait(120) == -signal.SIGKILL
    assert kit.train_all(home) == kit.head(trained).weights_digest
    kit.assert_each_row_once(home, 1)


def test_a_version_knows_its_base_and_how_it_trained_and_is_gone_back_to(home: Home) -> None:
    folder = home.versions / "v001"
    model = json.loads((folder / "version.json").read_text())["model"]
    base = next(home.models.iterdir())
    assert model["method"] == "qlora" and model["base_digest"] == weights_digest(base)
    settings = config.load(home.config)
    assert fits.misfit(folder, home, settings) == ""
    kit.add(home, "more.jsonl", 8)
    before = kit.head(home)
    kit.train_all(home)
    assert kit.head(home).step > before.step
    with open_state(home) as state:
        rollback.apply(state, rollback.plan(state, "v001"))
    back = kit.head(home)
    assert (back.step, back.weights_digest) == (before.step, before.weights_digest)
    kit.add(home, "other.jsonl", 8, seed=4)
    kit.train_all(home)  # and it trains on from there
    assert kit.head(home).step > before.step


def test_it_is_verified_deep_asked_and_evaluated_beside_the_full_base_which_is_said(
    home: Home, trainctl: Callable[..., Any]
) -> None:
    with open_state(home) as state:
        version = versions.get(state, "v001")
        checked = examine(_words(verifying.deep_words(state, version)))
    assert checked["ok"], checked
    looked = {check["check"]: check["text"] for check in checked["checks"]}
    assert "beside the full-precision base" in looked["weights"]
    assert "adamw took the state of" in looked["optimizer"]
    asked = trainctl("evaluate", "v001", "--set", "few", "--json", home=home)
    assert asked.code == 0, asked.err
    told = json.loads(asked.out)
    assert told["sets"][0]["answered"] == 3
    assert any("trained beside a 4-bit base" in note for note in told["notes"])
    words = ("generate", "v001", "--prompt", "What is 2 + 2?", "--max-tokens", "4")
    answered = trainctl(*words, "--json", home=home)
    assert answered.code == 0, answered.err
    assert json.loads(answered.out)["base_precision"] == "fp32"
    with kit.Running(home) as running:
        running.unpause()
        running.wait_trained()
        live = running.ask("generate", prompt="What is 2 + 2?", max_tokens=4)
    assert live["base_precision"] == "nf4"


def test_the_merge_is_what_peft_makes_of_the_full_base_and_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as inline:  # what children do, in this process
        inline.setattr(child, "run", lambda *_, stdin, **__: writing.write(json.loads(stdin)))
        inline.setattr(
            versions, "read_back", lambda folder, *_, **__: Outcome.of(verify.verify(folder))
        )
        assert main(["merge", "v001", "--home", str(home.root)]) == 0
    assert "it trained beside a 4-bit base and was merged into the full-precision" in (
        capsys.readouterr().out
    )
    with open_state(home) as state:
        made = versions.get(state, "v002")
        assert "into the full-precision base; it trained beside the 4-bit" in made.description
        assert merged.of(state, made)["method"] == "qlora"
    models: Any = transformers.AutoModelForCausalLM
    ours = models.from_pretrained(home.versions / made.name, dtype="auto").state_dict()
    base = models.from_pretrained(next(home.models.iterdir()), dtype="auto")
    theirs: Any = peft.PeftModel.from_pretrained(base, str(home.versions / "v001"))
    theirs = theirs.merge_and_unload().state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_full_model_does_not_fit_and_an_adapter_does(home: Home, tmp_path: Path) -> None:
    other = kit.make_home(tmp_path / "other", model={**QLORA, "method": "lora"})
    base = next(home.models.iterdir())
    assert 'model.method is "qlora"' in fits.misfit(base, home, config.load(home.config))
    shutil.copytree(home.models, other.models, dirs_exist_ok=True)
    assert fits.misfit(home.versions / "v001", other, config.load(other.config)) == ""
