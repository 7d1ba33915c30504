"""Copies elsewhere with a running engine: made by themselves after a version is verified, listed,
and brought back through the session. The real daemon, a folder as the target."""

from __future__ import annotations

import json
import shutil

from tests import engine_kit as kit
from tests.daemon_kit import SECONDS, daemon, status
from tests.waiting import wait_until


def test_a_running_engine_copies_each_verified_version_and_brings_one_back(
    tmp_path, trainctl
) -> None:
    target = tmp_path / "other disk"
    target.mkdir()
    home = kit.make_home(tmp_path / "home", backups={"disk": {"target": str(target)}})
    kit.add(home, "a.jsonl", 24)
    with daemon(home) as running:
        running.started()
        running.wait_idle()
        assert trainctl("snapshot", home=home).code == 0

        def row() -> dict:
            return json.loads(trainctl("versions", "--json", home=home).out)[0]

        asked = trainctl("backup", "--json", home=home, timeout=SECONDS)
        assert asked.code == 0, asked.err
        found = row()
        assert found["copies"][0]["target"] == "disk"
        assert found["copies"][0]["state"] == "verified"
        assert isinstance(found["mirror_verified_at"], float)
        kit.add(home, "b.jsonl", 24, 2)
        running.wait_idle()
        assert trainctl("snapshot", home=home).code == 0
        wait_until(
            lambda: len(json.loads(trainctl("backup", "--list", "--json", home=home).out)) == 2,
            SECONDS,
            every=1.0,
            what="the keeper has copied v002 by itself",
        )
        shutil.rmtree(home.versions / "v001")
        back = trainctl("restore", "v001", "--from", "disk", "--yes", "v001", "--json", home=home)
        assert back.code == 0, back.err
        assert json.loads(back.out)["target"] == "v001"
        assert (home.versions / "v001" / "manifest.json").is_file()


def test_a_target_that_is_not_there_is_a_hint_with_and_without_an_engine(
    tmp_path, trainctl
) -> None:
    home = kit.make_home(
        tmp_path / "home", backups={"disk": {"target": str(tmp_path / "unmounted" / "place")}}
    )
    kit.add(home, "a.jsonl", 24)
    with daemon(home) as running:
        running.started()
        running.wait_idle()
        assert trainctl("snapshot", home=home).code == 0
        wait_until(
            lambda: "backup disk" in str(status(home).get("hint")),
            SECONDS,
            every=0.5,
            what="the hint names the target",
        )
        assert status(home)["state"] == "idle"
    told = json.loads(trainctl("status", "--json", home=home).out)
    assert "backup disk" in told["hint"]
