"""hosts.json of an older system: hosts that evaluate are taken, everything else is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from queue_store import config
from queue_store.home import Home
from tests import old_home
from trainctl.importing import old_config, old_hosts


def look(hosts: Any, config_json: dict[str, Any] | None = None) -> old_config.Settings:
    return old_config.translate(list((config_json or {}).items()), {}, hosts)


def test_hosts_that_evaluate_are_taken_the_preferred_one_first() -> None:
    found = look(old_home.HOSTS)
    assert found.values == {"hosts.3090.ssh": "me@evaluator", "hosts.spare-lan.ssh": "10.0.0.9"}
    assert list(found.values) == ["hosts.3090.ssh", "hosts.spare-lan.ssh"]
    because = {one["key"]: one["because"] for one in found.ignored}
    assert "[backups.NAME]" in because["hosts.json: hosts.nas"]
    assert "trains" in because["hosts.json: hosts.4090"]
    assert "store of its own" in because["hosts.json: hosts.3090.models_dir"]
    assert "ssh reaches it" in because["hosts.json: hosts.3090.services"]
    assert {"hosts.json: version", "hosts.json: default_inference"} <= set(because)
    assert found.decided and not [v for v in because.values() if "unknown" in v]


def test_remote_eval_is_the_same_host_or_one_more() -> None:
    both = look(old_home.HOSTS, {"remote_eval": {"host": "evaluator", "port": 8765}})
    assert len(both.values) == 2
    assert {"key": "remote_eval", "because": "the same host as in hosts.json"} in both.ignored
    alone = look(None, {"remote_eval": {"host": "evaluator", "remote_user": "me"}})
    assert alone.values == {"hosts.evaluator.ssh": "me@evaluator"}
    assert not look(None, {"remote_eval": {"enabled": False}}).values


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        {"hosts": {"x": []}},
        {"hosts": {"x": {"host": "-oProxyCommand=id", "role": "inference"}}},
        {"hosts": {"x": {"host": "a b; rm -rf /", "role": "inference"}}},
    ],
)
def test_what_makes_no_sense_is_a_problem_and_no_host(hosts: Any) -> None:
    found = look(hosts)
    assert found.problems and not found.values


def test_init_writes_them_into_config_toml(tmp_path: Path, trainctl) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "mine"}))
    (tmp_path / "hosts.json").write_text(json.dumps(old_home.HOSTS))
    done = trainctl("init", "new", "--from", "config.json")
    assert done.code == 0, done.err
    made = config.load(Home(tmp_path / "new").config)
    assert list(made.hosts) == ["3090", "spare-lan"] and made.hosts["3090"].ssh == "me@evaluator"
    assert made.hosts["3090"].python == "python3" and made.model.name == "mine"


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text(json.dumps(old_home.HOSTS))
    (tmp_path / "hosts.json").symlink_to(tmp_path / "elsewhere.json")
    assert old_hosts.beside(tmp_path / "config.json") is None
