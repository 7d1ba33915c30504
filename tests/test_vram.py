"""The estimate of memory against counted tensors of real models."""

from __future__ import annotations

import json
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.loop import chores
from engine.memory import asking, cards, fitting, records, whatif
from engine.memory.estimate import CONTEXT_CPU, Profile, estimate
from queue_store import config as configuration
from queue_store.config import Config
from queue_store.database import open_state
from queue_store.home import Home
from snapshots.child import Unfinished
from tests import engine_kit as kit

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = {
    **{"vocab_size": 1024, "hidden_size": 128, "num_hidden_layers": 5, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 384},
}
KINDS = ("qwen3", "llama", "gemma3_text", "mistral")
LENGTH = 256
WHOLE = {"in_backward": True, "max_grad_norm": 0.0}
"""Steps each tensor as its gradient arrives: of a batch that is a whole step."""


def folder_of(path: Path, kind: str, **changes: Any) -> Path:
    """A folder with the config.json of a small model, and nothing else."""
    made = transformers.AutoConfig.for_model(kind, **{**TINY, **changes})
    made.architectures = None
    made.save_pretrained(path)
    return path


def settings(**training: Any) -> Config:
    """The default configuration with other values of [training], and of "model.KEY"."""
    base = {"training.max_length": LENGTH, "training.effective_batch": 1}
    given = {
        key if key.startswith("model.") else f"training.{key}": value
        for key, value in training.items()
    }
    return fitting.with_settings(configuration.default(), {**base, **given})


_profiles: dict[str, Profile] = {}
"""By what they depend on: many tests have one model."""


def profiled(folder: Path, config: Config, size: int = 4) -> Profile:
    """As the child measures it, in this process."""
    from engine.memory.profile import profile

    asked = asking.asked(folder, config.model, size)
    key = json.dumps({**asked, "folder": (folder / "config.json").read_text()})
    if key not in _profiles:
        _profiles[key] = Profile.of(profile(asked))
    return _profiles[key]


