"""Versions, checkpoints and the base model asked a prompt: who answered is proven, nobody else
ever does, what grows is harmless on a terminal, and ctrl+c leaves no process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.judging import asking
from engine.sessions.asks import ASKS
from engine.sessions.dispatch import Dispatcher
from engine.sessions.session import LocalSession
from engine.training.controls import Prompt
from engine.training.model import load_model
from engine.training.sampler import answer
from evaluation.host.errors import HostFailure
from evaluation.host.session import Session
from queue_store import config
from queue_store.database import open_state
from queue_store.errors import NotFound, VerificationFailed
from queue_store.home import Home
from snapshots import inuse, versions
from snapshots.named import named
from tests.asking_kit import PROMPT, Heard, asked, read_until, stub, terminal
from tests.engine_kit import Running, add, head, make_home, train_all
from tests.host_kit import Stub, make_stub, table
from tests.sshd_kit import make_host, needs_sshd
from tests.stepping_engine import SteppingEngine
from tests.waiting import wait_until
from trainctl.__main__ import main

__all__ = ["stub", "terminal"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with v001 and v002, and a head beyond them."""
    home = make_home(tmp_path_factory.mktemp("generate") / "home")
    for seed in (1, 2, 3):
        add(home, f"{seed}.jsonl", rows=8, seed=seed)
        train_all(home)
        if seed < 3:
            with open_state(home) as state:
                versions.create(state)
    return home


def test_each_answer_is_that_models_and_names_its_digest(home: Home, trainctl) -> None:
    words = ("generate", "v002", "v001", "base", "2", "--prompt", PROMPT, "--max-tokens", "9")
    done = trainctl(*words, "--json", "--local", home=home)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["model"] for one in found] == ["v002", "v001", "base"], "each once, in its order"
    with open_state(home) as state:
        for one in found:
            known = named(state, one["model"])
            assert (one["digest"], one["step"]) == (known.digest, known.step)
            assert (one["backend"], one["host"], one["device"]) == ("plain", "local", "cpu")
            assert one["tokens"] <= 9 and one["tokens_per_second"] > 0 and one["seconds"] > 0
            assert one["stop"] == ("limit" if one["tokens"] == 9 else "end")
            assert "seed" not in one, "greedy: nothing was drawn"
    assert len({one["digest"] for one in found}) == 3
    # The words are those of the version's weights, in the form in which rows train.
    with open_state(home) as state:
        folder = versions.version_folder(home, versions.get(state, "v001"))
    settings = config.load(home.config)
    loaded = load_model(folder, settings.model, settings.training, device="cpu")
    prompt = Prompt("p", ({"role": "user", "content": PROMPT},))
    alone = answer(loaded.model, loaded.tokenizer, [prompt], max_tokens=9)
    assert alone is not None and found[1]["answer"] == alone[0].text


def test_one_that_is_not_there_is_refused_and_nobody_is_asked_for_it(home: Home, trainctl) -> None:
    for words, says in (
        (("v001", "v009"), "no model v009"),
        (("v001", "--host", "titan"), "no host titan"),
        (("v001", "--temperature", "nan"), "--temperature"),
        (("v001", "--top-p", "0"), "--top-p"),
    ):
        done = trainctl("generate", *words, "--prompt", PROMPT, home=home)
        assert done.code in (1, 2) and says in done.err and not done.out
        assert done.err.count("\n") == 1
    heard = Heard()
    with pytest.raises(NotFound):
        asked(home, "v001", "v009", heard=heard)
    assert heard.turns == []


def test_damaged_weights_answer_nothing_and_the_others_do(home: Home, stub) -> None:
    with open_state(home) as state:
        folder = versions.version_folder(home, versions.get(state, "v001"))
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    weights.chmod(0o600)
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        both = asked(home, "v001", "v002")
        assert "answer" not in both[0] and "model.safetensors" in both[0]["error"]
        assert both[1]["answer"].startswith("said ") and "error" not in both[1]
        with pytest.raises((VerificationFailed, HostFailure)):
            asked(home, "v001")
    finally:
        weights.write_bytes(before)
        weights.chmod(0o400)


