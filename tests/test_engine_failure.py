"""An engine that ends for a reason that a person mends says so where somebody looks."""

from __future__ import annotations

import tomli_w

from engine.hints.hint import RULES
from engine.reading.views import Views
from queue_store import journal
from queue_store.database import open_state
from queue_store.home import Home
from tests import engine_kit as kit


def set_base(home: Home, base: str) -> None:
    settings = {**kit.SETTINGS, "model": {"name": "kit", "base": base}}
    home.config.write_text(tomli_w.dumps(settings))


def test_why_the_engine_ended_stands_in_the_journal_and_in_the_status_until_one_trains(
    tmp_path,
) -> None:
    home = kit.make_home(tmp_path / "home")
    kit.add(home, "a.jsonl", 2)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    set_base(home, str(broken))
    with kit.Running(home) as running:
        assert running.engine.join(120) and running.engine.error is not None
        why = str(running.engine.error)
    assert str(broken) in why
    with open_state(home) as state:
        (told,) = [one.text for one in journal.latest(state, 50) if one.kind == "engine.failed"]
    assert why in told
    with Views(home) as views:
        (hint,) = [one for one in views.status()["hints"] if one["rule"] == "engine_failed"]
    assert hint["text"] == why and hint["reason"] == RULES["engine_failed"].reason

    set_base(home, "builtin:tiny")
    kit.train_all(home)
    with Views(home) as views:
        assert "engine_failed" not in [one["rule"] for one in views.status()["hints"]]


def test_a_new_home_without_its_model_is_refused_before_it_goes_to_the_background(
    home, trainctl
) -> None:
    home.config.write_text('[model]\nbase = "/no/such/model"\n')
    done = trainctl("--daemon", "--detach", home=home)
    assert done.code == 1 and done.err.count("\n") == 1
    assert "no model folder /no/such/model" in done.err and "model.base" in done.err
    assert not home.lock.exists()
