"""A host on loopback for the tests of evaluation: a real sshd, and a worker with a stub model."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.host import shipment
from evaluation.host.machine import Machine
from evaluation.host.shipment import Shipment
from queue_store import places
from tests.conftest import ROOT
from tests.sshd_kit import Host

VERSION = "ab" * 32
"""What stands for the weights digest of the version."""


@dataclass
class Stub:
    """A host with the stub worker. `store` is its folder of weights, `plan` what will happen."""

    host: Host
    machine: Machine
    store: Path
    plan: Path

    def acts(self, *acts: dict[str, Any] | None, **more: Any) -> None:
        """What befalls the runs of the worker, in order."""
        self.plan.write_text(json.dumps({"acts": list(acts), **more}))

    @property
    def asked(self) -> list[list[str]]:
        """The items that each job named, in the order in which they came."""
        path = self.plan.with_suffix(".asked")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def quick(self, **more: Any) -> Machine:
        """The machine with short patience."""
        return replace(self.machine, **{"silence": 1.5, "ping": 0.2, **more})


def make_stub(host: Host, folder: Path) -> Stub:
    """A store, a plan, and an interpreter that runs the stub, at paths that need quotes."""
    plan, store = folder / "plan.json", folder / "a store's $(touch pwned)"
    plan.write_text(json.dumps({"acts": []}))
    python = folder / "a python"
    stub = ROOT / "tests" / "stub_worker.py"
    words = [sys.executable, str(stub), str(plan)]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    python.chmod(0o755)
    place = places.parse_host("titan", "titan", str(store), str(host.config))
    machine = Machine("titan", place, str(python), folder / "known hosts")
    return Stub(host, machine, store, plan)


def table(name: str, stub: Stub, **more: str) -> str:
    """The stub as [hosts.NAME] of a config.toml."""
    values = {
        **{"ssh": "titan", "store": str(stub.store), "python": stub.machine.python},
        **{"ssh_config": str(stub.host.config), **more},
    }
    return f"[hosts.{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())


def make_weights(folder: Path, *, size: int = 1000, fill: bytes = b"w") -> Shipment:
    """Files that are shipped like a model's and that nothing loads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(fill * size)
    (folder / "config.json").write_text("{}")
    (folder / "optimizer.safetensors").write_bytes(b"never sent")
    (folder / "modeling.py").write_text("raise SystemExit")
    weights = shipment.of_folder(folder, name=folder.name, weights_digest=VERSION)
    return shipment.pack(weights)


def questions(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"q{n:03}", "messages": [{"role": "user", "content": f"number {n:03}"}]}
        for n in range(count)
    ]
