"""Samples read from the store: why there are none, marks of the ticks, rows of an older release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.messages import is_unknown
from engine.reading.views import Views
from queue_store import database
from queue_store.home import Home
from queue_store.metrics import Example, Metrics, Sample
from tests import engine_kit as kit
from tests.stepping_engine import make_home
from tests.story import Story
from tests.test_rendering import evaluation

HOST = '[hosts.titan]\nssh = "titan"'


@pytest.mark.parametrize(
    ("config", "files", "says"),
    [
        (
            "[samples]\nitem_count = 0",
            (),
            "no held-out examples: put JSONL files into the home's evaluation/ folder",
        ),
        ("", (), "the next come at a step that 1000 divides (training.sample_steps) and as a file"),
        (
            "[samples]\ncount = 0\nitem_count = 0",
            ("a",),
            "switched off: samples.count = 0 and samples.item_count = 0",
        ),
        (
            "[training]\nsample_steps = 0\n[samples]\nschedule = []",
            ("a",),
            "switched off: training.sample_steps = 0 and samples.schedule = []",
        ),
        ("[training]\nsample_steps = 0", ("a",), "the next come as a file begins to train"),
        ("[training]\nmonitoring_budget = 0.0", ("a",), "training.monitoring_budget = 0"),
        (
            '[evaluation]\nsets = ["b"]\n[samples]\nitem_count = 0',
            ("a",),
            "evaluation.sets in config.toml names b",
        ),
        ("[training]\nsample_steps = 7", ("a",), "the next come at a step that 7 divides"),
        (
            f"[training]\nmonitoring_budget = 0.0\n{HOST}",
            ("a",),
            "by titan (samples.where), after an item (evaluation.after_item) and every 500",
        ),
        (f"[samples]\ncount = 0\n{HOST}", ("a",), "samples.count = 0, and the rows of items"),
        (HOST, (), "no held-out examples"),
        (
            '[samples]\nwhere = "host"\n[evaluation]\nafter_item = false\ncheckpoint_steps = 0\n'
            f"versions = false\n{HOST}",
            ("a",),
            "when trainctl evaluate --queue asks",
        ),
        ("[training]\nsample_stepz = 7", ("a",), "unknown key training.sample_stepz"),
    ],
)
def test_why_there_are_no_samples(
    tmp_path: Path, config: str, files: tuple[str, ...], says: str
) -> None:
    home = make_home(tmp_path / "home")
    home.config.write_text(config)
    for name in files:
        evaluation(home)
        (home.evaluation / "set.jsonl").rename(home.evaluation / f"{name}.jsonl")
    with Views(home) as views:
        found = views.samples()
    assert is_unknown(found["step"]) and says in found["step"]["unknown"]
    assert found["samples"] == [] and found["steps"] == []


def test_marks_are_those_of_the_present_line_after_a_step(tmp_path: Path) -> None:
    story = Story(make_home(tmp_path / "home"))
    story.metrics.set_examples([Example(n, "s", 0, "p", "gold", "", None) for n in ("e1", "e2")])
    story.item()
    story.claim()
    story.begin()
    story.train(5)
    story.sample({"e1": False, "e2": True})
    point = story.checkpoint()
    story.train(5)
    story.sample({"e1": True, "e2": True})  # of a branch that is left
    story.roll_back(point)
    story.begin()
    story.train(7)
    story.sample({"e1": True})
    with Views(story.home) as views:
        story.checkpoint()
        assert views.sample_marks() == [
            (5, "e1", False, 0.5),
            (5, "e2", True, 0.5),
            (12, "e1", True, 0.5),
        ]
        assert views.sample_marks(after=5) == [(12, "e1", True, 0.5)]
        assert views.sample_marks(after=12) == []
        newest = views.samples(example="e1", limit=1)["samples"]
        assert [one["step"] for one in newest] == [12]
    story.close()


def test_ticks_of_an_older_release_have_no_loss_and_new_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(make_home(tmp_path / "home"))
    story.item()
    story.claim()
    story.begin()
    story.train(5)
    assert story.run is not None
    run, branch = story.run.id, story.run.branch
    story.home.metrics_db.unlink()
    with monkeypatch.context() as old:
        old.setattr(database, "METRICS_SCHEMA", database.METRICS_SCHEMA[:1])
        db = database.open_metrics(story.home)
        db.execute("INSERT INTO examples VALUES('e1', 's', 0, 'p', 'gold', '', NULL)")
        db.execute(
            "INSERT INTO samples VALUES(1, ?, ?, 3, 'e1', 'said', 0, 0.5, 7, 0.1, 1.0)",
            (run, branch),
        )
        db.close()
    metrics = Metrics(story.home)
    sample = Sample(branch, 5, "e1", "said", True, 1.0, 7, 0.1, expected_loss=0.25)
    bad = Sample(branch, 6, "e1", "said", True, 1.0, 7, 0.1, expected_loss=float("nan"))
    metrics.add_samples(run, [sample, bad])
    metrics.close()
    story.step = 6
    story.checkpoint()
    with Views(story.home) as views:
        found = views.samples(example="e1")["samples"]
    assert found[0]["expected_loss"] == {"unknown": "not measured at this tick"}
    assert found[1]["expected_loss"] == 0.25
    assert is_unknown(found[2]["expected_loss"])
    story.state.close()


def sampled_home(folder: Path) -> Home:
    home = kit.make_home(
        folder,
        training={"sample_steps": 3, "monitoring_budget": 1.0},
        samples={"count": 3, "max_tokens": 4},
    )
    evaluation(home)
    kit.add(home, "a.jsonl", 40)
    return home


def test_a_real_tick_measures_the_loss_of_the_expected_answer(
    tmp_path: Path, trainctl: Any
) -> None:
    home = sampled_home(tmp_path / "home")
    kit.train_all(home)
    done = trainctl("samples", "--json", home=home)
    rows = json.loads(done.out)["samples"]
    assert len(rows) == 3
    # An untrained model of 4,096 tokens knows next to nothing: near ln(4096) = 8.3 at first.
    assert all(1 < row["expected_loss"] < 9 and 0 <= row["similarity"] <= 1 for row in rows)
    assert len({row["expected_loss"] for row in rows}) > 1
    text = trainctl("samples", home=home).out
    assert "loss of the expected answer" in text and "nats a token" in text
    assert "no samples were taken" not in trainctl("samples", "--step", 3, home=home).out
    other = trainctl("samples", "--step", 4, home=home).out
    assert other.startswith("no samples were taken at step 4: these are of step 3, the newest")