class Counter(torch.utils._python_dispatch.TorchDispatchMode):
    """The most bytes that tensors took at once, all of them, each as long as it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: Any = torch.utils.weak.WeakIdKeyDictionary(ref_type=weakref.ref)

    def take(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.known:
            self.known[storage] = size = storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.gone, size)

    def gone(self, size: int) -> None:
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for one in torch.utils._pytree.tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self.take(one)
        return out


def measured(folder: Path, config: Config, size: int = 4) -> int:
    """Bytes that the second step of a real training takes at most: real weights, the optimizer
    of config.toml, its micro-batches."""
    from engine.training.loss_path import LossPath
    from engine.training.model import add_lora, checkpoint_activations
    from engine.training.optim import make_optimizer
    from engine.training.quantized import loading
    from engine.training.schedule import GlobalSchedule
    from engine.training.stepping import stepping

    read = transformers.AutoConfig.from_pretrained(folder)
    dtype = torch.float32 if size == 4 else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_config(read, dtype=dtype)
    if config.model.method == "qlora":
        model.save_pretrained(folder)
        words = {**loading(dtype, "cpu"), "dtype": dtype}
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, **words)
    model.train()
    model.config.use_cache = False
    if config.model.method != "full":
        model = add_lora(model, config.model.lora, 0)
    if config.training.gradient_checkpointing:
        checkpoint_activations(model)
    optimizer = make_optimizer(model, config.training)
    ids = torch.randint(0, read.vocab_size, (config.training.batch_size, LENGTH))
    rows = torch.cat([torch.arange(LENGTH // 2)] * 2)  # two rows packed, as training has them
    positions = rows.expand(config.training.batch_size, -1)

    schedule = GlobalSchedule(optimizer, config.training)
    path = LossPath(model)
    path.use(config.training.chunked_loss)
    batches = config.training.effective_batch // config.training.batch_size
    count = torch.tensor(ids.numel() * batches)

    def step() -> None:
        with stepping(model, optimizer, schedule, config.training, path) as steps:
            for _ in range(batches):
                # Its logits are nobody's once there is a loss, as in Trainer.
                loss = model(
                    input_ids=ids, position_ids=positions, labels=ids, num_items_in_batch=count
                ).loss
                loss.backward()
            steps.step()
            optimizer.zero_grad()

    step()
    with Counter() as counter:
        for one in (*model.parameters(), *model.buffers(), *scales(model)):
            counter.take(one)
        for state in optimizer.state.values():
            for one in state.values():
                if isinstance(one, torch.Tensor):
                    counter.take(one)
        step()
    return counter.peak


def scales(model: Any) -> list[Any]:
    """What a 4-bit base has beside its packed numbers, which are parameters."""
    states = [one.quant_state for one in model.parameters() if hasattr(one, "quant_state")]
    return [tensor for one in states for tensor in (one.absmax, one.state2.absmax, one.offset)]


def check(folder: Path, config: Config, size: int = 4) -> None:
    """Predicted within 10 % of what is counted."""
    told = estimate(profiled(folder, config, size), config.training, size=size, gpu=False)
    predicted, counted = told.total - CONTEXT_CPU, measured(folder, config, size)
    assert predicted == pytest.approx(counted, rel=0.1), (told, counted)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_of_every_architecture_are_counted_from_its_config(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, kind, tie_word_embeddings=tied)
    read = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(read)
    found = profiled(folder, settings())
    assert found.trained == sum(p.numel() for p in model.parameters())
    assert found.trained_bytes == 4 * found.trained
    assert found.frozen == 0 and found.tied is tied


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, "gemma2"])  # the last one has no sdpa
def test_the_peak_is_within_a_tenth_of_counted_tensors(
    kind: str, checkpointing: bool, tmp_path: Path
) -> None:
    config = settings(gradient_checkpointing=checkpointing, batch_size=2, effective_batch=4)
    check(folder_of(tmp_path, kind), config)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw_8bit"},
        {"optimizer": "muon"},
        {"optimizer": "muon", "gradient_checkpointing": True, "max_length": LENGTH},
        {"model.method": "lora"},
        {"model.method": "lora", "gradient_checkpointing": True},
        {"model.method": "qlora"},
        {"model.method": "qlora", "gradient_checkpointing": True, "effective_batch": 3},
        {"effective_batch": 3},
        {"optimizer": "muon", "muon.rest": "adamw_8bit"},
        {"chunked_loss": "on"},
        {"chunked_loss": "on", "gradient_checkpointing": True, "effective_batch": 2},
        WHOLE,
        {**WHOLE, "optimizer": "adamw_8bit", "chunked_loss": "on"},
        {**WHOLE, "gradient_checkpointing": True, "batch_size": 2, "effective_batch": 2},
        {**WHOLE, "optimizer": "muon", "chunked_loss": "on"},
    ],
    ids=str,
)
def test_the_peak_of_each_optimizer_and_method(changes: dict[str, Any], tmp_path: Path) -> None:
    check(folder_of(tmp_path, "qwen3"), settings(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": True},
        {"rounding": "nearest"},
        {**WHOLE},
        {**WHOLE, "optimizer": "adamw_8bit", "chunked_loss": "on"},
        {**WHOLE, "optimizer": "adamw_8bit", "tied": False},
        {"optimizer": "muon", "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_the_peak_in_bf16(changes: dict[str, Any], tmp_path: Path) -> None:
    given = {key: value for key, value in changes.items() if key != "tied"}
    folder = folder_of(
        *(tmp_path, "qwen3"), vocab_size=4096, tie_word_embeddings=changes.get("tied", True)
    )
    check(folder, settings(**given), size=2)


@pytest.mark.parametrize("size", [4, 2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "changes",
    [{**WHOLE, "chunked_loss": "on"}, {"chunked_loss": "off"}, {"effective_batch": 2}],
    ids=str,
)
def test_the_peak_where_the_head_decides(
    changes: dict[str, Any],
    tied: bool,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large vocabulary and short rows: of a tied head two gradients and their sum meet."""
    monkeypatch.setitem(globals(), "LENGTH", 32)
    folder = folder_of(tmp_path, "qwen3", vocab_size=32_768, tie_word_embeddings=tied)
    check(folder, settings(**changes, optimizer="adamw_8bit", max_length=32), size)


