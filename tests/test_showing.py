"""A row of an item as it trains: from its prepared data where there is any, else from its file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.inspecting import showing
from engine.prepare.prepared import Prepared
from engine.reading.views import Views
from engine.sessions.dispatch import Dispatcher
from engine.training.items import Settings
from engine.training.position import Plan
from queue_store import intake, queue
from queue_store.database import open_state
from queue_store.errors import NotFound, UsageError
from queue_store.home import Home
from tests.engine_kit import Running, add, make_home
from tests.prepare_model import chat, write_rows
from tests.waiting import wait_until

HELD = "held out?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An item of two epochs that has trained some steps, saved, with a row held out, a blank
    line and a row too long; config.toml was edited since."""
    home = make_home(tmp_path_factory.mktemp("shown") / "home", training={"epochs": 2})
    (home.evaluation / "set.jsonl").write_text(json.dumps(chat(HELD, "x")) + "\n")
    path = write_rows(home.root / "a.jsonl", [chat(f"{i}?", f"= {i}") for i in range(40)])
    extra = [chat(HELD, "x"), chat("long?", "d " * 200)]
    path.write_text(path.read_text() + "\n" + "".join(json.dumps(row) + "\n" for row in extra))
    with open_state(home) as state:
        intake.add_file(state, path)
    with Running(home) as running:
        wait_until(lambda: running.step >= 3, 60)
    text = home.config.read_text()
    home.config.write_text(text.replace("[model]", '[data]\nsystem_prompt = "Be kind."\n\n[model]'))
    return home


@pytest.fixture
def views(trained: Home) -> Iterator[Views]:
    with Views(trained) as views:
        yield views


def test_a_prepared_row_is_what_trains_in_its_pack_and_at_its_steps(views: Views) -> None:
    item = queue.get(views.state, 1)
    assert item.prepared and item.settings and item.cursor
    data = Prepared.open(views.home.prepared / item.prepared)
    training = Settings.load(item.settings).training
    plan = Plan(data, seed=training.seed, epochs=2, effective_batch=training.effective_batch)
    for line in (1, 17, 40):
        row = showing.row(views, 1, line)
        assert row["settings"] == "frozen" and row["left_out"] == "" and row["line"] == line
        place = row["prepared"]
        sequence = data.sequence(place["pack"])
        assert line in sequence.lines and place["lines"] == list(sequence.lines)
        starts = [*np.flatnonzero(sequence.position_ids == 0).tolist(), len(sequence.input_ids)]
        at = sequence.lines.index(line)
        a, b = starts[at], starts[at + 1]
        assert row["ids"] == sequence.input_ids[a:b].tolist()
        assert row["trained"] == sequence.trained[a:b].tolist()
        for time in place["times"]:
            order = plan.order(time["epoch"] - 1)
            assert order.packs[time["place"] - 1] == place["pack"]
            cursor = plan.cursor(time["epoch"] - 1, time["place"])
            assert time["trained"] == (item.cursor >= cursor)
            # The step in which the pack is: after it, and not before, the cursor passes it.
            step = time["step"]
            begin = (time["epoch"] - 1) * plan.steps_per_epoch
            packs = (step - begin - 1) * training.effective_batch
            assert packs < time["place"] <= packs + training.effective_batch
        assert [time["epoch"] for time in place["times"]] == [1, 2]


def test_frozen_settings_show_the_row_not_those_of_now(views: Views) -> None:
    text = "".join(part["text"] for part in showing.row(views, 1, 1)["segments"])
    assert "Be kind." not in text
    held = showing.row(views, 1, 42)
    assert held["left_out"] == "in an evaluation set" and held["settings"] == "frozen"
    assert "Be kind." not in "".join(part["text"] for part in held["segments"])
    assert held["prepared"] == {"unknown": "the row is not among those prepared"}
    assert showing.row(views, 1, 43)["left_out"] == "longer than max_length 128"


def test_an_item_not_begun_is_shown_with_the_settings_of_now(views: Views) -> None:
    item = add(views.home, "b.jsonl", 4)
    row = showing.row(views, item.id, 2)
    assert row["settings"] == "now" and "not prepared yet" in row["prepared"]["unknown"]
    assert row["segments"][0]["text"].startswith("<|im_start|>system\nBe kind.<|im_end|>")


