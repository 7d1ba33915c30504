"""Digests say what a file or a model is, and a manifest notices every kind of damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from queue_store.errors import NotFound, VerificationFailed
from snapshots import manifest
from snapshots.digest import file_digest, file_digests, tensors, weights_digest
from tests.store_world import Tensors, flip, write_safetensors

MODEL: Tensors = {
    "embed.weight": ("F32", (4, 2), bytes(range(32))),
    "layer.0.weight": ("BF16", (3,), b"abcdef"),
    "layer.10.weight": ("I64", (), b"12345678"),
    "empty": ("F32", (0, 7), b""),
}


def model_folder(folder: Path, content: Tensors = MODEL) -> Path:
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "model.safetensors", content)
    return folder


def test_a_files_digest_is_blake3_of_its_bytes_whatever_its_size(tmp_path: Path) -> None:
    sizes = [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9_000_001]
    files = [tmp_path / str(size) for size in sizes]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(os.urandom(size))
    wanted = [blake3(file.read_bytes()).hexdigest() for file in files]
    assert file_digests(files) == wanted
    assert [file_digest(file, from_medium=True) for file in files] == wanted


def test_links_and_pipes_are_not_followed_and_never_block(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError):
            file_digest(tmp_path / name)


def test_the_weights_digest_ignores_order_metadata_and_sharding(tmp_path: Path) -> None:
    wanted = weights_digest(model_folder(tmp_path / "one"))
    other = tmp_path / "other"
    other.mkdir()
    write_safetensors(
        other / "model.safetensors", dict(reversed(MODEL.items())), {"format": "pt", "made": "now"}
    )
    assert weights_digest(other) == wanted
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    names = list(MODEL)
    for n, part in enumerate((names[2:], names[:2]), 1):
        write_safetensors(
            sharded / f"model-0000{n}-of-00002.safetensors", {name: MODEL[name] for name in part}
        )
    (sharded / "optimizer.safetensors").write_bytes(b"not weights")
    assert weights_digest(sharded) == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"embed.weight": ("F32", (2, 4), bytes(range(32)))},
        {"embed.weight": ("I32", (4, 2), bytes(range(32)))},
        {"embed.weight": ("F32", (4, 2), bytes(range(31)) + b"\xff")},
        {"one more": ("U8", (1,), b"x")},
    ],
    ids=["shape", "dtype", "byte", "tensor"],
)
def test_the_weights_digest_changes_with(change: Tensors, tmp_path: Path) -> None:
    before = weights_digest(model_folder(tmp_path / "a"))
    assert weights_digest(model_folder(tmp_path / "b", {**MODEL, **change})) != before


def test_the_weights_digest_agrees_with_the_safetensors_library(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    save = pytest.importorskip("safetensors.numpy").save_file
    values = {"b": numpy.arange(6, dtype="float32").reshape(2, 3), "a": numpy.zeros(3, "int64")}
    save(values, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = {t.name: (t.dtype, t.shape) for t in tensors(tmp_path / "model.safetensors")}
    assert found == {"a": ("I64", (3,)), "b": ("F32", (2, 3))}
    ours = model_folder(
        tmp_path / "ours",
        {
            "a": ("I64", (3,), values["a"].tobytes()),
            "b": ("F32", (2, 3), values["b"].tobytes()),
        },
    )
    assert weights_digest(tmp_path) == weights_digest(ours)


@pytest.mark.parametrize("cut", [0, 5, 8, 40, -1])
def test_cut_weights_are_noticed_from_the_header(cut: int, tmp_path: Path) -> None:
    path = model_folder(tmp_path / "m") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(VerificationFailed, match="no complete safetensors file"):
        weights_digest(path.parent)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    write_safetensors(folder / "model-00001-of-00001.safetensors", MODEL)
    with pytest.raises(VerificationFailed, match=r"embed\.weight"):
        weights_digest(folder)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no weights"):
        weights_digest(tmp_path)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    folder = model_folder(tmp_path / "listed")
    (folder / "rng.json").write_text("{}")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 1}')
    made = manifest.build(folder, kind="checkpoint", id=7, made_by="test", created="now")
    manifest.write_manifest(folder, made)
    return folder


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda f: (f / "rng.json").unlink(),
    "size": lambda f: (f / "rng.json").write_text("{}}"),
    "digest": lambda f: flip(f / "model.safetensors"),
    "extra": lambda f: (f / "tokenizer" / "more.txt").write_text("x"),
    "manifest": lambda f: flip(f / manifest.MANIFEST),
}


def test_a_folder_as_it_was_written_has_no_problems(listed: Path) -> None:
    assert manifest.check(listed, from_medium=True) == []
    read = manifest.read_manifest(listed)
    assert read.id == 7 and read.weights_digest == weights_digest(listed)
    names = [entry.name for entry in read.files]
    assert names == ["model.safetensors", "rng.json", "tokenizer/vocab.json"]
    assert read.size_bytes == sum((listed / name).stat().st_size for name in names)
    assert manifest.check(listed, expected=read.digest) == []


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed_and_named(kind: str, listed: Path) -> None:
    DAMAGE[kind](listed)
    assert [problem.kind for problem in manifest.check(listed)] == [kind]


@pytest.mark.parametrize("kind", ["missing", "size", "extra"])
def test_the_shallow_check_notices_what_needs_no_reading(kind: str, listed: Path) -> None:
    DAMAGE[kind](listed)
    assert [problem.kind for problem in manifest.check(listed, deep=False)] == [kind]


def test_a_file_exchanged_for_a_link_to_the_same_bytes_is_damage(listed: Path) -> None:
    (listed / "rng.json").rename(listed.parent / "elsewhere")
    (listed / "rng.json").symlink_to("../elsewhere")
    assert manifest.check(listed)[0].name == "rng.json"


def test_a_manifest_exchanged_with_its_files_is_noticed_by_its_digest(listed: Path) -> None:
    expected = manifest.read_manifest(listed).digest
    (listed / "rng.json").write_text('{"other": 1}')
    again = manifest.build(listed, kind="checkpoint", id=7, made_by="test", created="now")
    manifest.write_manifest(listed, again)
    assert manifest.check(listed) == []
    assert [p.kind for p in manifest.check(listed, expected=expected)] == ["manifest"]


def test_a_manifest_that_names_files_outside_its_folder_is_refused(listed: Path) -> None:
    path = listed / manifest.MANIFEST
    path.write_text(path.read_text().replace("rng.json", "../../rng.json"))
    with pytest.raises(VerificationFailed, match="not allowed"):
        manifest.read_manifest(listed)
