"""Torn, cut, flipped, missing files: seen before they are used, gone round where that can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queue_store import queue, records
from queue_store.database import open_state
from queue_store.errors import VerificationFailed
from queue_store.home import Home
from snapshots import rollback, versions
from tests import engine_kit as kit
from tests.faults.bench import Bench, aftermath, scratch
from tests.faults.checker import check
from tests.faults.scenarios import NAMES, Scenario
from tests.store_world import flip

FILES = (
    *("model.safetensors", "optimizer.safetensors", "rng.json", "training_state.json"),
    *("config.json", "manifest.json", ".ledger.json"),
)


def torn(path: Path) -> None:
    """The second half never reached the disk."""
    path.chmod(0o600)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def cut_short(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-7])


def extra(path: Path) -> None:
    (path.parent / "model-00002.safetensors").write_bytes(b"x")


HARMS: tuple[Callable[[Path], object], ...] = (flip, torn, cut_short, Path.unlink, extra)
ALL = tuple(itertools.product(FILES, HARMS))
SOME = tuple((f, HARMS[n % len(HARMS)]) for n, f in enumerate(FILES))


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with scratch() as folder:
        yield Bench(folder)


def head_goes_bad(bench: Bench, file: str, harm: Callable[[Path], object]) -> None:
    template, acks = bench.template(NAMES["rollback"])
    root = bench.copy(template)
    with open_state(Home(root)) as state:
        at = records.head(state)
        assert at is not None
        name = at.checkpoint.name
    harm(root / "store" / "checkpoints" / name / file)
    damaged = Scenario("damage", lambda world: None, damaged=lambda home: {name})
    assert aftermath(root, acks, damaged) == []
    assert (root / "store" / "quarantine" / name).is_dir(), "set apart, for a person to look at"


def version_goes_bad(bench: Bench, file: str, harm: Callable[[Path], object]) -> None:
    template, acks = bench.template(NAMES["rollback"])
    root = bench.copy(template)
    with open_state(Home(root)) as state:
        then = records.checkpoint(state, versions.get(state, "v001").checkpoint)
        made = rollback.plan(state, "v001")
        before = records.head(state)
        harm(root / "store" / "versions" / "v001" / file)
        with pytest.raises(VerificationFailed):
            rollback.apply(state, made)
        assert records.head(state) == before, "nothing moved"
        assert versions.get(state, "v001").state == "corrupt"
    # The older checkpoint shares the bytes; the head does not.
    damaged = Scenario("damage", lambda world: None, damaged=lambda home: {"v001", then.name})
    assert aftermath(root, acks, damaged) == []


@pytest.mark.parametrize(("file", "harm"), SOME)
def test_a_damaged_head_is_never_trained_from(
    bench: Bench, file: str, harm: Callable[[Path], object]
) -> None:
    head_goes_bad(bench, file, harm)


@pytest.mark.faults
@pytest.mark.parametrize(("file", "harm"), ALL)
def test_a_head_damaged_in_any_way_is_never_trained_from(
    bench: Bench, file: str, harm: Callable[[Path], object]
) -> None:
    head_goes_bad(bench, file, harm)


@pytest.mark.parametrize(
    ("file", "harm"), [(f, h) for f, h in SOME if f != ".ledger.json"] + [("version.json", flip)]
)
def test_a_damaged_version_is_never_rolled_back_to(
    bench: Bench, file: str, harm: Callable[[Path], object]
) -> None:
    version_goes_bad(bench, file, harm)


@pytest.mark.faults
@pytest.mark.parametrize(("file", "harm"), itertools.product((*FILES, "version.json"), HARMS))
def test_a_version_damaged_in_any_way_is_never_rolled_back_to(
    bench: Bench, file: str, harm: Callable[[Path], object]
) -> None:
    version_goes_bad(bench, file, harm)


def test_an_edit_through_the_other_name_of_a_linked_file_is_seen(bench: Bench) -> None:
    root = bench.copy(bench.template(NAMES["rollback"])[0])
    with open_state(Home(root)) as state:
        name = records.checkpoint(state, versions.get(state, "v001").checkpoint).name
        other = root / "store" / "checkpoints" / name / "model.safetensors"
        assert other.samefile(root / "store" / "versions" / "v001" / "model.safetensors")
        made = rollback.plan(state, "v001")
        flip(other)
        with pytest.raises(VerificationFailed):
            rollback.apply(state, made)


def test_a_home_whose_every_checkpoint_is_damaged_trains_from_the_base_again(bench: Bench) -> None:
    template, acks = bench.template(NAMES["rollback"])
    root = bench.copy(template)
    names = {path.name for path in (root / "store" / "checkpoints").iterdir()}
    for name in names:
        (root / "store" / "checkpoints" / name / "model.safetensors").unlink()
    damaged = Scenario("damage", lambda world: None, damaged=lambda home: names | {"v001", "v002"})
    assert aftermath(root, acks, damaged) == []


def test_an_item_whose_file_changed_while_it_waited_fails_and_the_others_train(
    tmp_path: Path,
) -> None:
    home = kit.make_home(tmp_path / "home")
    bad, _ = kit.add(home, "bad.jsonl", 12), kit.add(home, "good.jsonl", 12, 2)
    path = home.items / bad.file
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"What", b"whAt", 1))
    kit.train_all(home)
    assert kit.states(home) == {"bad.jsonl": "failed", "good.jsonl": "done"}
    with open_state(home) as state:
        assert "not those that were accepted" in queue.get(state, bad.id).error
    assert {v.invariant for v in check(home.root)} == {1}, "the damage itself is still seen"


def test_damaged_prepared_data_is_made_anew_and_no_bit_changes(tmp_path: Path) -> None:
    homes = [kit.make_home(tmp_path / name) for name in ("broken", "whole")]
    for home in homes:
        kit.add(home, "a.jsonl", 24)
    with kit.Running(homes[0]) as running:
        running.pause_at(3)
    (folder,) = homes[0].prepared.iterdir()
    flip(
        max(folder.glob("*.npy"), key=lambda path: path.stat().st_size, default=None)
        or max(folder.iterdir(), key=lambda path: path.stat().st_size)
    )
    assert kit.train_all(homes[0]) == kit.train_all(homes[1])
    assert check(homes[0].root) == []
    assert [path.name for path in homes[0].quarantine.iterdir()] == [folder.name]