def test_a_version_that_is_read_is_not_removed_and_one_that_went_is_named(
    home: Home, stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_of, alone = asking.weights_of, []

    def watched(state: Any, settings: Any, of: Any) -> Any:
        with inuse.claimed(of.name) as free:
            alone.append(free)
        if of.name == "v002":
            raise FileNotFoundError(of.name)
        return weights_of(state, settings, of)

    monkeypatch.setattr(asking, "weights_of", watched)
    first, second = asked(home, "v001", "v002")
    assert alone == [False, False] and "answer" in first
    assert second["error"] == "v002 is not on this machine any more"


def test_a_worker_that_loaded_another_model_is_not_believed(home: Home, stub) -> None:
    stub.acts({"after": 0, "act": "other model"})
    with pytest.raises(HostFailure) as failure:
        asked(home, "v002")
    assert failure.value.code == "digest"
    stub.acts({"after": 0, "act": "other digest"})
    for said in asked(home, "v001", "v002"):
        assert "another model answered" in said["error"] and "answer" not in said


def test_it_grows_and_can_be_cancelled_with_what_there_is(home: Home) -> None:
    heard = Heard(stop=3)
    (said,) = asked(home, "v001", "v002", heard=heard, max_tokens=2000, temperature=0.01, seed=1)
    assert said["stop"] == "cancelled" and heard.turns == ["v001"]
    assert (said["temperature"], said["top_p"], said["seed"]) == (0.01, 1.0, 1)
    assert 0 < said["tokens"] < 2000 and said["answer"] == heard.texts[-1]
    assert len(heard.texts[0]) < len(heard.texts[-1])


def test_without_an_engine_the_checkpoint_that_training_stands_on_answers(
    home: Home, trainctl, stub, capsys, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text(PROMPT)
    words = ("generate", "-f", str(tmp_path / "prompt.txt"), "--max-tokens", "3")
    assert main([*words, "--json", "--home", str(home.root)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["digest"]) == (head(home).name, head(home).weights_digest)
    (tmp_path / "prompt.txt").write_bytes(b"\xff\xfe")
    assert "no UTF-8 text" in trainctl(*words, home=home).err
    empty = make_home(tmp_path / "empty")
    refused = trainctl("generate", "--prompt", PROMPT, home=empty)
    assert refused.code == 1 and "nothing has trained in this home yet" in refused.err


def test_the_engines_model_is_not_asked_elsewhere(home: Home, trainctl) -> None:
    with Running(home) as running:
        running.unpause()
        wait_until(lambda: running.status["state"] == "idle", timeout=60)
        found = running.ask("generate", prompt=PROMPT, max_tokens=2, key="mine")
        assert (found["model"], found["digest"]) == (head(home).name, head(home).weights_digest)
        assert found["backend"] == "engine"
        assert running.engine.prompt_progress("mine") == asking_nothing()
        told: list[dict[str, Any]] = []
        growing = running.engine.growing
        grow = growing.grow

        def heard(key: str, text: str, tokens: int) -> None:
            grow(key, text, tokens)
            told.append(running.engine.prompt_progress("mine"))
            assert running.engine.prompt_progress("another") == asking_nothing()

        growing.grow = heard  # type: ignore[method-assign]
        long = running.ask("generate", prompt=PROMPT, max_tokens=300, key="mine")
        assert len(told) > 1 and all(one["answering"] for one in told)
        assert long["answer"].startswith(told[-1]["answer"].rstrip("\ufffd"))


def asking_nothing() -> dict[str, Any]:
    return {"answering": False, "answer": "", "tokens": 0}


def test_ctrl_c_ends_it_at_once_and_leaves_no_process(terminal) -> None:
    # Greedy, so young a model never ends by itself; drawn, it may.
    words = ("--prompt", PROMPT, "--max-tokens", "4000", "--local")
    process, leader = terminal("generate", "v001", "v002", *words)
    # An answer that is not at its end is on the screen.
    seen = read_until(leader, lambda seen: len(seen.partition(b"v001:")[2]) > 100)
    assert b"v002:" not in seen
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: the worker hears it, too
    assert process.wait(90) == 130
    _, alive = psutil.wait_procs(children, timeout=90)
    assert not alive
    os.set_blocking(leader, False)
    with contextlib.suppress(BlockingIOError):
        seen += os.read(leader, 1 << 16)
    assert b"Traceback" not in seen


def test_models_are_shown_one_after_another_or_beside_each_other(
    home: Home, stub, capsys, monkeypatch
) -> None:
    stub.acts({"after": 0, "act": "hostile"}, {"after": 0, "act": "hostile"})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    words = ["generate", "v001", "v002", "--prompt", PROMPT, "--home", str(home.root)]
    with open_state(home) as state:
        first, second = (named(state, name).digest[:12] for name in ("v001", "v002"))
    said = "said ␛]52;c;aGk=␇café␍�31m"
    monkeypatch.setenv("COLUMNS", "80")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\r", "\x9b"}
    before, after = out.split("v002:\n")
    assert before.startswith(f"v001:\n{said}\nv001 · step 2 · {first} · ")
    assert after.startswith(f"{said}\nv002 · step 4 · {second} · ")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\r", "\x9b"}
    top, told, *_ = out.splitlines()
    assert [part.strip() for part in top.split("|")] == [said, said]
    assert f"v001 · step 2 · {first}" in told.split("|")[0]
    assert f"v002 · step 4 · {second}" in told.split("|")[1]


# -- over a session -----------------------------------------------------------------------------


@pytest.fixture
def engine(home: Home) -> Iterator[SteppingEngine]:
    with SteppingEngine(home) as made:
        yield made


def test_a_session_asks_models_and_looks_how_far_they_are(
    home: Home, stub, engine: SteppingEngine
) -> None:
    """As a console does: it asks, polls, cancels; the worker is not the engine's business."""
    session = LocalSession(Dispatcher(engine))
    words = {"models": ["v001", "v002"], "prompt": PROMPT, "key": "mine"}
    said = session.request("ask", **words)
    with open_state(home) as state:
        assert [one["digest"] for one in said] == [
            named(state, name).digest for name in ("v001", "v002")
        ]
    assert session.request("prompt_progress", key="mine") == asking_nothing()
    with pytest.raises(NotFound, match="no model v009"):
        session.request("ask", **{**words, "models": ["v001", "v009"]})
    stub.acts({"after": 0, "act": "until cancelled"})
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(session.request, "ask", **words)
        told: list[dict[str, Any]] = []

        def loaded() -> bool:
            told.append(session.request("prompt_progress", key="mine"))
            return told[-1].get("model") == "v001"

        wait_until(loaded, timeout=30)
        assert told[-1]["answering"] and told[-1]["said"] == []
        assert session.request("prompt_progress", key="another") == asking_nothing()
        session.request("cancel_generate", key="another")
        assert not under_way.done()
        session.request("cancel_generate", key="mine")
        (cut,) = under_way.result(120)
    assert cut["stop"] == "cancelled" and cut["model"] == "v001"
    session.close()


def test_what_is_asked_ends_with_the_engine(stub, engine: SteppingEngine) -> None:
    dispatcher = Dispatcher(engine)
    stub.acts({"after": 0, "act": "until cancelled"})
    asked = dispatcher.begin("ask", {"models": ["v001"], "prompt": PROMPT, "key": "ends"})
    wait_until(lambda: ASKS.progress("ends") is not None, timeout=30)
    dispatcher.close()
    for said in asked.result(120):
        assert said["stop"] == "cancelled"


# -- on a host ----------------------------------------------------------------------------------


@pytest.fixture
def titan(home: Home, tmp_path: Path) -> Iterator[Stub]:
    """A host behind a real sshd, in the home's config.toml; its model is an echo, of whose probe
    nothing stays in the home."""
    host = make_host(tmp_path, "titan")
    host.start()
    before = home.config.read_text()
    made = make_stub(host, tmp_path)
    home.config.write_text(f"{before}\n{table('titan', made)}")
    forget_probes(home)
    yield made
    forget_probes(home)
    home.config.write_text(before)
    host.stop()


def forget_probes(home: Home) -> None:
    with open_state(home) as state, state.transaction():
        state.meta_set(asking.memory.PROBES, {})


@needs_sshd[0]
@needs_sshd[1]
def test_a_host_is_brought_the_weights_and_named(home: Home, titan: Stub, trainctl) -> None:
    words = ("generate", "v001", "v002", "--prompt", PROMPT)
    done = trainctl(*words, "--json", home=home)
    assert done.code == 0, done.err
    with open_state(home) as state:
        for one in json.loads(done.out):
            assert one["digest"] == named(state, one["model"]).digest
            assert one["host"] == "titan" and one["answer"].startswith("said ")
    held = [path for path in titan.store.iterdir() if len(path.name) == 64]
    assert len(held) == 2, "by their digests"
    # What the store holds of it is changed on the host: it is read there, and sent again.
    for path in held:
        weights = path / "model.safetensors"
        weights.chmod(0o600)
        weights.write_bytes(b"x" + weights.read_bytes()[1:])
    assert trainctl(*words, "--host", "titan", home=home).code == 0
    with Session(titan.machine, who="somebody else"):
        busy = trainctl(*words, home=home)
    assert busy.code == 1 and "somebody else" in busy.err and not busy.out
    assert busy.err.count("\n") == 1
