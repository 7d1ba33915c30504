"""models: every model on the host in one list, with the digest of its weights."""

from __future__ import annotations

import argparse

from trainctl.context import Context
from trainctl.output import ago, known, size, table, text


def models(context: Context, arguments: argparse.Namespace) -> int:
    """Base models, checkpoints, versions and their copies; the same digest is the same model."""
    from snapshots.models import models as listed

    rows = listed(context.state)
    context.show(
        rows,
        lambda: table(
            ("name", "kind", ">step", "made", ">size", "digest", "where", "use"),
            [
                (
                    row["name"],
                    row["kind"],
                    row["step"] if known(row["step"]) else "",
                    ago(row["created"]),
                    size(row["size_bytes"]),
                    text(row["weights_digest"])[:12] if known(row["weights_digest"]) else "-",
                    row["target"] or row["folder"],
                    row["use"],
                )
                for row in rows
            ],
            empty=f"no model here yet: the base model comes with training ({context.home.models})",
        ),
    )
    return 0
