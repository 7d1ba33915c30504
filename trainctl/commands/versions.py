"""checkpoints, versions (as a list, as a tree, or all of one), snapshot.

A running engine makes the snapshot, at a step boundary; without one it is made here, under the
home's lock. Nothing here changes or deletes a version.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from queue_store.errors import UsageError
from queue_store.lock import EngineLock
from trainctl.context import Context
from trainctl.output import ago, clock, count, known, pairs, size, table, text

Json = dict[str, Any]
EMPTY = "no version yet: trainctl snapshot makes one"
SCOPES = {"whole": "the whole state", "weights": "weights only", "base": "the base model"}


def checkpoints(context: Context, arguments: argparse.Namespace) -> int:
    """The checkpoints on disk, oldest first."""
    rows = context.views.checkpoints()
    context.show(
        rows,
        lambda: table(
            (
                *(">id", "name", ">branch", ">step", ">item", ">cursor", "made", ">size"),
                *(">loss", ">val loss", "scores", "complete"),
            ),
            [
                (
                    *(row["id"], row["name"], row["branch"], row["step"]),
                    *(_or_blank(row["item"]), row["cursor"], ago(row["created"])),
                    *(size(row["size_bytes"]), _or_blank(row["loss"]), _or_blank(row["val_loss"])),
                    *(short_scores(row["scores"]), row["complete"]),
                )
                for row in rows
            ],
            empty="no checkpoint yet: the first one comes with training",
        ),
    )
    return 0


def versions(context: Context, arguments: argparse.Namespace) -> int:
    """The versions, oldest first; with --tree as they came from each other; or one, with all there
    is to know of it."""
    if arguments.version is not None:
        if arguments.tree:
            raise UsageError("--tree shows all versions", mend="leave the name out")
        return _one(context, arguments.version)
    rows = context.views.versions()
    if arguments.tree:
        context.show(rows, lambda: "\n".join(_tree(rows)))
        return 0
    context.show(
        rows,
        lambda: (
            table(
                (
                    *(
                        "name",
                        ">branch",
                        ">step",
                        "made",
                        ">size",
                        "verified",
                        ">loss",
                        ">val loss",
                    ),
                    *("scores", "copies", "kept because", "description"),
                ),
                [
                    (
                        *(row["name"], row["branch"], row["step"], ago(row["created"])),
                        *(size(row["size_bytes"]), _verified(row)),
                        *(_or_blank(row["loss"]), _or_blank(row["val_loss"])),
                        *(short_scores(row["scores"]), _copies(row)),
                        *(", ".join(row["kept_because"]), _about(row)),
                    )
                    for row in rows
                ],
                empty=EMPTY,
            )
            + _no_copy(rows)
        ),
    )
    return 0


def _no_copy(rows: list[Json]) -> str:
    """Which versions lie nowhere else, and that a hard link is no second copy."""
    lacking = [row for row in rows if row["second_copy"]]
    if not lacking:
        return ""
    which = "" if len(lacking) == len(rows) else f"{', '.join(r['name'] for r in lacking)}: "
    return f"\n{which}{lacking[0]['second_copy']}"


def _tree(rows: list[Json]) -> Iterator[str]:
    """A line a version, under the one that it came from."""
    from snapshots.tree import drawn

    if not rows:
        yield EMPTY
        return
    yield "base model"
    on_line = [row for row in rows if row["on_line"]]
    newest = max(on_line, key=lambda row: row["step"], default={})
    for before, row in drawn(rows):
        notes = [
            f"step {count(row['step'])}, branch {row['branch']}",
            f"loss {text(row['loss'])}" if known(row["loss"]) else "",
            "DAMAGED" if row["state"] == "corrupt" else "",
            "pinned" if row["pinned"] else "",
            "rolled back" if row["rolled_back"] else "",
            "<- training stands here or after" if row is newest else "",
            text(_about(row)),
        ]
        yield f"{before}{row['name']}  " + "  ".join(note for note in notes if note)


def _one(context: Context, name: str) -> int:
    """Everything about one version. JSON: as in `versions`, and what snapshots.facts adds."""
    from snapshots import facts as store

    row = version_row(context, name)
    found = store.facts(context.state, row["name"], row)
    context.show(found, lambda: "\n".join(_facts(found)))
    return 0


def _facts(found: Json) -> Iterator[str]:
    yield pairs(
        [
            ("version", f"{found['name']}  {text(_about(found))}".strip()),
            ("made", f"{clock(found['created'])}, {found['kind']}, {SCOPES[found['scope']]}"),
            (
                "of",
                f"{found['checkpoint_name']}, step {count(found['step'])}, branch"
                f" {found['branch']}" + (", rolled back" if found["rolled_back"] else ""),
            ),
            ("line", " > ".join(found["line"])),
            ("loss", f"{text(found['loss'])}, validation {text(found['val_loss'])}"),
            ("scores", "; ".join(long_scores(found["scores"])) or text(found["scores"])),
            ("verified", _verified(found)),
            ("loads", ago(found["deep_verified_at"])),
            ("kept because", ", ".join(found["kept_because"]) or "no rule keeps it"),
            ("copies", _copies(found)),
            (
                "on disk",
                f"{size(found['own_bytes'])} its own, {size(found['shared_bytes'])} under"
                " other names too",
            ),
            ("weights", found["weights_digest"]),
            ("folder", found["folder"]),
            ("rows as", _rendering(found["rendering"])),
        ]
    )
    files = found["files"]
    yield ""
    if not known(files):
        yield f"files: {text(files)}"
    else:
        yield table(
            ("file", ">size", "blake3", "also in"),
            [
                (f["name"], size(f["size_bytes"]), f["blake3"][:16], ", ".join(f["shared_with"]))
                for f in files
            ],
            empty="no files: the base model is in models/",
        )
        if any(f["shared_with"] for f in files):
            yield f"({found['hard_links']})"
    yield ""
    yield table(
        (">item", "name", ">rows", "whole"),
        [(i["id"], i["name"], count(i["rows"]), i["whole"]) for i in found["items"]],
        empty="contains no item of this home: it trained elsewhere"
        if found["kind"] == "imported"
        else "contains no item: this is the base model's state",
    )


def _rendering(made: Json) -> str:
    """What made text of the rows that trained last, in words."""
    if not known(made):
        return text(made)
    return (
        f"profile {text(made['profile'])} {text(made['profile_version'])}"
        f" ({made['profile_digest'][:12]}), template {made['template_digest'][:12]}, thinking:"
        f" {made['thinking']}"
    )


def _about(row: Mapping[str, Any]) -> str:
    tags = "".join(f"[{tag}] " for tag in row["tags"])
    return f"{tags}{row['description']}".strip()


def _copies(row: Json) -> str:
    """Where else it lies, verified. A hard link here is no second copy."""
    good = [c["target"] for c in row.get("copies") or () if c.get("state") == "verified"]
    return ", ".join(good) or "only here"


def short_scores(scores: Json) -> str:
    """ "sums 31/40, words 7/40": right answers of those judged; "" of one never evaluated."""
    if not known(scores):
        return ""
    return ", ".join(f"{name} {one['right']}/{one['n']}" for name, one in scores.items())


def long_scores(scores: Json) -> list[str]:
    """ "sums 77.5 % (63-88) of 40", a set each; [] of one never evaluated."""
    if not known(scores):
        return []
    return [
        f"{name} {100 * one['accuracy']:.1f} % ({100 * one['low']:.0f}-{100 * one['high']:.0f})"
        f" of {one['n']}"
        for name, one in scores.items()
    ]


def _or_blank(value: Any) -> Any:
    return value if known(value) else ""


def _verified(row: Json) -> str:
    if row.get("state") == "corrupt":
        return "DAMAGED"
    return ago(row["verified_at"]) if known(row["verified_at"]) else "not yet"


def snapshot(context: Context, arguments: argparse.Namespace) -> int:
    """Keep the present state as a verified version. JSON: the version, as in `versions`."""
    session = context.engine_if_any()
    if session is not None:
        made = session.request(
            "snapshot_version",
            description=arguments.message,
            weights_only=arguments.weights_only,
            pin=arguments.pin,
        )
        name = made["name"]
    else:
        from snapshots import versions as store

        with EngineLock.acquire(context.home, "snapshot"):
            name = store.create(
                context.state,
                description=arguments.message,
                scope=store.WEIGHTS if arguments.weights_only else store.WHOLE,
                pinned=arguments.pin,
            ).name
    row = version_row(context, name)
    context.show(row, lambda: f"{name} at step {count(row['step'])}, verified")
    return 0


def version_row(context: Context, name: str) -> Json:
    """The version's JSON by name (v012, also 12) or tag. Raises NotFound."""
    from snapshots import versions as store

    found = store.get(context.state, name).name
    return next(row for row in context.views.versions() if row["name"] == found)
