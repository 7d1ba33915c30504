"""What a home remembers of shipping: sums of files, names of what hosts hold, probes of models.

All of it can be made again; it spares reading gigabytes, and it lets a model be known again.
"""

from __future__ import annotations

from typing import Any

from evaluation.host import shipment as shipments
from evaluation.host.session import Loaded
from evaluation.host.shipment import Shipment, Weights
from queue_store.database import State
from queue_store.programs import Cancelled, never

SUMS, NAMES, PROBES = "hosts.sums", "hosts.names", "hosts.probes"
MOST = 2000
"""Entries of each kind that are kept, the newest."""


def packed(state: State, weights: Weights, *, cancelled: Cancelled = never) -> Shipment:
    """`shipment.pack` that reads no file twice in a home's life, and remembers by which digest a
    host knows the model. Raises VerificationFailed, BrokenOff, OSError."""
    known = dict(state.meta_get(SUMS, {}))
    before = len(known)
    made = shipments.pack(weights, known, cancelled=cancelled)
    names = state.meta_get(NAMES, {})
    if len(known) > before or names.get(made.digest) != weights.name:
        _keep(state, SUMS, known)
        _keep(state, NAMES, {made.digest: weights.name})
    return made


def names(state: State) -> dict[str, str]:
    """The names of models by the digests that hosts know them by."""
    return dict(state.meta_get(NAMES, {}))


def probe(state: State, digest: str) -> Loaded | None:
    """How the model of a shipment's digest answered its probe at the first loading."""
    raw = state.meta_get(PROBES, {}).get(digest)
    if raw is None:
        return None
    found = tuple((int(token), float(value)) for token, value in raw["probe"])
    return Loaded(digest, raw["device"], raw["precision"], found, 0.0, 0)


def keep_probe(state: State, loaded: Loaded) -> None:
    """Record the first loading of a model; later ones are compared with it."""
    if probe(state, loaded.digest) is None:
        raw = {"device": loaded.device, "precision": loaded.precision, "probe": loaded.probe}
        _keep(state, PROBES, {loaded.digest: raw})


def _keep(state: State, key: str, more: dict[str, Any]) -> None:
    with state.transaction():
        whole = {**state.meta_get(key, {}), **more}
        state.meta_set(key, dict(list(whole.items())[-MOST:]))
