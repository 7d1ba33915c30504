"""init --from: an older config.json becomes a config.toml, and never by choosing in silence."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from queue_store import config
from queue_store.errors import ConfigError, DataError, UsageError
from tests.old_home import CONFIG, write
from trainctl.importing.old_config import Settings, read, translate
from trainctl.settings_text import edited, own_config, parse_set

CHOICES = ("--set", "training.max_length=2048", "--set", "model.base=Qwen/Qwen3-4B")


def look(tmp_path: Path, content: Any, *chosen: str) -> Settings:
    return translate(read(write(tmp_path / "config.json", content)), parse_set(chosen))


def conflicts(found: Settings) -> dict[str, list[Any]]:
    return {one["key"]: [said["value"] for said in one["values"]] for one in found.conflicts}


def test_the_shipped_file_is_refused_with_every_conflict_and_nothing_is_written(
    tmp_path: Path, trainctl
) -> None:
    write(tmp_path / "config.json", CONFIG)
    done = trainctl("init", "new", "--from", "config.json", "--json")
    assert done.code == 1 and not (tmp_path / "new").exists()
    found = json.loads(done.out)
    assert found["written"] is None and found["problems"] == []
    places = {one["key"]: one["values"] for one in found["conflicts"]}
    assert places == {
        "training.max_length": [
            {"value": 2048, "place": "max_length"},
            {"value": 384, "place": "hyperparams.max_length"},
            {"value": 4096, "place": "locked.max_context_length"},
        ],
        "model.base": [
            {"value": "Qwen3-4B-Instruct-2507", "place": "base_model"},
            {"value": "Qwen/Qwen3-4B", "place": "locked.base_model"},
        ],
    }
    plain = trainctl("init", "new", "--from", "config.json")
    assert plain.code == 1 and "384  in hyperparams.max_length" in plain.out
    assert "--set" in plain.out and "auto_generate, because" in plain.out


def test_once_chosen_the_file_is_written_with_the_defaults_comments(
    tmp_path: Path, trainctl
) -> None:
    write(tmp_path / "config.json", CONFIG)
    dry = trainctl("init", "new", "--from", "config.json", *CHOICES, "--dry-run")
    assert dry.code == 0 and not (tmp_path / "new").exists()
    done = trainctl("init", "new", "--from", "config.json", *CHOICES, "--json")
    assert done.code == 0, done.err
    path = tmp_path / "new" / "config.toml"
    assert json.loads(done.out)["written"] == str(path)
    made = config.load(path)
    assert made.training.max_length == 2048 and made.model.base == "Qwen/Qwen3-4B"
    assert made.training.effective_batch == 32 and made.training.optimizer == "adamw_8bit"
    assert made.model.precision == "bf16" and made.model.lora.targets == ["q_proj", "v_proj"]
    assert made.snapshots.daily == "03:00" and made.samples.max_tokens == 512
    own = config.flat(tomllib.loads(path.read_text()))
    mapped = {one["to"]: one["value"] for one in json.loads(done.out)["mapped"]}
    assert {k: v for k, v in own.items() if k != "console.keys"} == mapped
    lines = path.read_text().splitlines()
    assert any(line.startswith("max_length = 2048") and "never cut" in line for line in lines)
    assert sum("#" in line for line in lines) > 60  # every comment of the default is there
    again = trainctl("init", "new", "--from", "config.json", *CHOICES)
    assert again.code == 1 and "a home already" in again.err


def test_every_key_of_the_format_ends_in_one_of_the_lists(tmp_path: Path) -> None:
    found = look(tmp_path, CONFIG)
    told = [name for one in found.mapped for name in one["from"]]
    told += [said["place"] for one in found.conflicts for said in one["values"]]
    told += [one["key"] for one in found.ignored]
    tops = {name.split(" ")[0].split(".")[0] for name in told}
    assert tops == set(CONFIG)
    assert not [one for one in found.ignored if "unknown" in one["because"]]


@pytest.mark.parametrize(
    ("content", "key", "values"),
    [
        ({"max_length": 1024, "hyperparams": {"max_length": 1024}}, "", []),
        ({"batch_size": 2, "hyperparams": {"batch_size": 4}}, "training.batch_size", [2, 4]),
        ({"training_mode": "dora"}, "model.method", ["dora"]),
        ({"optimizer": {"type": "galore"}}, "training.optimizer", ["galore"]),
        ({"hyperparams": {"fp_precision": "fp16"}}, "model.precision", ["fp16"]),
        (
            {"learning_rate": 1e-4, "optimizer": {"lr": 2e-4}},
            "training.learning_rate",
            [1e-4, 2e-4],
        ),
        ('{"epochs": 1, "epochs": 3}', "training.epochs", [1, 3]),
        ({"model_path": "models/x", "base_model": "x"}, "model.base", ["models/x", "x"]),
        (
            {"gradient_accumulation": 2, "hyperparams": {"gradient_accumulation": 4}},
            "training.effective_batch",
            [2, 4],
        ),
    ],
)
def test_what_is_said_twice_or_has_no_counterpart_is_a_conflict(
    content: Any, key: str, values: list[Any], tmp_path: Path
) -> None:
    found = look(tmp_path, content)
    assert conflicts(found) == ({key: values} if key else {})
    assert found.decided is not bool(key) and key not in found.values


def test_effective_batch_follows_the_batch_that_is_chosen(tmp_path: Path) -> None:
    content = {"batch_size": 2, "gradient_accumulation": 8, "hyperparams": {"batch_size": 4}}
    waiting = look(tmp_path, content)
    told = {one["to"]: one["value"] for one in waiting.mapped}
    assert "once that is chosen" in told["training.effective_batch"]["unknown"]
    assert look(tmp_path, content, "training.batch_size=4").values == {
        **{"training.batch_size": 4, "training.effective_batch": 32},
    }


def test_values_that_config_toml_does_not_take_are_all_named(tmp_path: Path) -> None:
    content = {"learning_rate": 7, "epochs": "three", "save_steps": 0, "batch_size": 2}
    found = look(tmp_path, content)
    assert {one["key"] for one in found.problems} == {
        *("training.learning_rate", "training.epochs", "training.save_steps")
    }
    mended = look(
        tmp_path,
        content,
        *("training.learning_rate=1e-4", "training.epochs=3", "training.save_steps=100"),
    )
    assert mended.decided and mended.values["training.epochs"] == 3
    odd = look(tmp_path, {"batch_size": 3})
    assert [one["key"] for one in odd.problems] == [""] and "multiple" in odd.problems[0]["what"]


def test_unknown_keys_and_nulls_are_named(tmp_path: Path) -> None:
    found = look(tmp_path, {"zzz": 1, "max_length": None, "hyperparams": {"yyy": 2}})
    assert {one["key"]: one["because"] for one in found.ignored} == {
        **{"zzz": "unknown to trainctl", "hyperparams.yyy": "unknown to trainctl"},
        "max_length": "it is null",
    }


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("training.max_length", UsageError, "KEY=VALUE"),
        ("training.max_lenght=5", ConfigError, "did you mean training.max_length?"),
        ("training.max_length=5", ConfigError, "training.max_length"),
        ("training.max_length=many", ConfigError, "training.max_length"),
        ("model.method=dora", ConfigError, "model.method"),
        ("=3", UsageError, "KEY=VALUE"),
    ],
)
def test_a_wrong_choice_is_refused_as_in_config_toml(
    word: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as raised:
        parse_set([word])
    assert says in str(raised.value)


def test_choices_are_read_as_toml_or_as_plain_text() -> None:
    chosen = parse_set(["model.name=3.5", 'model.base="a b"', "model.lora.targets=['x']"])
    assert chosen == {"model.name": "3.5", "model.base": "a b", "model.lora.targets": ["x"]}
    with pytest.raises(UsageError):
        parse_set(["model.name=a", "model.name=b"])


NO_CONFIG = {
    **{"cut": b"{", "a list": b"[1]", "no UTF-8": b"\xff\xfe{", "empty": b""},
    **{"deep": b'{"a":' * 50_000, "a huge number": b'{"n": ' + b"9" * 5000 + b"}"},
}


@pytest.mark.parametrize("what", NO_CONFIG)
def test_what_is_no_config_json_is_one_line(what: str, tmp_path: Path, trainctl) -> None:
    path = write(tmp_path / "c.json", NO_CONFIG[what])
    with pytest.raises(DataError):
        read(path)
    done = trainctl("init", "x", "--from", path)
    assert done.code == 1 and done.err.count("\n") == 1 and not (tmp_path / "x").exists()


def test_a_dry_run_without_from_is_a_wrong_word(trainctl) -> None:
    for words in (["--demo", "--set", "model.name=x"], ["--dry-run"], ["--demo", "--from", "x"]):
        assert trainctl("init", "x", *words).code == 2


def test_settings_are_put_into_a_persons_file_without_touching_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    text = "# mine\n[model]\nname = 'a#b' # the name\n\n[data]\n# profile = \"none\"  # off\n"
    new = edited(text, {"model.name": "c", "data.profile": "x", "samples.count": 3}, path)
    assert new.splitlines()[:3] == ["# mine", "[model]", 'name = "c"   # the name']
    assert 'profile = "x"     # off' in new and new.endswith("[samples]\ncount = 3\n")
    default = own_config(config.default_path().read_text())
    assert edited(default, {}, path) == default
    spread = "[evaluation]\nsets = [\n  'a',\n]\n"
    with pytest.raises(Exception, match="by hand"):
        edited(spread, {"evaluation.sets": ["b"]}, path)
