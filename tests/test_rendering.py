"""Profile, template and thinking: part of what a checkpoint and a version are, asked as trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.prepare.profiles import find
from engine.prepare.render import Renderer
from engine.prepare.template import ModelText
from engine.training import examples
from engine.training.controls import Answer, Place, SampleResult
from engine.training.run import TrainingRun
from queue_store.config import load
from queue_store.errors import ConfigError, DataError
from queue_store.home import Home
from snapshots import difference, rebuild, versions
from snapshots.listing import checkpoints_json, versions_json
from tests import engine_kit as kit
from tests.stock_templates import stock_folder
from trainctl.__main__ import main

PARTS = {"profile", "profile_version", "profile_digest", "template_digest", "thinking"}


def evaluation(home: Home) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}?"},
                {"role": "assistant", "content": f"{n}"},
            ]
        }
        for n in range(4)
    ]
    home.evaluation.mkdir(exist_ok=True)
    path = home.evaluation / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def trained_home(folder: Path, **data: Any) -> Home:
    home = kit.make_home(folder, data=data)
    kit.add(home, "a.jsonl", 8)
    kit.train_all(home)
    return home


def test_checkpoint_and_version_say_what_made_text_of_their_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = trained_home(tmp_path, profile="regime3", thinking="drop")
    with kit.opened(home) as state:
        made = versions.create(state, description="one")
        (row,) = versions_json(state)
        point = checkpoints_json(state)[-1]
    told = row["rendering"]
    assert set(told) == PARTS and told == point["rendering"]
    assert (told["profile"], told["thinking"]) == ("regime3", "drop")
    info = json.loads((home.versions / made.name / "version.json").read_bytes())
    ledger = json.loads((home.versions / made.name / ".ledger.json").read_bytes())
    assert info["rendering"] == told == ledger["rendering"]
    assert main(["--home", str(home.root), "versions", made.name]) == 0
    shown = capsys.readouterr().out
    assert f"profile regime3 1.0.0 ({told['profile_digest'][:12]})" in shown
    assert f"template {told['template_digest'][:12]}, thinking: drop" in shown


def test_diff_shows_another_profile_and_rollback_and_rebuild_keep_it(tmp_path: Path) -> None:
    home = trained_home(tmp_path)
    with kit.opened(home) as state:
        versions.create(state)
    kit.make_home(tmp_path, data={"profile": "emoji_think"})
    kit.add(home, "b.jsonl", 8, seed=2)
    kit.train_all(home)
    with kit.opened(home) as state:
        versions.create(state)
        found = difference.difference(state, "v001", "v002")
        before = versions_json(state)
    changed = {entry["key"]: (entry["a"], entry["b"]) for entry in found["settings"]}
    assert changed["rendering.profile"] == ("none", "emoji_think")
    assert changed["rendering.profile_digest"][0] != changed["rendering.profile_digest"][1]
    assert "rendering.template_digest" not in changed
    with kit.Running(home) as running:
        running.unpause()
        running.ask("rollback", version="v001")
    with kit.opened(home) as state:
        assert checkpoints_json(state)[-1]["rendering"]["profile"] == "none"
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (home.store / name).unlink(missing_ok=True)
    rebuild.rebuild(home, rebuild.plan(home))
    with kit.opened(home) as state:
        after = {v["name"]: v["rendering"] for v in versions_json(state)}
    assert after["v001"] == before[0]["rendering"] and after["v002"] == before[1]["rendering"]


def test_samples_are_asked_as_the_rows_of_the_item_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    begin = TrainingRun.__init__

    def watched(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        asked.append(tuple(prompt.text for prompt in arguments[-1].prompts))

    monkeypatch.setattr(TrainingRun, "__init__", watched)
    home = kit.make_home(
        tmp_path,
        data={"profile": "regime3", "system_prompt": "Be kind."},
        training={"sample_steps": 1, "monitoring_budget": 1.0, "eval_steps": 1},
        samples={"count": 2, "max_tokens": 4},
    )
    evaluation(home)
    kit.add(home, "a.jsonl", 8)
    kit.train_all(home)
    (texts,) = asked
    assert texts[0] == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is 0?\n\nWrite the answer"
        " between <<ANS_START>> and <<ANS_END>>.<|im_end|>\n<|im_start|>assistant\n"
    )
    db = kit.open_metrics(home)
    assert db.execute("SELECT COUNT(*) FROM samples").fetchone()[0] >= 2
    assert db.execute("SELECT COUNT(*) FROM validations").fetchone()[0] >= 1
    db.close()
    # The held-out rows of the validation loss are rendered as the item's own.
    metas = [json.loads(path.read_bytes()) for path in home.prepared.glob("*/prepared.json")]
    assert len(metas) == 2 and {m["rendering"]["profile"] for m in metas} == {"regime3"}


@pytest.mark.parametrize("how", ["template", "keep", "drop"])
def test_prompts_of_a_thinking_model_follow_the_choice_about_thinking(
    tmp_path: Path, how: str
) -> None:
    home = kit.make_home(tmp_path, samples={"count": 3, "max_tokens": 4})
    evaluation(home)
    model = ModelText(stock_folder(tmp_path / "model", "qwen3"))
    fixed = examples.choose(home, load(home.config), Renderer(model, "", how))
    assert len(fixed) == 3
    end = "<think>\n\n</think>\n\n" if how == "drop" else ""
    for one in fixed.values():
        assert one.prompt.text.endswith(f"<|im_start|>assistant\n{end}")
        # What its loss is measured on: the answer and its end, as rows train.
        ids = one.expected.input_ids[one.expected.trained]
        text = model.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)
        assert text.endswith(f"{one.row.expected}<|im_end|>") and "user" not in text
        assert len(text) < len(one.row.expected) + 40


def test_answers_are_scored_without_thinking_and_without_what_the_profile_adds(
    tmp_path: Path,
) -> None:
    home = kit.make_home(tmp_path, samples={"count": 1, "max_tokens": 4})
    evaluation(home)
    model = ModelText(stock_folder(tmp_path / "model", "qwen3"))
    fixed = examples.choose(home, load(home.config), Renderer(model))
    (name,) = fixed
    for profile, text, right in (
        ("none", "<think>\n\n</think>\n\n0", True),
        ("none", "<<ANS_START>>\n0\n<<ANS_END>>", False),
        ("regime3", "<<ANS_START>>\n0\n<<ANS_END>>", True),
        ("emoji_think", "\U0001f914\U0001f914\n0\n\U0001f6d1\U0001f6d1", True),
        ("emoji_think", "\U0001f914\U0001f914\n1\n\U0001f6d1\U0001f6d1", False),
    ):
        result = SampleResult(Place(1, 1), 1, (Answer(name, text, 3, True, 0.1),), 0.1)
        (sample,) = examples.judge(result, fixed, find(profile))
        assert (sample.exact, sample.answer) == (right, text)


def test_an_example_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path, samples={"count": 1, "max_tokens": 4})
    evaluation(home)
    model = ModelText(stock_folder(tmp_path / "m", "chatml", "{{ raise_exception('no users') }}"))
    with pytest.raises(DataError, match=r"set\.jsonl:1: the chat template refuses .* no users"):
        examples.choose(home, load(home.config), Renderer(model))


def test_an_unknown_profile_keeps_the_engine_from_starting_and_an_edit_from_counting(
    tmp_path: Path,
) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 8)
    with kit.Running(home) as running:
        running.wait_trained()
        text = home.config.read_text()
        home.config.write_text(f'{text}\n[data]\nprofile = "emoji_thin"\n')
        kit.add(home, "b.jsonl", 8, seed=2)
        running.engine.wake()
        running.wait_trained()
    assert set(kit.states(home).values()) == {"done"}
    with kit.opened(home) as state:
        (warned,) = state.db.execute("SELECT text FROM events WHERE kind = 'warning'").fetchall()
    assert 'did you mean "emoji_think"?' in warned[0] and "settings of before" in warned[0]
    running = kit.Running(home)
    running.engine.start()
    assert running.engine.join(60)
    running.lock.release()
    assert isinstance(running.engine.error, ConfigError)


def test_an_item_goes_on_with_data_that_an_earlier_release_prepared(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 24)
    with kit.Running(home) as running:
        running.pause_at(1)
    (meta,) = home.prepared.glob("*/prepared.json")
    old = json.loads(meta.read_bytes())
    del old["rendering"], old["report"]["rendering"], old["report"]["masks"]["end_tokens"]
    meta.chmod(0o600)
    meta.write_text(json.dumps(old))
    kit.train_all(home)
    assert kit.states(home) == {"a.jsonl": "done"}
    with kit.opened(home) as state:
        assert checkpoints_json(state)[-1]["rendering"] == {
            "unknown": "an earlier release did not record it"
        }
