"""The best version on a host: shipped over a real sshd, read back there, and never half."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.hints import rest
from engine.judging import deployed, deploying
from engine.loop.chores import CHORES, deploy_best
from evaluation.host import look, shipment
from evaluation.host.session import Session
from evaluation.host.shipped.frames import Trouble
from evaluation.host.shipped.store import BEST, BEST_FACTS, Store
from queue_store import config, journal
from queue_store.errors import NotFound, Refused
from queue_store.lock import EngineLock
from queue_store.programs import never
from snapshots import labels, versions
from tests.engine_kit import Running
from tests.host_kit import Stub, make_stub, make_weights, table
from tests.sshd_kit import Host, make_host, needs_sshd
from tests.store_world import World, flip
from tests.test_host_store import model, store  # noqa: F401
from tests.waiting import wait_until
from trainctl.commands.evaluate import brought
from trainctl.context import Context

KINDS = ("best.deployed", "best.undeployed")


@pytest.fixture(scope="module")
def titan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield host
    host.stop()


@pytest.fixture
def stub(titan: Host, tmp_path: Path) -> Stub:
    return make_stub(titan, tmp_path)


@pytest.fixture
def world(tmp_path: Path, stub: Stub) -> Iterator[World]:
    """v001 to v003, the first of them best; titan asks for it."""
    made = World(tmp_path / "home")
    made.home.config.write_text(table("titan", stub, deploy="best"))
    for _ in range(3):
        made.step += 10
        made.save()
        versions.create(made.state, verified=False)
    labels.move_best(made.state, "v001", "for this test", {})
    yield made
    made.close()


def told(world: World) -> list[tuple[str, str]]:
    found = [e for e in journal.latest(world.state, 100) if e.kind in KINDS]
    return [(e.kind, e.text) for e in found]


def look_after(world: World) -> list[str]:
    return deploying.look_after(world.state, config.load(world.home.config), never)


def served(stub: Stub) -> bytes:
    return (stub.store / BEST / "model.safetensors").read_bytes()


def weights(world: World, name: str) -> bytes:
    return (world.home.versions / name / "model.safetensors").read_bytes()


def forget_the_wait(world: World) -> None:
    with world.state.transaction():
        known = deployed.remembered(world.state, "titan")
        deployed.remember(world.state, "titan", {**known, "next": 0.0})


@needs_sshd[0]
@needs_sshd[1]
def test_the_best_version_follows_the_tag_and_is_told_once(world: World, stub: Stub) -> None:
    assert look_after(world) == [] and served(stub) == weights(world, "v001")
    facts = json.loads((stub.store / BEST_FACTS).read_text())
    digest = versions.get(world.state, "v001").weights_digest
    assert (facts["version"], facts["weights_digest"], facts["base"]) == ("v001", digest, "")
    assert str((stub.store / BEST).readlink()) == facts["digest"]
    assert look_after(world) == [] and len(told(world)) == 1
    labels.move_best(world.state, "v002", "it is better", {})
    assert look_after(world) == [] and served(stub) == weights(world, "v002")
    assert [text for _, text in told(world)] == [
        "v001 is deployed on titan, read back there",
        "v002 is deployed on titan, read back there",
    ]
    row = look.look(stub.machine)
    assert row["deployed"]["version"] == "v002" and len(row["models"]) == 2
    # Many evaluations later it is still there, though it was used longest ago.
    with Session(stub.machine) as session:
        for number in range(6):
            frame = {"kind": "prepare", "digest": f"{number:064x}", "bytes": 10, "spare": []}
            session.channel.send(frame)
            wait_until(lambda s=session: s.channel.receive(1.0))
    assert served(stub) == weights(world, "v002")


@needs_sshd[0]
@needs_sshd[1]
def test_a_host_that_is_down_is_told_hinted_and_tried_again(
    world: World, stub: Stub, titan: Host
) -> None:
    titan.stop()
    try:
        (hint,) = look_after(world)
        assert hint.startswith("titan does not have the best version: ")
        known = deployed.remembered(world.state, "titan")
        assert known["failures"] == 1 and known["next"] > known.get("time", 0)
        assert look_after(world) == [hint], "not before its time"
        assert deployed.remembered(world.state, "titan")["failures"] == 1
        forget_the_wait(world)
        look_after(world)
        after = deployed.remembered(world.state, "titan")
        assert after["failures"] == 2 and [kind for kind, _ in told(world)] == ["best.undeployed"]
        at_rest = rest.at_rest(world.state, config.load(world.home.config), 0)["hints"]
        assert [h["rule"] for h in at_rest] == ["deploy"]
    finally:
        titan.start()
    forget_the_wait(world)
    assert look_after(world) == [] and served(stub) == weights(world, "v001")
    assert [kind for kind, _ in told(world)] == ["best.undeployed", "best.deployed"]


@needs_sshd[0]
@needs_sshd[1]
def test_what_is_damaged_is_never_deployed(world: World, stub: Stub, trainctl) -> None:
    look_after(world)
    before = (stub.store / BEST).readlink()
    labels.move_best(world.state, "v002", "it is better", {})
    flip(world.home.versions / "v002" / "model.safetensors")
    done = trainctl("hosts", "deploy", "--json", home=world.home)
    (row,) = json.loads(done.out)
    assert done.code == 1 and "differs from what was written" in row["error"]
    assert (stub.store / BEST).readlink() == before and served(stub) == weights(world, "v001")
    # Damaged on the host: read there, and sent anew.
    labels.move_best(world.state, "v001", "again", {})
    flip(stub.store / before / "model.safetensors")
    assert trainctl("hosts", "deploy", "titan", home=world.home).code == 0
    assert served(stub) == weights(world, "v001")


@needs_sshd[0]
@needs_sshd[1]
def test_a_host_at_work_is_no_failure(world: World, stub: Stub, trainctl) -> None:
    with Session(stub.machine, who="an evaluation"):
        assert look_after(world) == [] and told(world) == []
        busy = trainctl("hosts", "deploy", home=world.home)
        assert busy.code == 1 and "in use by" in busy.out
    assert look_after(world) == [] and served(stub) == weights(world, "v001")


def test_who_does_not_ask_gets_nothing(world: World, stub: Stub, trainctl) -> None:
    settings = config.load(world.home.config)
    with pytest.raises(NotFound, match="no host nas"):
        deploying.deploy(world.state, settings, "nas")
    world.home.config.write_text(table("titan", stub))
    with pytest.raises(Refused, match="titan does not ask"):
        deploying.deploy(world.state, config.load(world.home.config), "titan")
    assert look_after(world) == []
    done = trainctl("hosts", "deploy", home=world.home)
    assert done.code == 1 and 'deploy = "best"' in done.err
    labels.untag(world.state, "v001", "best")
    with pytest.raises(NotFound, match="no version is tagged best"):
        deploying.deploy(world.state, settings)


def test_the_store_exchanges_its_two_names_and_spares_what_they_mean(
    store: Store,  # noqa: F811
) -> None:
    digests = [model(store, n, 1000 + n) for n in range(5)]
    about = {"version": "v001", "weights_digest": "a" * 64}
    store.deploy(digests[0], digests[1], about)
    assert store.facts()["deployed"]["version"] == "v001"
    (store.path / ".best").symlink_to("left behind")  # by a deployment that was broken off
    store.deploy(digests[0], digests[1], {**about, "version": "v002"})
    store.prepare("f" * 64, 10, keep=2, spare=[])
    assert {one["digest"] for one in store.held()} == {*digests[:2], digests[4]}
    assert (store.path / BEST).resolve() == store.path / digests[0]
    for wrong in ({"version": "v"}, {**about, "version": 7}, {**about, "version": "v" * 300}, None):
        with pytest.raises(Trouble):
            store.deploy(digests[0], "", wrong)
    (store.path / BEST_FACTS).write_text("garbage")
    assert store.deployed() == {}
    (store.path / BEST).unlink()
    (store.path / BEST).mkdir()
    with pytest.raises(Trouble, match="is not the link"):
        store.deploy(digests[0], "", about)


@needs_sshd[0]
@needs_sshd[1]
def test_two_models_of_one_size_and_second_are_not_taken_for_each_other(
    world: World, stub: Stub
) -> None:
    """rsync takes a file of the same size and time for the same, and links it: what was read there
    is not what was sent, and comes anew, without a link."""
    for name in ("v001", "v002"):
        os.utime(world.home.versions / name / "model.safetensors", (1.7e9, 1.7e9))
    look_after(world)
    labels.move_best(world.state, "v002", "it is better", {})
    assert look_after(world) == [] and served(stub) == weights(world, "v002")


@needs_sshd[0]
@needs_sshd[1]
def test_the_engines_keeper_brings_it_and_says_where_it_cannot(world: World, stub: Stub) -> None:
    assert [chore.seconds for chore in CHORES if chore.run is deploy_best] == [60.0]
    running = Running(world.home)
    board = running.engine.board
    (stub.store.parent / "a python").chmod(0)  # nobody can start a worker there
    deploy_best(running.engine, world.state)
    board.all_well()
    assert "titan does not have the best version" in board.told["deploy"].text
    (stub.store.parent / "a python").chmod(0o755)
    forget_the_wait(world)
    deploy_best(running.engine, world.state)
    assert board.told == {} and served(stub) == weights(world, "v001")
    running.lock.release()


@needs_sshd[0]
@needs_sshd[1]
def test_an_adapter_is_deployed_with_its_base(stub: Stub, tmp_path: Path) -> None:
    base = make_weights(tmp_path / "base").weights
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"a" * 100)
    (folder / "adapter_config.json").write_text("{}")
    of = shipment.of_folder(folder, name="v001", weights_digest="a" * 64, base=base)
    packed = shipment.pack(of)
    about = {"version": "v001", "weights_digest": "a" * 64}
    with Session(stub.machine) as session:
        told = session.deploy(packed, about)
    assert packed.base is not None and told["base"] == packed.base.digest
    facts = json.loads((stub.store / BEST_FACTS).read_text())
    assert (stub.store / facts["base"] / "model.safetensors").read_bytes() == b"w" * 1000
    assert (stub.store / BEST / "adapter_model.safetensors").read_bytes() == b"a" * 100


@needs_sshd[0]
@needs_sshd[1]
def test_evaluate_brings_it_where_no_engine_does(world: World, stub: Stub) -> None:
    context = Context(str(world.home.root))
    moved = {"best": {"moved": True}}
    for nothing in ({"best": {"moved": False}}, {"best": {"unknown": "x"}}, {"unknown": "x"}):
        assert brought(context, nothing) == []
    with EngineLock.acquire(world.home, "daemon"):
        assert brought(context, moved) == [], "the engine's keeper does it"
    assert not stub.store.exists()
    (row,) = brought(context, moved)
    assert (row["version"], row["error"]) == ("v001", "") and served(stub) == weights(world, "v001")
    context.close()
