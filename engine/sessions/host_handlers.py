"""Answers to the commands about evaluation hosts: what each has, and whose key is believed.

They ask machines over SSH, on threads of the dispatcher that nobody else needs. A key is written
only with the fingerprint that a person agreed to, and is looked at again before it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.reading.views import Views
from evaluation.host import around, trust
from evaluation.host.machine import Machine, machine
from queue_store import config
from queue_store.errors import Refused

Json = dict[str, Any]


def look(views: Views, host: str) -> Json:
    """The command `host_look`: what `trainctl hosts` tells of one host, asked now."""
    hosts = config.load(views.home.config).hosts
    machine(views.home, hosts, host)  # an unknown name is an error
    chosen = {name: one for name, one in hosts.items() if name == host}
    if not chosen:
        raise Refused(f"{host} is this machine: it is in the meters")
    (row,) = around.around(views.home, views.state, chosen)
    return row


def key(views: Views, host: str) -> Json:
    """The command `host_key`: {host, ssh, fingerprint, type, known, changed, file}: the key that
    the host shows now."""
    of = _remote(views, host)
    shown = trust.shown_key(of)
    return {
        **{"host": host, "ssh": of.address(), "fingerprint": shown.fingerprint},
        **{"type": shown.type, "known": shown.known, "changed": shown.changed},
        "file": str(of.known_hosts),
    }


def accept(views: Views, host: str, fingerprint: str) -> Json:
    """The command `host_trust`: believe a key from now on; as `host_key`, and `written`. Raises
    Refused where the host shows another one than was agreed to."""
    of = _remote(views, host)
    shown = trust.shown_key(of)
    if shown.fingerprint != fingerprint:
        raise Refused(
            f"the host now shows the key {shown.fingerprint}, not {fingerprint}",
            where=f"host {host}",
            mend="nothing was written; look again, and compare it with the host's own",
        )
    told = trust.trust(views.state, of, shown)
    return {**told, "ssh": of.address(), "written": True}


def _remote(views: Views, host: str) -> Machine:
    of = machine(views.home, config.load(views.home.config).hosts, host)
    if of.place is None:
        raise Refused(f"{host} is this machine, which needs no key")
    return of


HANDLERS: dict[str, Callable[..., Any]] = {
    "host_look": look,
    "host_key": key,
    "host_trust": accept,
}
