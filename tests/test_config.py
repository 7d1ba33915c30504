"""config.toml: what is wrong in it is said in one line with file, key and mend."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from queue_store import config
from queue_store.errors import ConfigError
from tests.conftest import ROOT


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_the_default_is_valid_and_every_key_has_a_comment() -> None:
    assert config.default().model.base == "builtin:tiny"
    keys = [
        line
        for line in (ROOT / "config.toml").read_text().splitlines()
        if re.match(r"\w+ = ", line)
    ]
    assert len(keys) > 50
    for line in keys:
        assert re.search(r"  # \S", line), line


NO_JOBS = "after_item = false\ncheckpoint_steps = 0\nversions = false"


def test_an_own_file_changes_only_what_it_names(tmp_path: Path) -> None:
    path = write(tmp_path, '[training]\nlearning_rate = 1e-3\n[console.keys]\npause = "space"\n')
    own, default = config.load(path), config.default()
    assert own.training.learning_rate == 1e-3
    assert own.console.keys == {"pause": "space"}
    assert own.training.muon == default.training.muon and own.model == default.model


@pytest.mark.parametrize(
    ("text", "on_host"),
    [
        ("", False),
        ('[hosts.titan]\nssh = "titan"\n', True),
        ('[samples]\nwhere = "local"\n[hosts.titan]\nssh = "titan"\n', False),
        ('[samples]\nwhere = "host"\n[hosts.titan]\nssh = "titan"\n', True),
        (f'[evaluation]\n{NO_JOBS}\n[hosts.titan]\nssh = "titan"\n', False),
        (
            f'[evaluation]\n{NO_JOBS}\n[samples]\nwhere = "host"\n[hosts.titan]\nssh = "titan"\n',
            True,
        ),
    ],
)
def test_who_answers_the_samples(tmp_path: Path, text: str, on_host: bool) -> None:
    assert config.load(write(tmp_path, text)).samples_on_host is on_host


WRONG = {
    "unknown key": (
        "[training]\nlearning_rat = 1e-3\n",
        ["unknown key training.learning_rat", "did you mean training.learning_rate?"],
    ),
    "unknown table": ("[trainin]\nseed = 1\n", ["unknown key trainin", "did you mean training?"]),
    "wrong type": (
        '[training]\nepochs = "two"\n',
        ['line 2: training.epochs cannot be "two" (write a whole number from 1)'],
    ),
    "a number in quotes": (
        '[training]\n\n# slow\nlearning_rate = "2e-5"\n',
        ['line 4: training.learning_rate cannot be "2e-5" (write 2e-5 without quotes)'],
    ),
    "a word for true": (
        'training.packing = "yes"\n',
        ['line 1: training.packing cannot be "yes" (write true or false)'],
    ),
    "below the limit": (
        "[training]\nepochs = 0\n",
        ["training.epochs cannot be 0 (write a whole number from 1)"],
    ),
    "above the limit": (
        "[training]\nthreads = 100000\n",
        ["training.threads cannot be 100000 (write a whole number from 0 to 1024)"],
    ),
    "a choice with a wrong letter": (
        '[model]\nmethod = "lorra"\n',
        ['model.method cannot be "lorra" (did you mean "lora"? also: "full", "qlora")'],
    ),
    "no such choice": (
        '[training]\nprocesses = "many"\n',
        ['processes cannot be "many" (write a whole number from 1 to 64 or "auto")'],
    ),
    "a choice in a table of one's own name": (
        '[hosts.titan]\nssh = "titan"\ndeploy = "bst"\n',
        ['line 3: hosts.titan.deploy cannot be "bst" (did you mean "best"?)'],
    ),
    "an unknown key in such a table": (
        '[backups.nas]\ntarget = "/mnt/x"\nkeep = 3\n',
        ["line 3: unknown key backups.nas.keep (did you mean backups.nas.keep_last?)"],
    ),
    "a key that such a table needs": (
        '[queue]\n[hosts.titan]\nstore = "x"\n',
        ["line 2: hosts.titan.ssh is missing"],
    ),
    "a path that is none": (
        '[backups.nas]\ntarget = "mnt"\n',
        ["line 2: backups.nas.target", "write a folder"],
    ),
    "a form that is none": (
        '[evaluation]\nlocal = "gpu"\n',
        ['evaluation.local cannot be "gpu" (write "cpu", "cuda:1" or "")'],
    ),
    "a list of other things": (
        '[samples]\nschedule = [1, "a"]\n',
        ['samples.schedule cannot be [1, "a"] (write a list in [], of a whole number from 0)'],
    ),
    "processes that do not share a step": (
        "[training]\nprocesses = 2\nbatch_size = 8\neffective_batch = 8\n",
        ["line 4: training.effective_batch", "set it to 16"],
    ),
    "a table for a value": ("[training.epochs]\na = 1\n", ["training.epochs"]),
    "a value for a table": ("training = 3\n", ["training", "[training]"]),
    "keys that contradict": (
        "[training]\nbatch_size = 3\neffective_batch = 8\n",
        ["line 1: ", "effective_batch 8", "batch_size 3"],
    ),
    "a schedule without horizon": ('[training]\nschedule = "cosine"\n', ["schedule_steps"]),
    "a host that is not there": (
        '[samples]\nwhere = "host"\n',
        ['samples.where = "host"', "name one in [hosts]"],
    ),
    "not TOML": ("[training\n", ["not TOML", "line 1"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_key_is_named_with_its_mend(tmp_path: Path, name: str) -> None:
    text, expected = WRONG[name]
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and "\n" not in line
    for part in expected:
        assert part in line, line


def test_the_command_line_says_it_with_exit_code_2_and_no_traceback(home, trainctl) -> None:
    home.config.write_text("[training]\nlearning_rat = 1\n")
    before = sorted(home.root.rglob("*"))
    for words in (["config", "show"], ["--daemon"], ["--daemon", "--detach"], []):
        done = trainctl(*words, home=home)
        assert done.code == 2, words
        assert done.err.count("\n") == 1 and "did you mean training.learning_rate?" in done.err
    assert sorted(home.root.rglob("*")) == before


def test_binary_bytes_are_no_toml(home, trainctl) -> None:
    home.config.write_bytes(b"\xff\xfe\x00\x01")
    done = trainctl("config", "show", home=home)
    assert done.code == 2 and "Traceback" not in done.err and str(home.config) in done.err


def test_origin_says_where_each_value_comes_from(home, trainctl) -> None:
    home.config.write_text("[training]\nseed = 7\n")
    rows = json.loads(trainctl("config", "show", "--origin", "--json", home=home).out)
    by_key = {row["key"]: row for row in rows}
    assert by_key["training.seed"] == {
        "key": "training.seed",
        "value": 7,
        "origin": str(home.config),
    }
    assert by_key["training.epochs"]["origin"].startswith("default")
    table = trainctl("config", "show", home=home).out
    assert re.search(r"^training.seed +7$", table, re.MULTILINE)


def test_a_locked_key_changes_only_by_unlocking_it(home, trainctl) -> None:
    from queue_store import database, journal

    def unlock(key: str, *words: str):
        return trainctl("config", "unlock", key, *words, home=home)

    assert "locked: model.base" in unlock("training.seed").err
    assert "before the first step" in unlock("model.name").err
    values = config.flat(config.to_dict(config.default()))
    with database.open_state(home) as state:
        state.meta_set("locked", {key: values[key] for key in config.LOCKED})
    assert "first write the new value" in unlock("training.max_length").err
    home.config.write_text('[training]\nmax_length = 512\n[model]\nmethod = "lora"\n')
    assert unlock("training.max_length").code == 1  # nobody can be asked
    assert unlock("model.method", "--yes").code == 1
    done = unlock("training.max_length", "--yes")
    assert done.code == 0 and "2048 -> 512" in done.out
    with database.open_state(home) as state:
        assert state.meta_get("locked")["training.max_length"] == 512
        assert state.meta_get("locked")["model.method"] == "full"
        assert journal.latest(state, 1)[0].kind == "unlocked"


def test_a_new_homes_file_shows_every_key_and_changes_none(tmp_path, trainctl) -> None:
    folder = tmp_path / "new"
    assert trainctl("init", folder).code == 0
    text = (folder / "config.toml").read_text()
    assert config.load(folder / "config.toml") == config.default()
    for key in config.flat(config.to_dict(config.default())):
        assert f"# {key.rsplit('.', 1)[1]} = " in text or key == "console.keys", key
    taken = re.sub(r"(?m)^# (\w+ = )", r"\1", text)
    assert tomllib.loads(taken)["training"]["seed"] == 42
