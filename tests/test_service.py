"""The systemd unit: what systemd itself accepts, whatever the home is called."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from queue_store.home import Home
from trainctl.commands.service import KEPT, analyze, escaped, quoted, unit_path, unit_text


@pytest.fixture
def odd(tmp_path, monkeypatch) -> Home:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    home = Home(tmp_path / 'a "home" of 100% $x')
    home.create()
    home.config.write_text("")
    return home


def test_a_word_is_taken_literally_by_systemd() -> None:
    assert quoted('a "b" 5% $x \\') == '"a \\"b\\" 5%% $$x \\\\"'


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="no systemd-escape here")
@pytest.mark.parametrize("path", ["/home/me/train", "/a b/.c/é", "/x-y/z_1", "/.hidden"])
def test_the_units_name_is_escaped_as_systemd_does(path) -> None:
    done = subprocess.run(
        ["systemd-escape", "--path", path], capture_output=True, text=True, check=True
    )
    assert escaped(path) == done.stdout.strip()


def test_the_daemon_has_what_the_card_is_used_with_here_and_no_secret(
    odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEPT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = unit_text(odd)
    assert 'Environment="PYTORCH_ALLOC_CONF=expandable_segments:True"\n' in text
    assert 'Environment="CUDA_VISIBLE_DEVICES=1"\n' in text
    assert "LD_LIBRARY_PATH" not in text and "hf_secret" not in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_in_the_unit_and_something_in_a_broken_one(odd) -> None:
    name, text = unit_path(odd).name, unit_text(odd)
    assert analyze(name, text) == []
    assert analyze(name, text.replace("Type=notify", "Type=nonsense"))


def test_dry_run_prints_install_writes_and_no_others_unit_is_replaced(odd, trainctl) -> None:
    printed = trainctl("service", "install", "--dry-run", home=odd)
    assert printed.code == 0 and "OOMPolicy=continue" in printed.out
    place = unit_path(odd)
    assert not place.exists()
    done = json.loads(trainctl("service", "install", "--json", home=odd).out)
    assert place.read_text() == done["text"] and "enable --now" in done["next"][1]
    place.write_text("[Unit]\nDescription=mine\n")
    refused = trainctl("service", "install", home=odd)
    assert refused.code == 1 and "--yes" in refused.err
    assert trainctl("service", "uninstall", home=odd).code == 1
    assert trainctl("service", "install", "--yes", home=odd).code == 0
    assert trainctl("service", "uninstall", home=odd).code == 0 and not place.exists()
