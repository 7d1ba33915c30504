"""The store of a host: what it keeps, what it lets go, and what it never touches."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.host import shipping
from evaluation.host.errors import HostFailure
from evaluation.host.evaluate import evaluate_on
from evaluation.host.session import Session
from evaluation.host.shipment import Shipment
from evaluation.host.shipped import meters
from evaluation.host.shipped.frames import Trouble
from evaluation.host.shipped.store import INCOMING, MARKER, PARTIAL, Store, checked, digest_of
from queue_store import programs
from tests.host_kit import Stub, make_stub, make_weights, questions
from tests.sshd_kit import Host, make_host, needs_sshd


def model(store: Store, number: int, used: int) -> str:
    """A model of 1,000 bytes that the store has, used at the time `used`."""
    files = [{"name": "model.safetensors", "size": 1000, "sha256": f"{number:064x}"}]
    digest = digest_of(files)
    folder = store.path / digest
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    os.utime(folder, (used, used))
    return digest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "store"))
    made.open("a test")
    return made


def test_the_models_used_longest_ago_go_and_those_in_use_stay(store: Store) -> None:
    digests = [model(store, n, 1000 + n) for n in range(5)]
    ready = store.prepare("f" * 64, 10, keep=3, spare=[digests[0]])
    left = {one["digest"] for one in store.held()}
    assert left == {digests[0], digests[3], digests[4]}
    assert not ready["have"] and ready["previous"] == digests[4]
    assert store.prepare(digests[4], 10, keep=1, spare=[])["have"], "what is here stays here"
    with pytest.raises(Trouble):
        store.prepare("../outside", 10, keep=3, spare=[])


def test_a_full_disk_lets_old_models_go_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = model(store, 1, 1000), model(store, 2, 2000)

    def usage_of(path: Path) -> Any:
        free = 0 if (path / old).exists() else 1 << 40
        return type("Usage", (), {"free": free, "total": 1 << 41})

    monkeypatch.setattr("evaluation.host.shipped.store.shutil.disk_usage", usage_of)
    store.prepare("f" * 64, 1000, keep=9, spare=[])
    assert not (store.path / old).exists() and (store.path / new).exists()


def test_what_lies_beside_the_models_is_never_touched(store: Store) -> None:
    kept = [store.path / name for name in ("notes", ".incoming-mine", "a" * 63)]
    for folder in kept:
        folder.mkdir()
        (folder / "file").write_text("a person's")
    outside = store.path.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("a person's")
    (store.path / ("c" * 64)).symlink_to(outside)
    stale = store.path / (INCOMING + "d" * 64)
    stale.mkdir()
    store.prepare("f" * 64, 10, keep=0, spare=[])
    assert all((folder / "file").exists() for folder in [*kept, outside])
    assert not stale.exists(), "a transfer that nobody goes on with"


def test_a_folder_that_trainctl_did_not_make_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    with pytest.raises(Trouble) as caught:
        Store(str(tmp_path / "home")).open("a test")
    assert caught.value.trouble == "store" and MARKER in caught.value.text
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.txt"]
    assert MARKER in Store(str(tmp_path / "home")).facts()["error"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "../model.safetensors"}, "not allowed"),
        ({"name": ".hidden"}, "not allowed"),
        ({"size": True}, "no size"),
        ({"sha256": "xyz"}, "no size or digest"),
        ({"sha256": "1" * 64}, "not that of the files"),
    ],
)
def test_a_manifest_is_not_believed(change: dict[str, Any], word: str) -> None:
    good = {"name": "model.safetensors", "size": 1, "sha256": "0" * 64}
    digest = digest_of([good])
    assert checked({"digest": digest, "files": [good]})[0] == digest
    with pytest.raises(Trouble) as caught:
        checked({"digest": digest, "files": [{**good, **change}]})
    assert word in caught.value.text


def test_a_file_too_many_is_damage(store: Store) -> None:
    files = [{"name": "config.json", "size": 2, "sha256": SHA_OF_BRACES}]
    digest = digest_of(files)
    coming = store.path / (INCOMING + digest)
    coming.mkdir()
    (coming / "config.json").write_text("{}")
    (coming / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(Trouble) as caught:
        store.verified(digest, files)
    assert caught.value.names == ("modeling.py",)
    assert store.verified(digest, files) == store.path / digest


SHA_OF_BRACES = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_cards_are_read_and_what_a_card_does_not_say_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'NVIDIA GeForce RTX 3090, 37, 1024, 24576, 61, 212.50'\n"
        "echo 'Odd, name, [N/A], 5, 100, 40, [Not Supported]'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    first, second = meters.cards()
    assert first == {
        **{"name": "NVIDIA GeForce RTX 3090", "utilization": 37.0, "memory_used": 1 << 30},
        **{"memory_total": 24 << 30, "temperature": 61.0, "power": 212.5},
    }
    assert second["name"] == "Odd, name" and "unknown" in second["utilization"]
    program.write_text("#!/bin/sh\necho 'NVRM: version mismatch' >&2; exit 18\n")
    assert "mismatch" in meters.cards()["unknown"]


@pytest.fixture(scope="module")
def titan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield host
    host.stop()


@pytest.fixture
def stub(titan: Host, tmp_path: Path) -> Stub:
    return make_stub(titan, tmp_path)


def ship(stub: Stub, shipped: Shipment, **more: Any) -> None:
    evaluate_on(stub.machine, shipped, questions(1), {}, lambda answer: None, **more)


@pytest.mark.slow
@needs_sshd[0]
@needs_sshd[1]
def test_equal_files_of_the_next_version_are_links_and_old_ones_go(
    stub: Stub, tmp_path: Path
) -> None:
    shipped = []
    for number in range(4):
        folder = tmp_path / f"v{number}"
        made = make_weights(folder, fill=b"%d" % number)
        os.utime(folder / "config.json", (1000, 1000))  # a version's are links: the same file
        ship(stub, made)
        shipped.append(made)
    held = [p.name for p in stub.store.iterdir() if len(p.name) == 64]
    assert sorted(held) == sorted(one.digest for one in shipped[1:]), "three stay"
    one, other = (stub.store / s.digest for s in shipped[-2:])
    assert (one / "config.json").stat().st_ino == (other / "config.json").stat().st_ino
    inodes = {(folder / "model.safetensors").stat().st_ino for folder in (one, other)}
    assert len(inodes) == 2


@pytest.mark.slow
@needs_sshd[0]
@needs_sshd[1]
def test_a_transfer_that_broke_off_goes_on_where_it_was(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = make_weights(tmp_path / "v001", size=40 << 20)
    commands: list[list[str]] = []
    run = programs.run

    def slow(command: list[str], **words: Any) -> Any:
        if command[0] == "rsync":
            commands.append(list(command))
            command = [command[0], "--bwlimit=10m", *command[1:]] if not commands[1:] else command
        return run(command, **words)

    monkeypatch.setattr(shipping.programs, "run", slow)
    partial = stub.store / (INCOMING + shipped.digest)

    def enough() -> bool:
        return any(p.stat().st_size > 4 << 20 for p in partial.glob(".model.safetensors.*"))

    with pytest.raises(programs.BrokenOff):
        ship(stub, shipped, cancelled=enough)
    assert (partial / PARTIAL / "model.safetensors").stat().st_size > 1 << 20
    ship(stub, shipped)
    assert "--whole-file" in commands[0] and "--no-whole-file" in commands[1]
    there = stub.store / shipped.digest
    assert (there / "model.safetensors").stat().st_size == 40 << 20
    assert not (there / PARTIAL).exists()


@needs_sshd[0]
@needs_sshd[1]
def test_the_command_is_constant_and_holds_no_data(stub: Stub, tmp_path: Path) -> None:
    with Session(stub.machine) as session:
        words = session.channel.child.args
        told = subprocess.run(["ps", "-o", "args=", str(session.facts["pid"])], capture_output=True)
    assert isinstance(words, list) and words[-1] == stub.machine.command()[-1]
    assert str(stub.store) not in told.stdout.decode() + words[-1]


@needs_sshd[0]
@needs_sshd[1]
def test_without_rsync_on_the_host_it_is_said(stub: Stub, tmp_path: Path, titan: Host) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rsync").write_text("#!/bin/sh\necho 'rsync: not found' >&2; exit 127\n")
    (tmp_path / "bin" / "rsync").chmod(0o755)
    settings = titan.folder / "sshd_config"
    before = settings.read_text()
    titan.stop()
    settings.write_text(before + f"SetEnv PATH={tmp_path / 'bin'}:/usr/bin:/bin\n")
    titan.start()
    try:
        with pytest.raises(HostFailure) as caught:
            ship(stub, make_weights(tmp_path / "v001"))
    finally:
        titan.stop()
        settings.write_text(before)
        titan.start()
    assert caught.value.code == "no_rsync", str(caught.value)
