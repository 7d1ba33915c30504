"""doctor: finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from queue_store import database, intake
from tests.store_world import World
from trainctl.commands import doctor

ROW = '{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}\n'


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one test asks torch itself: that takes seconds."""
    monkeypatch.setattr(doctor, "_gpus", lambda: iter(()))


def checks(home) -> dict[str, doctor.Check]:
    from trainctl.context import Context

    return {check.name: check for check in doctor._checks(Context(str(home.root)))}


def test_a_sound_home_is_well(home, trainctl) -> None:
    done = trainctl("doctor", "--json", home=home, timeout=180)
    report = json.loads(done.out)
    assert done.code == 0 and report["ok"], report
    names = {check["name"] for check in report["checks"]}
    assert {"python", "torch", "textual", "nvidia driver", "permissions", "disk"} <= names
    assert all(check["ok"] and check["found"] for check in report["checks"])


def test_without_a_home_it_checks_the_machine(tmp_path, monkeypatch) -> None:
    from trainctl.context import Context

    monkeypatch.chdir(tmp_path)
    found = {check.name: check for check in doctor._checks(Context())}
    assert found["home"].ok and "trainctl init" in found["home"].advice


def test_a_store_that_others_can_read_is_found(home) -> None:
    home.store.chmod(0o755)
    found = checks(home)["permissions"]
    assert not found.ok and f"chmod 700 {home.store}" in found.advice


def test_wrong_settings_are_found(home) -> None:
    home.config.write_text("[training]\nseeed = 1\n")
    found = checks(home)["settings"]
    assert not found.ok and "did you mean training.seed?" in found.found


def test_a_damaged_database_is_found_and_left_alone(home) -> None:
    with database.open_state(home):
        pass
    data = bytearray(home.state_db.read_bytes())
    data[:16] = b"not a database  "
    home.state_db.write_bytes(data)
    assert not checks(home)["state.db"].ok
    assert home.state_db.read_bytes() == data


def test_an_item_without_its_file_is_found(home, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW)
    with database.open_state(home) as state:
        item = intake.add_file(state, tmp_path / "a.jsonl")
    assert checks(home)["item files"].ok
    (home.items / item.file).unlink()
    found = checks(home)["item files"]
    assert not found.ok and "1" in found.found and found.advice


def test_a_head_that_was_cut_is_found(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    world.home.config.write_text("")
    point = world.train(world.add())
    assert checks(world.home)["head"].ok
    weights = world.home.checkpoints / point.name / "model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1])
    found = checks(world.home)["head"]
    assert not found.ok and "model.safetensors" in found.found and "rollback" in found.advice
    world.close()


def test_a_missing_and_an_old_package_are_found(monkeypatch) -> None:
    monkeypatch.setattr(
        doctor, "_required", lambda: [("no-such-package-here", ">=1"), ("orjson", ">=999")]
    )
    found = {check.name: check for check in doctor._packages()}
    assert not found["no-such-package-here"].ok
    assert found["no-such-package-here"].advice == "pip install 'no-such-package-here>=1'"
    assert not found["orjson"].ok and ">=999" in found["orjson"].advice
    assert found["liger-kernel"].ok


def test_every_requirement_is_parsed(monkeypatch) -> None:
    found = dict(doctor._required())
    # A build backend may write the clauses of a requirement in another order.
    assert found["textual"].startswith("==")
    assert set(found["torch"].split(",")) == {">=2.9", "<2.14"}
    assert "pytest" not in found and "liger-kernel" not in found
