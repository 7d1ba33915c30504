"""The demo's home: what it holds, and what it never touches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.lineage import SUFFIX
from evaluation.scorers import score
from evaluation.sets import held_out_digests, load_sets
from queue_store import config as configuration
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.rows import Row, badge, prompt_digest, quick_check, read_rows
from trainctl import demo_home
from trainctl.demo_home import FILES, HELD_OUT, make_demo_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("demo") / "home"
    lines = make_demo_home(folder)
    assert all("\n" not in line for line in lines)
    return Home(folder)


def inbox(home: Home) -> list[Path]:
    return sorted(home.inbox.rglob("*.jsonl"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_its_configuration_is_accepted_and_says_only_what_differs(home: Home) -> None:
    config = configuration.load(home.config)
    assert config.model.base == "builtin:tiny" and config.training.optimizer == "muon"
    default = configuration.flat(configuration.to_dict(configuration.default()))
    own = {
        key: value
        for key, value, origin in configuration.origins(home.config)
        if origin == str(home.config)
    }
    same = {key for key, value in own.items() if default[key] == value}
    assert same <= {"model.base"}
    assert [s.name for s in load_sets(home, config.evaluation.sets)] == config.evaluation.sets


def test_its_inbox_has_files_of_both_skills_in_three_priorities(home: Home) -> None:
    files = inbox(home)
    assert len(files) == len(FILES) >= 5
    skills = set()
    for path in files:
        found, check = badge(path.name), quick_check(path)
        assert found is not None and found["count"] == check.accepted == check.lines
        assert path.with_name(path.name + SUFFIX).is_file()
        skills.add(found["skill"])
    assert skills == {"binary", "syllo"}
    assert {path.parent for path in files} == {home.inbox, home.inbox / "high", home.inbox / "low"}
    (first,) = (home.inbox / "high").glob("*.jsonl")
    assert first.name.startswith("train_syllo_level1_")
    assert all(p.stat().st_mtime <= time.time() for p in files)


def test_no_row_of_its_inbox_is_held_out(home: Home) -> None:
    held_out = held_out_digests(home)
    assert len(held_out) == sum(count for _, _, count in HELD_OUT)
    for path in inbox(home):
        for row in read_rows(path):
            assert isinstance(row, Row) and prompt_digest(row) not in held_out


def test_its_held_out_sets_are_scored_by_their_skills(home: Home) -> None:
    sets = load_sets(home)
    assert {(s.name, len(s.examples)) for s in sets} == {
        (f"{skill}_level{level}", count) for skill, level, count in HELD_OUT
    }
    for one in sets:
        for example in one.examples:
            assert score(example.skill, example.expected, example.expected, example.metadata).exact


def test_made_twice_it_stays_as_it_is(home: Home) -> None:
    before = snapshot(home.root)
    (line,) = make_demo_home(home.root)
    assert "nothing was changed" in line
    assert snapshot(home.root) == before


def test_a_demo_that_was_killed_in_the_making_is_finished(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    code = (
        "import os,signal,sys;from pathlib import Path;import trainctl.demo_home as d;"
        "real=d.write_rows;count=[0]\n"
        "def write(*a,**k):\n"
        "  real(*a,**k);count[0]+=1\n"
        "  if count[0]==2: os.kill(os.getpid(),signal.SIGKILL)\n"
        "d.write_rows=write;d.make_demo_home(Path(sys.argv[1]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(folder)], env=dict(os.environ))
    assert killed.returncode == -9 and not Home(folder).exists()
    make_demo_home(folder)

    def names(root: Path) -> list[str]:
        return sorted(p.name.rsplit("_", 2)[0] for p in root.rglob("*.jsonl"))

    assert names(folder) == names(home.root)
    assert Home(folder).config.read_bytes() == home.config.read_bytes()


def test_other_folders_and_homes_are_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('[model]\nname = "mine"\n')
    (tmp_path / "file").write_text("x")
    before = snapshot(tmp_path)
    for name, reason in (
        ("mine", "not empty and no demo"),
        ("home", "is a home already"),
        ("file", "is a file"),
    ):
        with pytest.raises(Refused, match=reason):
            make_demo_home(tmp_path / name)
    assert snapshot(tmp_path) == before
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(demo_home, "FILES", ())  # quicker
    assert len(make_demo_home(tmp_path / "empty")) > 1


def test_making_it_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys;from pathlib import Path;import trainctl.demo_home, evaluation.sets,"
        "evaluation.make;"
        "assert not {'torch','transformers','numpy','textual','tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