def test_a_line_that_holds_no_row_is_said_or_its_neighbour_taken(views: Views) -> None:
    with pytest.raises(NotFound, match="line 41 is blank"):
        showing.row(views, 1, 41)
    assert showing.row(views, 1, 41, "next")["line"] == 42
    assert showing.row(views, 1, 41, "previous")["line"] == 40
    assert showing.row(views, 1, 41, "previous")["prepared"]["part"] == "train"
    assert showing.row(views, 1, 999, "previous")["line"] == 43
    for near in ("exact", "next"):
        with pytest.raises(NotFound, match="last row stands on line 43"):
            showing.row(views, 1, 44, near)
    with pytest.raises(NotFound, match="no item 77"):
        showing.row(views, 77, 1)


def test_only_what_stands_before_the_row_is_read(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    path = write_rows(home.root / "big.jsonl", [chat("a?", "b"), chat("c?", "d")])
    with path.open("a") as file:
        line = json.dumps(chat("e?", "f" * 1000)) + "\n"
        file.writelines(line for _ in range(40_000))
    with open_state(home) as state:
        item = intake.add_file(state, path)
    with Views(home) as views:
        showing.row(views, item.id, 1)  # the tokenizer is read once
        before = bytes_read()
        assert showing.row(views, item.id, 2)["line"] == 2
        assert bytes_read() - before < path.stat().st_size // 10


def bytes_read() -> int:
    """What this process has read from files so far."""
    words = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(words["rchar"])


def test_damaged_prepared_data_does_not_keep_a_row_from_being_shown(views: Views) -> None:
    item = queue.get(views.state, 1)
    tokens = views.home.prepared / str(item.prepared) / "tokens.bin"
    moved = tokens.with_name("away")
    before = showing.row(views, 1, 3)
    tokens.rename(moved)
    try:
        row = showing.row(views, 1, 3)
    finally:
        moved.rename(tokens)
    assert (row["ids"], row["trained"]) == (before["ids"], before["trained"])
    assert row["prepared"] == {"unknown": "what was prepared is not on disk now"}


def test_the_engine_answers_a_short_row_to_a_console(trained: Home) -> None:
    class Control:
        home = trained

    dispatcher = Dispatcher(Control())  # type: ignore[arg-type]
    try:
        found = dispatcher.begin("row", {"item": 1, "line": 3, "whole": False}).result(120)
        whole = dispatcher.begin("row", {"item": 1, "line": 3}).result(120)
        assert "ids" not in found and found["segments"] == whole["segments"]
        assert found["tokens"] == len(whole["ids"])
        assert found["trained_tokens"] == sum(whole["trained"])
        with pytest.raises(UsageError):
            dispatcher.begin("row", {"item": 1, "line": 3, "near": "sideways"})
    finally:
        dispatcher.close()


def test_a_very_long_row_is_shortened_in_the_middle_of_its_segments() -> None:
    row: dict[str, Any] = {
        "line": 1,
        "ids": [1, 2],
        "trained": [False, True],
        "segments": [
            {"text": "a" * 1_000_000 + "end", "trained": False},
            {"text": "answer", "trained": True},
        ],
    }
    found = showing.shortened(row)
    assert sum(len(part["text"]) for part in found["segments"]) < showing.SHORT + 100
    assert (
        found["segments"][0]["text"].endswith("end")
        and "characters" in (found["segments"][0]["text"])
    )
    assert found["segments"][1] == {"text": "answer", "trained": True}


def test_show_row_prints_it_with_its_place(trained: Home, trainctl: Any) -> None:
    done = trainctl("show", 1, "--row", 2, home=trained)
    assert done.code == 0 and done.err == "", done.err
    assert "⟦= 1<|im_end|>⟧" in done.out and "1?<|im_end|>⏎" in done.out
    for part in ("as it was prepared", "epoch 1", "epoch 2", "with lines", "⟦…⟧ trains"):
        assert part in done.out, done.out
    shown = json.loads(trainctl("show", 1, "--row", 2, "--json", home=trained).out)
    with Views(trained) as views:
        assert shown == showing.row(views, 1, 2)
    done = trainctl("show", 1, "--row", 41, home=trained)
    assert done.code == 1 and "a.jsonl: line 41 is blank" in done.err and done.err.count("\n") == 1


def test_show_prints_lengths_and_what_was_left_out(trained: Home, trainctl: Any) -> None:
    done = trainctl("show", 1, home=trained)
    assert done.code == 0
    for part in ("█", "tokens a row: mean", "1 over 128 tokens", "trained tokens:", "held out   1"):
        assert part in done.out, done.out
