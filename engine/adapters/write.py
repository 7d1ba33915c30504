"""`python -m engine.adapters.write`: the files of a full model, of a base model and an adapter.

What to do comes as one JSON object on stdin: {base, adapter, out, base_digest, adapter_digest}.
File by file and tensor by tensor on the CPU: each shard gets the header of the base's, byte for
byte, and the base's tensors behind it, to those of the adapter's targets what the adapter adds.
The bytes that are added up are digested on their way, so that a base that is another, or changes
meanwhile, is found by what was read. Prints how far it is, then {ok, digests, sizes, weights}, or
{ok: false, kind, why} with exit status 4. Writes into `out` alone, which whoever asks publishes.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch
from blake3 import blake3
from safetensors.torch import load

from engine.adapters.deltas import Target, targets
from engine.adapters.refusal import CannotMerge
from engine.training.quiet import quiet
from engine.training.state import ADAPTER, TOKENIZER_FILES
from queue_store import durable
from queue_store.errors import TrainctlError, VerificationFailed
from snapshots import child
from snapshots.checkpoints import sync_and_digest
from snapshots.digest import Tensor, combine, open_regular, tensors, weight_files, weights_digest

INDEX = "model.safetensors.index.json"
CONFIGS = ("config.json", "generation_config.json")
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
BLOCK = 4 << 20


def write(words: dict[str, str]) -> dict[str, Any]:
    """Fill the folder `out`. Raises CannotMerge, VerificationFailed (the base or the adapter is
    not the recorded one), OSError."""
    base, adapter, out = (Path(words[key]) for key in ("base", "adapter", "out"))
    if weights_digest(base) != words["base_digest"]:
        raise VerificationFailed(
            "this is not the base model that the adapter was trained on",
            where=str(base),
            mend="put back the one of before, or see model.base in config.toml",
        )
    wanted = targets(base, adapter, _adapter(adapter, words["adapter_digest"]))
    shards = [(path, sorted(tensors(path), key=_place)) for path in weight_files(base)]
    _fits(wanted, [tensor for _, found in shards for tensor in found])
    # As many bytes are read again, to digest what was written.
    teller = child.Teller(2 * sum(tensor.size for _, found in shards for tensor in found))
    parts = []
    for path, found in shards:
        parts += _shard(path, out / path.name, found, wanted, teller)
    if combine(parts) != words["base_digest"]:
        raise VerificationFailed("the base model changed while it was read", where=str(base))
    _texts(base, adapter, out)
    digests, sizes, weights = sync_and_digest(out)
    return {"ok": True, "digests": digests, "sizes": sizes, "weights": weights}


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.start, tensor.size


def _adapter(folder: Path, expected: str) -> dict[str, torch.Tensor]:
    """The adapter's tensors, of the very bytes whose digest is the recorded one."""
    path = folder / ADAPTER
    with open_regular(path) as file:
        data = file.read()
    found = tensors(path)
    parts = [
        (t.name, t.dtype, t.shape, blake3(data[t.start : t.start + t.size]).digest()) for t in found
    ]
    if combine(parts) != expected:
        raise VerificationFailed("the adapter is not as it was written", where=str(path))
    return load(data)


def _fits(wanted: dict[str, Target], found: list[Tensor]) -> None:
    """Raise CannotMerge where a tensor that the adapter changes is not in the base's files as the
    model has it."""
    there = {tensor.name: tensor for tensor in found}
    for name, target in wanted.items():
        tensor = there.get(name)
        if tensor is None:
            raise CannotMerge(f"the base model's files have no tensor {name}")
        if tensor.shape != target.shape:
            raise CannotMerge(f"{name} is {tensor.shape} in the base, {target.shape} in the model")
        if tensor.dtype not in DTYPES:
            raise CannotMerge(f"{name} is {tensor.dtype} in the base, which cannot be added to")


def _shard(
    source: Path,
    place: Path,
    found: list[Tensor],
    wanted: dict[str, Target],
    told: child.Teller,
) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """One file of the base with what the adapter adds; name, dtype, shape and digest of each of
    the base's tensors, as they were read."""
    parts = []
    with open_regular(source) as reader, place.open("xb") as writer:
        length = int.from_bytes(reader.read(8), "little")
        reader.seek(0)
        _copy(reader, writer, 8 + length, None)
        for tensor in found:
            if reader.tell() != tensor.start:
                raise VerificationFailed(f"{tensor.name} lies on another tensor", where=str(source))
            hasher = blake3()
            target = wanted.get(tensor.name)
            if target is None:
                _copy(reader, writer, tensor.size, hasher)
            else:
                data = bytearray(tensor.size)
                _fill(reader, data)
                hasher.update(data)
                writer.write(_merged(data, tensor, target))
            parts.append((tensor.name, tensor.dtype, tensor.shape, hasher.digest()))
            told(2 * tensor.size)
            durable.crash_point("merge.tensor")
    return parts


def _merged(data: bytearray, tensor: Tensor, target: Target) -> memoryview:
    """The tensor's bytes with the adapter's part added, in the dtype that they had."""
    weight = torch.frombuffer(data, dtype=DTYPES[tensor.dtype]).view(tensor.shape)
    target.add_to(weight)
    if not bool(torch.isfinite(weight).all()):
        raise CannotMerge(f"numbers of {tensor.name} would be NaN or infinite")
    return memoryview(data)


def _copy(reader: BinaryIO, writer: BinaryIO, size: int, hasher: Any) -> None:
    """Hand on `size` bytes. Raises VerificationFailed where the file ends before."""
    while size:
        data = bytearray(min(BLOCK, size))
        _fill(reader, data)
        if hasher is not None:
            hasher.update(data)
        writer.write(data)
        size -= len(data)


def _fill(reader: BinaryIO, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        count = reader.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise VerificationFailed("the file ends early", where=str(reader.name))
        view = view[count:]


def _texts(base: Path, adapter: Path, out: Path) -> None:
    """The small files: the base's configuration and index of shards, and the tokenizer that
    trained, which is the base's where the adapter came without one."""
    tokenizer = adapter if (adapter / "tokenizer.json").is_file() else base
    names = [(base, name) for name in (*CONFIGS, INDEX)]
    for source, name in (*names, *((tokenizer, name) for name in TOKENIZER_FILES)):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def main() -> int:
    quiet()
    try:
        answer = write(json.loads(sys.stdin.buffer.read()))
    except CannotMerge as error:
        answer = {"ok": False, "kind": "refused", "why": str(error)}
    except TrainctlError as error:
        answer = {"ok": False, "kind": "damaged", "why": str(error)}
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        answer = {"ok": False, "kind": "full", "why": error.strerror}
    print(json.dumps(answer))
    return 0 if answer["ok"] else child.MISMATCH


if __name__ == "__main__":
    sys.exit(main())
