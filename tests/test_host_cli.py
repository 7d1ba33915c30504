"""trainctl hosts, hosts trust, doctor --host, and [hosts.NAME] in config.toml."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.host.evaluate import evaluate_on
from evaluation.host.machine import known_hosts
from evaluation.host.memory import packed
from evaluation.host.session import Session
from queue_store import config
from queue_store.database import open_state
from queue_store.errors import ConfigError
from queue_store.home import Home
from tests.host_kit import Stub, make_stub, make_weights, questions, table
from tests.sshd_kit import Host, key, make_host, needs_sshd


@pytest.fixture(scope="module")
def titan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield host
    host.stop()


@pytest.fixture
def stub(titan: Host, tmp_path: Path, home: Home) -> Iterator[Stub]:
    known = titan.folder / "known"
    before = known.read_text()
    made = make_stub(titan, tmp_path)
    home.config.write_text(table("titan", made))
    yield made
    known.write_text(before)


def fingerprint(host: Host, name: str = "host") -> str:
    path = str(host.folder / f"{name}.pub")
    told = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True)
    return told.stdout.split()[1]


@needs_sshd[0]
@needs_sshd[1]
def test_each_host_is_looked_at_and_what_it_holds_is_named(
    stub: Stub, home: Home, tmp_path: Path, trainctl
) -> None:
    off = table("off", stub, ssh="127.0.0.1", ssh_config="/dev/null")
    home.config.write_text(home.config.read_text() + off)
    with open_state(home) as state:
        shipped = packed(state, make_weights(tmp_path / "v007").weights)
    evaluate_on(stub.machine, shipped, questions(1), {}, lambda answer: None)
    idle, down = json.loads(trainctl("hosts", "--json", home=home).out)
    assert (idle["name"], idle["state"], idle["why"], idle["gpus"]) == ("titan", "idle", "", [])
    assert idle["disk"]["free"] > 0 and idle["packages"]["torch"]
    assert [model["version"] for model in idle["models"]] == ["v007"]
    assert down["state"] in ("down", "refused") and "unknown" in down["disk"]
    with Session(stub.machine, who="somebody else"):
        told = trainctl("hosts", home=home)
    assert told.code == 0 and "busy" in told.out and "somebody else" in told.out
    assert "v007" in told.out


def test_without_a_host_it_says_where_one_is_configured(home: Home, trainctl) -> None:
    told = trainctl("hosts", home=home)
    assert told.code == 0 and "[hosts.NAME] in config.toml" in told.out
    assert trainctl("hosts", "--json", home=home).out.strip() == "[]"
    unknown = trainctl("hosts", "trust", "titan", home=home)
    assert unknown.code == 1 and "no host titan" in unknown.err


@needs_sshd[0]
@needs_sshd[1]
def test_a_key_is_trusted_only_by_its_fingerprint(stub: Stub, home: Home, trainctl) -> None:
    known = stub.host.folder / "known"
    known.write_text("")
    (row,) = json.loads(trainctl("hosts", "--json", home=home).out)
    assert row["state"] == "refused" and "trainctl hosts trust titan" in row["why"]
    right = fingerprint(stub.host)
    silent = trainctl("hosts", "trust", "titan", home=home)
    assert silent.code == 1 and right in silent.err and "nobody can be asked" in silent.err
    wrong = trainctl("hosts", "trust", "titan", "--yes", "SHA256:guess", home=home)
    assert wrong.code == 1 and right in wrong.err and not known_hosts(home).exists()
    done = trainctl("hosts", "trust", "titan", "--yes", right, "--json", home=home)
    told = json.loads(done.out)
    assert told["written"] and not told["changed"] and told["fingerprint"] == right
    assert known_hosts(home).stat().st_mode & 0o777 == 0o600
    assert known.read_text() == "", "the user's own file is the user's"
    assert right in trainctl("log", home=home).out
    again = json.loads(trainctl("hosts", "trust", "titan", "--json", home=home).out)
    assert again["known"] and not again["written"]
    (row,) = json.loads(trainctl("hosts", "--json", home=home).out)
    assert row["state"] == "idle"


@needs_sshd[0]
@needs_sshd[1]
def test_a_changed_key_is_said_and_replaces_ours_once_trusted(
    stub: Stub, home: Home, trainctl, tmp_path: Path
) -> None:
    known, port = stub.host.folder / "known", stub.host.port
    known.write_text("")
    known_hosts(home).write_text(f"[127.0.0.1]:{port} {key(tmp_path / 'old')}\nother ssh-rsa A\n")
    right = fingerprint(stub.host)
    done = trainctl("hosts", "trust", "titan", "--yes", right, "--json", home=home)
    assert json.loads(done.out)["changed"]
    lines = known_hosts(home).read_text().splitlines()
    assert len(lines) == 2 and lines[0] == "other ssh-rsa A" and f":{port} " in lines[1]


@pytest.mark.slow
@needs_sshd[0]
@needs_sshd[1]
def test_doctor_goes_from_ssh_to_tokens_a_second(stub: Stub, home: Home, trainctl) -> None:
    done = trainctl("doctor", "--host", "titan", "--json", home=home)
    told = json.loads(done.out)
    checks = {check["name"]: check for check in told["checks"]}
    assert {"ssh", "python", "torch", "gpu", "store", "link", "generation"} <= set(checks)
    assert "tokens/s" in checks["generation"]["found"] and "ms" in checks["link"]["found"]
    assert done.code == (0 if told["ok"] else 1)
    with Session(stub.machine, who="a job"):
        busy = json.loads(trainctl("doctor", "--host", "titan", "--json", home=home).out)
    assert "a job" in busy["checks"][-1]["found"]
    home.config.write_text(table("titan", stub, python="/no/such/python"))
    wrong = trainctl("doctor", "--host", "titan", home=home)
    assert wrong.code == 1 and "no such Python" in wrong.out and "config.toml" in wrong.out


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[hosts.a]\nstore = 'x'", "ssh"),
        ("[hosts.a]\nssh = '-oProxyCommand=id'", "hosts.a.ssh"),
        ("[hosts.a]\nssh = 'host:22'", "ports and keys"),
        ("[hosts.a]\nssh = 'h'\nstore = '../x'", "hosts.a.store"),
        ("[hosts.a]\nssh = 'h'\nstore = '-x'", "hosts.a.store"),
        ("[hosts.a]\nssh = 'h'\npython = '-c'", "hosts.a.python"),
        ("[hosts.a]\nssh = 'h'\nport = 22", "port"),
        ("[hosts.a]\nssh = 'h'\nssh_config = 'x'", "hosts.a.ssh_config"),
        ("[hosts.local]\nssh = 'h'", "local is this machine"),
        ('[hosts."a b"]\nssh = "h"', "no name for a host"),
    ],
)
def test_a_host_that_makes_no_sense_is_an_error_with_its_key(
    home: Home, text: str, word: str
) -> None:
    home.config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(home.config)
    assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("ssh", ["titan", "me@10.0.0.9", "me@[fe80::1]", "a.b-c_d"])
def test_aliases_and_addresses_are_hosts(home: Home, ssh: str) -> None:
    home.config.write_text(f"[hosts.a]\nssh = {json.dumps(ssh)}\npython = '~/venv/bin/python'")
    assert config.load(home.config).hosts["a"].ssh == ssh