@pytest.mark.parametrize("size", [4, 2])
@pytest.mark.parametrize("rows", [2, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_where_layers_take_a_batch_in_parts(
    kind: str, rows: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**WHOLE, "gradient_checkpointing": True, "chunked_loss": "on"}
    changes |= {"batch_size": rows, "effective_batch": rows, "optimizer": "adamw_8bit"}
    folder = folder_of(tmp_path, kind, vocab_size=256, intermediate_size=512)
    whole = measured(folder, settings(**changes), size)
    monkeypatch.setattr("engine.kernels.PART_TOKENS", LENGTH)
    assert profiled(folder, settings(**changes), size).parts
    assert measured(folder, settings(**changes), size) < whole
    check(folder, settings(**changes), size)
    if kind == "qwen3":
        check(folder, settings(**{**changes, "chunked_loss": "off"}), size)


def test_the_peak_of_layers_that_cannot_be_parted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Falcon's give a tuple: they are computed whole, and so they are counted."""
    changes = {**WHOLE, "gradient_checkpointing": True, "chunked_loss": "on"}
    changes |= {"batch_size": 6, "effective_batch": 6, "optimizer": "adamw_8bit"}
    folder = tmp_path
    sizes = {key: TINY[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    transformers.FalconConfig(vocab_size=256, **sizes).save_pretrained(folder)
    whole = measured(folder, settings(**changes))
    monkeypatch.setattr("engine.kernels.PART_TOKENS", LENGTH)
    assert not profiled(folder, settings(**changes)).parts
    assert measured(folder, settings(**changes)) == pytest.approx(whole, rel=1e-3)
    check(folder, settings(**changes))


@pytest.mark.parametrize("size", [4, 2])
@pytest.mark.parametrize("rows", [4, 16])
def test_the_peak_where_a_whole_chunk_of_logits_decides(
    rows: int, size: int, tmp_path: Path
) -> None:
    changes = {**WHOLE, "gradient_checkpointing": True, "chunked_loss": "on"}
    changes |= {"batch_size": rows, "effective_batch": rows, "optimizer": "adamw_8bit"}
    check(folder_of(tmp_path, "qwen3", vocab_size=8192), settings(**changes), size)


def test_stochastic_rounding_takes_as_much_at_once_as_is_counted() -> None:
    from engine.memory.estimate import ROUNDED
    from engine.training.rounding import CHUNK

    assert ROUNDED == CHUNK


def test_measuring_is_broken_off_when_the_engine_stops(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "qwen3")
    ended = threading.Event()
    ended.set()
    with pytest.raises(Unfinished, match="broken off"):
        asking.profile(None, folder, configuration.default().model, 4, stop=ended)


def test_peaks_of_items_are_kept_beside_the_estimate(home: Home) -> None:
    state = open_state(home)
    try:
        words = {"predicted": 900, "settings": "tiny"}
        records.record(state, "a card", 1, measured=1000, **words)
        records.record(state, "a card", 1, measured=800, **words)
        records.record(state, "another", 2, measured=500, **words)
        found = records.summary(state, "a card")
        assert found is not None
        assert found["items"] == 1 and found["last"]["measured"] == 1000
        assert found["low"] == found["high"] == pytest.approx(0.9)
        assert records.told(found) == "in 1 item: predicted 90% of what was measured"
        records.record(state, "a card", 3, measured=600, **words)
        both = records.told(records.summary(state, "a card") or {})
        assert both == "over 2 items: predicted 90% to 150% of what was measured"
        assert records.summary(state, "nobody's") is None
    finally:
        state.close()


def test_an_engine_that_trains_keeps_its_peak_beside_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what steps in the backward pass; and what-if tells how well that was."""
    monkeypatch.setattr(
        *(asking, "profile"),
        lambda home, folder, model, size, liger, **more: profiled(
            folder, with_model(configuration.default(), model), size
        ),
    )
    way = {**WHOLE, "batch_size": 2, "effective_batch": 2, "chunked_loss": "on"}
    home = kit.make_home(tmp_path / "home", training={**way, "sample_steps": 0})
    item = kit.add(home, "long.jsonl", 1500)
    with open_state(home) as state, kit.Running(home) as engine:
        chores.compare_memory(engine.engine, state)
        assert records.summary(state, cards.here().name) is None, "no step was measured so far"
        engine.wait_step(3)
        chores.compare_memory(engine.engine, state)
        found = records.summary(state, cards.here().name)
        assert found is not None and found["last"]["item"] == item.id
        assert "in_backward" in found["last"]["settings"]
        # Of a tiny model nearly all is the process: it holds pytest here, too.
        assert 0.2 < found["low"] <= found["high"] < 2
        with whatif.begin(home) as shown:
            assert shown.well == found
            mine = cards.here(own=[os.getpid()])
            assert abs(shown.device.free - mine.free) < 1 << 30


def with_model(config: Config, model: configuration.Model) -> Config:
    return msgspec.structs.replace(config, model=model)


def test_a_base_in_4_bits_is_counted_as_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of wide layers and short rows: weights and the unpacked layer are most of the peak."""
    monkeypatch.setitem(globals(), "LENGTH", 32)
    wide = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 3}
    folder = folder_of(tmp_path, "qwen3", **wide, tie_word_embeddings=False)
    config = settings(**{"model.method": "qlora", "gradient_checkpointing": True})
    small = configuration.Lora(r=4, alpha=4, dropout=0.0, targets=["q_proj"])
    model = msgspec.structs.replace(config.model, lora=small)
    config = msgspec.structs.replace(config, model=model)
    packed = profiled(folder, config, 2)
    with torch.device("meta"):
        read = transformers.AutoConfig.from_pretrained(folder)
        whole = transformers.AutoModelForCausalLM.from_config(read)
    assert packed.frozen == sum(p.numel() for p in whole.parameters())
    matrices = 3 * 512 * (2 * 128 + 2 * 64 + 3 * 2048)
    assert (packed.quantized, packed.largest) == (matrices, 512 * 2048)
    check(folder, config, 2)
