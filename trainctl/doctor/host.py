"""A host from ssh to tokens a second: each line is OK, or says what to do.

Sends nothing but a small model of our own (3 MB), which stays in the host's store by its digest.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.host.errors import TRANSIENT
from queue_store.errors import TrainctlError
from queue_store.home import Home
from trainctl.doctor.check import Check
from trainctl.output import size

PROMPTS, TOKENS = 32, 32
SLOW_LINK = 2e6
"""Bytes a second under which a model of gigabytes takes long."""
OLD_TRANSFORMERS = (4, 56)
ROOM = 10 << 30


def host(home: Home, hosts: Any, name: str) -> Iterator[Check]:
    """Every check of the host `name`; those after the first failure are left out."""
    from evaluation.host.machine import machine
    from evaluation.host.session import Session

    target = machine(home, hosts, name)
    address = target.address() if target.place else name
    started = time.monotonic()
    try:
        with Session(target, lock=False) as session:
            reached = f"a worker answered after {time.monotonic() - started:.1f} s"
            yield Check("ssh", True, f"{target.where}: {reached}" if target.place else reached)
            facts = session.facts
            yield from _machine(facts)
            yield from _link(session)
            busy = facts.get("busy")
    except (TrainctlError, OSError) as error:
        yield _failed("ssh", error, address)
        return
    if facts.get("missing"):
        return
    if busy:
        yield Check("generation", True, f"not measured: {busy}")
        return
    try:
        yield _generation(target)
    except (TrainctlError, OSError) as error:
        yield _failed("generation", error, address)


def _failed(name: str, error: TrainctlError | OSError, address: str) -> Check:
    if isinstance(error, TrainctlError):
        later = error.code in TRANSIENT
        advice = f"is it on, and does `ssh {address}` get in?" if later else error.mend
        return Check(name, False, error.what, advice)
    return Check(name, False, str(error), "is ssh installed here?")


def _machine(facts: dict[str, Any]) -> Iterator[Check]:
    yield Check("python", True, f"{facts.get('python')} on {facts.get('system')}")
    packages = facts.get("packages")
    missing = facts.get("missing") or []
    for name, version in packages.items() if isinstance(packages, dict) else ():
        found = str(version)
        if name in missing:
            yield Check(name, False, "not installed", f"for that Python: pip install {name}")
        elif not found:
            why = "adapters need it" if name == "peft" else "not needed"
            yield Check(name, True, f"not installed ({why})")
        elif name == "transformers" and _version(found) < OLD_TRANSFORMERS:
            yield Check(name, False, found, "pip install -U transformers: 4.56 or newer")
        else:
            yield Check(name, True, found)
    cards = facts.get("gpu")
    if isinstance(cards, list):
        shown = ", ".join(f"{card.get('name')}, {size(card.get('memory_total'))}" for card in cards)
        yield Check("gpu", True, shown or "none: it evaluates on its CPU")
    else:
        reason = cards.get("unknown") if isinstance(cards, dict) else "the host does not say"
        yield Check("gpu", False, str(reason), "look at its driver: nvidia-smi")
    store = facts.get("store")
    if isinstance(store, dict) and "path" in store:
        error, free = store.get("error"), store.get("free")
        if error:
            yield Check("store", False, str(error), "set store of the host to a folder of its own")
        else:
            roomy = isinstance(free, int) and free > ROOM
            advice = "" if roomy else "free some: models are gigabytes"
            yield Check("store", roomy, f"{store['path']}: {size(free)} free", advice)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in str(text).split(".")[:2] if part.isdigit())


def _link(session: Any) -> Iterator[Check]:
    from evaluation.host.measure import round_trips, throughput

    trip = statistics.median(round_trips(session, 20))
    rate = throughput(session)
    slow = session.machine.place is not None and rate < SLOW_LINK
    advice = f"a model of 2 GB takes {2e9 / rate / 60:.0f} minutes to send" if slow else ""
    yield Check("link", not slow, f"round trip {trip:.1f} ms, {size(rate)}/s", advice)


def _generation(target: Any) -> Check:
    """Ship a tiny model, have it loaded, and count tokens a second."""
    from engine.training.tiny import make_tiny
    from evaluation.host import shipment
    from evaluation.host.evaluate import evaluate_on

    with tempfile.TemporaryDirectory(prefix="trainctl-tiny-") as made:
        make_tiny(Path(made), 0)
        weights = shipment.of_folder(Path(made), name="builtin:tiny", weights_digest="")
        items = [
            {"id": str(n), "messages": [{"role": "user", "content": f"Compute: {n} + 1"}]}
            for n in range(PROMPTS)
        ]
        done = evaluate_on(
            target,
            shipment.pack(weights),
            items,
            {"max_tokens": TOKENS, "batch": PROMPTS},
            lambda answer: None,
            who="trainctl doctor",
        )
    loaded = done.loaded
    assert loaded is not None
    rate = done.tokens / done.seconds if done.seconds else 0.0
    found = (
        f"a tiny model of {loaded.precision} on {loaded.device}: loaded in {loaded.seconds:.1f} s,"
        f" {rate:,.0f} tokens/s ({done.backend}, batch {done.batch})"
    )
    return Check("generation", True, found)
