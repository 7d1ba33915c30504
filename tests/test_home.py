"""Which home a command works on, and what making one leaves alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from queue_store import config as configuration
from queue_store.errors import NotFound
from queue_store.home import Home, data_home, find_home


def make(folder: Path) -> Home:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text("")
    return Home(folder)


def test_the_option_beats_the_environment_beats_the_folder_beats_xdg(tmp_path, monkeypatch) -> None:
    option, named, near = (make(tmp_path / name) for name in ("option", "named", "near"))
    elsewhere = make(data_home())
    deep = near.root / "a" / "b"
    deep.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()

    monkeypatch.chdir(deep)
    monkeypatch.setenv("TRAINCTL_HOME", str(named.root))
    assert find_home(str(option.root)) == option
    assert find_home() == named
    monkeypatch.delenv("TRAINCTL_HOME")
    assert find_home() == near
    monkeypatch.chdir(outside)
    assert find_home() == elsewhere


def test_a_home_that_is_none_is_refused_with_how_to_make_one(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"--home .*trainctl init"):
        find_home(str(tmp_path / "none"))
    with pytest.raises(NotFound, match="trainctl init"):
        find_home()


def test_home_stands_before_or_after_the_verb(home, trainctl) -> None:
    before = trainctl("--home", home.root, "--json", "config", "show")
    between = trainctl("config", "--home", home.root, "show", "--json")
    after = trainctl("config", "show", "--json", "--home", home.root)
    assert before.code == 0 and before.out == after.out == between.out


def test_without_a_home_the_exit_code_is_1_and_nothing_is_made(tmp_path, trainctl) -> None:
    done = trainctl("queue")
    assert done.code == 1 and "trainctl init" in done.err and done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_init_makes_a_home_that_only_its_user_can_read(tmp_path, trainctl) -> None:
    done = trainctl("init", "new", "--json")
    assert done.code == 0, done.err
    home = Home(Path(json.loads(done.out)["home"]))
    assert home.exists() and (home.inbox / "high").is_dir() and (home.inbox / "low").is_dir()
    assert stat.S_IMODE(home.store.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.config.stat().st_mode) == 0o600


def test_init_never_writes_over_a_home(tmp_path, trainctl) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.toml").write_text("[training]\nseed = 9\n")
    for words in ([], ["--demo"]):
        done = trainctl("init", folder, *words)
        assert done.code == 1 and "home already" in done.err
    assert (folder / "config.toml").read_text() == "[training]\nseed = 9\n"
    assert [path.name for path in folder.iterdir()] == ["config.toml"]


def test_init_writes_the_settings_that_are_given(tmp_path, trainctl) -> None:
    words = ("model.base=/m x", "training.batch_size=3", "training.effective_batch=9")
    done = trainctl("init", "h", *(w for word in words for w in ("--set", word)))
    assert done.code == 0, done.err
    found = configuration.load(tmp_path / "h" / "config.toml")
    assert (found.model.base, found.training.effective_batch) == ("/m x", 9)
    for word, said in (
        ("training.batch_size=3", "effective_batch"),
        ("training.max_lenght=512", "max_length"),
        ("training.epochs", "no KEY=VALUE"),
    ):
        refused = trainctl("init", "other", "--set", word)
        assert refused.code in (1, 2) and said in refused.err and "Traceback" not in refused.err
        assert refused.err.count("\n") == 1 and not (tmp_path / "other").exists()


def test_init_on_a_file_is_refused(tmp_path, trainctl) -> None:
    (tmp_path / "file").write_text("mine")
    done = trainctl("init", "file")
    assert done.code == 1 and "this is a file" in done.err
    assert (tmp_path / "file").read_text() == "mine"


def test_looking_at_a_homes_places_makes_none(tmp_path) -> None:
    home = Home(tmp_path / "nowhere")
    assert not home.exists() and home.socket.name == "engine.sock"
    assert not home.root.exists()
