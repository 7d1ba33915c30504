"""diff: what distinguishes two versions. Reads only, with an engine or without.

What the store knows is told at once; how far the weights moved is computed by a child process,
since this floor has no arrays.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from trainctl.commands.versions import long_scores
from trainctl.context import Context
from trainctl.output import count, known, size, table, text

Json = dict[str, Any]
TENSORS_SHOWN = 12


def diff(context: Context, arguments: argparse.Namespace) -> int:
    """What differs between versions A and B. JSON: as engine.reading.comparing, and `tensors`, as
    engine.verify.tensor_diff ({"unknown": why} with --no-tensors and where there are none)."""
    from engine.reading import comparing
    from engine.verify import verifying
    from queue_store.errors import Refused

    first, second = arguments.first, arguments.second
    found = comparing.compare(context.state, context.views.metrics, first, second, [])
    if arguments.no_tensors:
        found["tensors"] = {"unknown": "not asked for"}
    else:
        a, b = found["a"]["name"], found["b"]["name"]
        try:
            found["tensors"] = verifying.tensor_difference(context.state, a, b)
        except Refused as error:
            found["tensors"] = {"unknown": error.what}
    context.show(found, lambda: "\n".join(_words(found)))
    return 0


def _words(found: Json) -> Iterator[str]:
    a, b = found["a"], found["b"]
    facts = ("step", "branch", "loss", "val_loss", "size_bytes", "scope")
    rows = [(key, _cell(key, a[key]), _cell(key, b[key])) for key in facts]
    told = ["; ".join(long_scores(one["scores"])) or "-" for one in (a, b)]
    rows.append(("scores", told[0], told[1]))
    fork = found["fork"]
    since = found["steps"]
    rows.append(("steps since the fork", count(since["a"]), count(since["b"])))
    yield table(("", a["name"], b["name"]), rows)
    where = f"step {count(fork['step'])}, branch {fork['branch']}"
    yield f"fork at {where} ({text(fork['checkpoint'])})"
    yield ""
    yield table(
        (">item", "name", ">rows at the fork", f">in {a['name']}", f">in {b['name']}"),
        [
            (i["id"], i["name"], count(i["fork"]), count(i["a"]), count(i["b"]))
            for i in found["items"]
        ],
        empty="no item trained in the one and not in the other",
    )
    if found["settings"]:
        yield ""
        yield table(
            ("setting", a["name"], b["name"]),
            [(s["key"], text(s["a"]), text(s["b"])) for s in found["settings"]],
        )
    yield ""
    yield from _samples(found)
    yield ""
    yield from _files(found)
    yield from _tensors(found)


def _samples(found: Json) -> Iterator[str]:
    samples = found["samples"]
    if not known(samples):
        yield f"samples: {text(samples)}"
        return
    for key in ("a", "b"):
        one = samples[key]
        right = f"{count(one['exact'])} of {count(one['total'])} exact"
        yield f"samples of {found[key]['name']}, step {count(one['step'])}: {right}"
    yield f"{count(samples['both'])} right in both, {count(samples['none'])} in none"
    for key, only in (("gained", "b"), ("lost", "a")):
        for example in samples[key]:
            yield f"right in {found[only]['name']} alone: {example['example']}"


def _cell(key: str, value: Any) -> str:
    if key == "size_bytes":
        return size(value)
    return count(value) if key in ("step", "branch") else text(value)


FILE_STATES = {
    "equal": "the same",
    "differs": "differs",
    "only_a": "only in {a}",
    "only_b": "only in {b}",
}


def _files(found: Json) -> Iterator[str]:
    if not known(found["files"]):
        yield f"files: {text(found['files'])}"
        return
    names = {"a": found["a"]["name"], "b": found["b"]["name"]}
    yield table(
        ("file", "", f">{names['a']}", f">{names['b']}"),
        [
            (
                file["name"],
                FILE_STATES[file["state"]].format(**names),
                size(file["a"]) if known(file["a"]) else "-",
                size(file["b"]) if known(file["b"]) else "-",
            )
            for file in found["files"]
        ],
        empty="no files: both are the base model",
    )


def _tensors(found: Json) -> Iterator[str]:
    tensors = found["tensors"]
    yield ""
    if not known(tensors):
        yield f"weights: {text(tensors)}"
        return
    if tensors["same"]:
        yield "weights: the same, bit for bit"
        return
    moved = tensors["tensors"]
    yield f"weights: {count(len(moved))} tensors differ, {count(tensors['equal'])} are the same"
    yield table(
        ("tensor", ">largest change", ">mean change", ">relative"),
        [
            (
                tensor["name"],
                *(
                    text(tensor[key]) if key in tensor else "not comparable"
                    for key in ("max_abs", "mean_abs", "relative")
                ),
            )
            for tensor in moved[:TENSORS_SHOWN]
        ],
    )
    if len(moved) > TENSORS_SHOWN:
        yield f"and {count(len(moved) - TENSORS_SHOWN)} more, with --json"
