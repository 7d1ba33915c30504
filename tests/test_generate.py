"""A prompt to the model that trains: its answer, honest refusals; training does not notice."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from textual.widgets import TextArea

from engine import messages
from engine.faults import UnknownCommand
from engine.reading.views import Views
from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Server
from engine.sessions.session import LocalSession
from engine.training import prompted
from engine.training.controls import Prompt
from engine.training.sampler import answer
from queue_store import config as configuration
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.safe import safe
from tests import engine_kit as kit
from tests.tui_pilot import screen, until
from trainctl.__main__ import main
from tui.console import Console
from tui.dialogs.prompt import PromptBox

PROMPT = "What is 2 + 3?"
LONG = {"prompt": PROMPT, "max_tokens": 100_000, "temperature": 5.0}


def one_file(folder: Path, **changes: dict[str, Any]) -> Home:
    home = kit.make_home(folder, **changes)
    kit.add(home, "a.jsonl", 60)
    return home


def on_steps(running: kit.Running, act: Any) -> None:
    """Call `act` with the step on the engine thread, whenever one is reported."""
    board, reported = running.engine.board, running.engine.board.step

    def step(metric: Any) -> None:
        reported(metric)
        act(metric.step)

    board.step = step  # type: ignore[method-assign]


def test_prompts_while_it_trains_change_no_bit_of_the_weights(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "model": {"method": "lora", "lora": {"dropout": 0.1}},  # which draws at every step
        "training": {"gradient_checkpointing": True},
    }
    undisturbed = kit.train_all(one_file(tmp_path / "quiet", **changes))
    home = one_file(tmp_path / "asked", **changes)
    draw = random.Random(1)
    asked: list[Future[Any]] = []

    def ask(step: int) -> None:
        words = {"prompt": PROMPT, "max_tokens": 3, "temperature": draw.choice((0.0, 0.7))}
        words |= {"top_p": 0.9, "seed": step, "key": f"prompt {step}"}
        asked.append(running.engine.submit("generate", words))

    with kit.Running(home) as running:
        running.pause_at(3)
        paused = running.ask("generate", prompt=PROMPT, max_tokens=4)
        assert paused["step"] == 3 and paused["tokens"] <= 4
        assert running.status["state"] == "paused"
        on_steps(running, ask)
        running.ask("resume")
        running.wait_trained()
        answers = [one.result(60) for one in asked]
    assert len({a["step"] for a in answers}) > 8
    assert {a["stop"] for a in answers} <= {"end", "limit"}
    assert kit.head(home).weights_digest == undisturbed


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.Running]:
    home = one_file(tmp_path_factory.mktemp("paused"), data={"system_prompt": "Be kind."})
    with kit.Running(home) as running:
        running.pause_at(3)
        yield running


def test_the_answer_is_the_models_in_the_form_that_trains(paused: kit.Running) -> None:
    worker = paused.engine.worker
    assert worker is not None and worker.live is not None
    loaded = worker.live.loaded

    def wanted(system: str) -> Any:
        turns = [{"role": "system", "content": system}] if system else []
        prompt = Prompt("p", (*turns, {"role": "user", "content": PROMPT}))
        found = answer(loaded.model, loaded.tokenizer, [prompt], max_tokens=9)
        assert found is not None
        return found[0]

    lengths = set()
    for given, system in ((None, "Be kind."), ("", ""), ("Be a pirate, please.",) * 2):
        result = paused.ask("generate", prompt=PROMPT, system=given, max_tokens=9)
        one = wanted(system)
        assert (result["answer"], result["tokens"]) == (one.text, one.tokens)
        assert result["stop"] == ("end" if one.ended else "limit")
        assert result["step"] == 3 and result["seconds"] > 0
        lengths.add(result["prompt_tokens"])
    assert len(lengths) == 3


def test_a_prompt_that_the_context_does_not_hold_is_refused_with_numbers(
    paused: kit.Running,
) -> None:
    with pytest.raises(Refused, match=r"the prompt has \d{4,} tokens, and the model takes \d+"):
        paused.ask("generate", prompt="What? " * 9000)


def test_it_can_be_cancelled_and_makes_way_for_other_commands(paused: kit.Running) -> None:
    engine = paused.engine
    asked = engine.submit("generate", {**LONG, "key": "mine"})
    other = engine.submit("cancel_generate", {"key": "another"})
    assert engine.submit("cancel_generate", {"key": "mine"}).result(60) == {}
    assert asked.result(60)["stop"] == "cancelled" and other.result(60) == {}
    asked = engine.submit("generate", LONG)
    assert engine.submit("save", {}).result(60)["step"] == 3
    assert asked.result(60)["stop"] == "interrupted"


def test_it_ends_at_the_limit_of_time_with_what_there_is(
    paused: kit.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(messages.PROMPT_SECONDS, "standing", 0.2)
    # Taken at random, an answer may end by itself before that; hardly twenty of them.
    answers = (paused.ask("generate", **LONG) for _ in range(20))
    result = next(one for one in answers if one["stop"] == "time")
    assert 0 < result["tokens"] < result["max_tokens"] < 100_000
    assert result["seconds"] < 5


def test_too_little_memory_is_said_and_ends_nothing(
    paused: kit.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(prompted, "answer", scarce)
    with pytest.raises(Refused, match="the memory does not suffice"):
        paused.ask("generate", prompt=PROMPT)
    assert paused.status["state"] == "paused"


def test_while_it_trains_the_time_counts_and_too_much_of_it_is_refused(tmp_path: Path) -> None:
    home = one_file(tmp_path, training={"monitoring_budget": 0.5})
    asked: list[Future[Any]] = []
    spent: list[float] = []

    def ask(step: int) -> None:
        worker = running.engine.worker
        assert worker is not None
        spent.append(worker.watch.monitor.spent)
        if step == 5:  # a long tick is nobody's prompt
            worker.watch.monitor.ran("samples", 1000.0, True)
        if step == 6:
            worker.watch.monitor.asked(1000.0)
        if step in (2, 4, 5, 6):
            prompt = "What? " * 200 if step == 4 else PROMPT
            asked.append(running.engine.submit("generate", {"prompt": prompt, "max_tokens": 2}))

    with kit.Running(home) as running:
        on_steps(running, ask)
        running.unpause()
        running.wait_trained()
        share = running.status["monitoring_share"]
    first = asked[0].result(60)
    assert spent[1] == 0 and spent[2] == pytest.approx(first["seconds"], rel=0.01)
    assert share > 10
    with pytest.raises(Refused, match=r"more than a row has .* \(training.max_length = 128\)"):
        asked[1].result(60)
    assert asked[2].result(60)["tokens"] <= 2
    with pytest.raises(Refused, match=r"ask again after 19\d\d s of training, or pause first"):
        asked[3].result(60)


def test_parked_there_is_no_model_to_ask(tmp_path: Path) -> None:
    with kit.Running(one_file(tmp_path)) as running:
        running.pause_at(2)
        running.ask("pause", park=True)
        with pytest.raises(Refused, match="no model is loaded: training is parked"):
            running.ask("generate", prompt=PROMPT)
        running.ask("resume")
        assert running.ask("generate", prompt=PROMPT, max_tokens=2)["tokens"] <= 2


async def test_the_prompt_box_asks_the_real_model(paused: kit.Running) -> None:
    app = Console(
        configuration.load(paused.home.config),
        LocalSession(Dispatcher(paused.engine)),
        Views(paused.home),
        leave=lambda way: None,
    )
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.frame.state == "paused")
        await pilot.press("4", "t")
        await until(pilot, lambda: isinstance(app.screen, PromptBox))
        assert "paused: answered at once" in screen(pilot)
        await pilot.press(*"hello", "enter")
        await until(pilot, lambda: "step 3 · " in screen(pilot))
        told = app._commands._asked[-1].said[0].result
        assert told is not None and told["tokens"] > 0 and told["prompt_tokens"] > 5
        app.screen.query_one("#prompt", TextArea).load_text("What? " * 9000)
        await pilot.press("enter")
        await until(pilot, lambda: "refused  the prompt has" in screen(pilot))


def test_the_verb_asks_over_the_socket(paused: kit.Running, capsys: Any) -> None:
    server = Server(paused.home, Dispatcher(paused.engine))
    server.start()
    try:
        words = ["generate", "--prompt", PROMPT, "--max-tokens", "3", "--home"]
        assert main([*words, str(paused.home.root), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["step"] == 3 and found["tokens"] <= 3 and found["stop"] in ("end", "limit")
        assert main([*words, str(paused.home.root)]) == 0
        out = capsys.readouterr().out
        assert "step 3 · " in out and " in " in out and safe(found["answer"]) in out
        assert main([*words, str(paused.home.root), "--temperature", "99"]) == 2
        assert "temperature" in capsys.readouterr().err
    finally:
        server.stop()


class Slow:
    """A session whose engine answers once it is cancelled; what is there of it grows."""

    def __init__(self, interrupts: bool) -> None:
        self.interrupts = interrupts
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.cancelled = threading.Event()
        self.looks = 0

    def request(self, command: str, timeout: float | None = None, **words: Any) -> Any:
        self.asked.append((command, words))
        if command == "prompt_progress":
            self.looks += 1
            if not self.interrupts:
                self.cancelled.set()
                raise UnknownCommand("an engine of before")
            if self.looks == 3:
                raise KeyboardInterrupt
            return {"answering": True, "answer": "It is\x1b"[: 2 * self.looks], "tokens": 1}
        if command == "cancel_generate":
            self.cancelled.set()
            return {}
        assert self.cancelled.wait(120)
        return {
            **{"answer": "It is 5", "stop": "end", "tokens": 3, "seconds": 1.0, "step": 7},
            **{"tokens_per_second": 3.0, "backend": "engine"},
            **{key: {"unknown": "it trained on"} for key in ("model", "digest")},
        }

    def close(self) -> None:
        self.cancelled.set()


@pytest.mark.parametrize("interrupts", [True, False])
def test_ctrl_c_cancels_the_engines_answer_and_an_older_engine_only_does_not_stream(
    paused: kit.Running, capsys: Any, monkeypatch: pytest.MonkeyPatch, interrupts: bool
) -> None:
    session = Slow(interrupts)
    monkeypatch.setattr("trainctl.context.Context.engine", lambda context: session)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code = main(["generate", "--prompt", PROMPT, "--home", str(paused.home.root)])
    out = capsys.readouterr().out
    key = session.asked[0][1]["key"]
    if interrupts:
        assert (code, out) == (130, "It i\n")
        assert session.asked[-1] == ("cancel_generate", {"key": key})
    else:
        assert code == 0 and session.looks == 1
        assert out.startswith("It is 5\nstep 7 · unknown: it trained on · 3 tokens in 1")
