"""hosts: the machines that evaluate, what each has and whether it is free; and trusting a key."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from queue_store.errors import Refused, UsageError
from trainctl.confirm import confirm
from trainctl.context import Context
from trainctl.output import ago, known, size, table, text
from trainctl.progress import Progress

Json = dict[str, Any]


def hosts(context: Context, arguments: argparse.Namespace) -> int:
    """Every host of config.toml, asked now. JSON: a list, as `trainctl hosts --help` says."""
    rows = looked(context)
    for row in rows:
        row["job"] = _job(context, row["name"])
    context.show(
        rows,
        lambda: table(
            (
                *("host", "ssh", "state", "GPU", "free memory", "free disk", "holds"),
                *("serves", "job", "why"),
            ),
            [
                (
                    *(row["name"], row["ssh"], row["state"], _cards(row), _memory(row)),
                    *(_disk(row), _held(row), _serves(row), _told(row["job"]), row["why"]),
                )
                for row in rows
            ],
            empty="no host is configured: [hosts.NAME] in config.toml; without one, models are"
            " evaluated on this machine",
        ),
    )
    return 0


def looked(context: Context) -> list[Json]:
    """A look at each host, all at once; `models` get the names they have in this home."""
    from evaluation.host.around import around

    state = context.state if context.home.state_db.exists() else None
    return around(context.home, state, context.config.hosts)


def _job(context: Context, name: str) -> Json:
    """The job of this home's engine that runs on a host: {id, model, answered, items}, or why none
    is known."""
    from engine.messages import unknown
    from queue_store.errors import NoEngine

    session = context.engine_if_any()
    if session is None:
        return unknown("no engine is running")
    try:
        evaluation = session.request("snapshot", timeout=10).get("evaluation")
    except NoEngine:
        context.forget_engine()
        return unknown("no engine is running")
    for work in evaluation["running"] if known(evaluation) else ():
        if work["host"] == name:
            return {key: work[key] for key in ("id", "model", "answered", "items")}
    return unknown("no job of this home runs there")


def _told(job: Json) -> str:
    if not known(job):
        return "-"
    of = f", {job['answered']} of {job['items']}" if known(job["items"]) else ""
    return f"{job['id']}: {text(job['model'])}{of}"


def deploy(context: Context, arguments: argparse.Namespace) -> int:
    """Bring the best version to the hosts that ask for it, now. JSON: [{host, version, digest,
    error}], `error` "" where it is there and every byte was read back."""
    from engine.judging import deploying

    with Progress() as progress:
        rows = deploying.deploy(
            context.state,
            context.config,
            arguments.name,
            progress=lambda done, of: progress("weights", done, of),
        )
    context.show(rows, lambda: "\n".join(map(deployed, rows)))
    return int(any(row["error"] for row in rows))


def deployed(row: Json) -> str:
    """One of `deploy`'s rows in words."""
    if row["error"]:
        return f"{row['host']}: {row['version']} could not be deployed: {text(row['error'])}"
    return f"{row['host']}: {row['version']} ({row['digest'][:12]}) is deployed, read back there"


def trust(context: Context, arguments: argparse.Namespace) -> int:
    """Show the key of a host and, once somebody agreed, believe it from now on.

    JSON: {host, fingerprint, type, known, changed, file, written}.
    """
    from evaluation.host import machine
    from evaluation.host.trust import shown_key, trust

    host = machine.machine(context.home, context.config.hosts, arguments.name)
    if host.place is None:
        raise UsageError("local is this machine, which needs no key")
    key = shown_key(host)
    data = {
        **{"host": host.name, "fingerprint": key.fingerprint, "type": key.type},
        **{"known": key.known, "changed": key.changed, "file": str(host.known_hosts)},
    }
    if key.known:
        said = f"{host.name}: the key {key.fingerprint} ({key.type}) is known already"
        context.show({**data, "written": False}, lambda: said)
        return 0
    if arguments.yes is not None and arguments.yes != key.fingerprint:
        raise Refused(
            f"the host shows the key {key.fingerprint}, not {arguments.yes}",
            where=f"host {host.name}",
            mend="nothing was written; compare it with the host's own: ssh-keygen -lf"
            f" /etc/ssh/ssh_host_{key.type.lower()}_key.pub",
        )
    if arguments.yes is None and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(
            f"the host shows the key {key.fingerprint} ({key.type}); nobody can be asked here",
            where=f"host {host.name}",
            mend=f"compare it, and say it with --yes {key.fingerprint}",
        )
    confirm(
        f"{host.name} ({host.place.host}) shows the key\n  {key.fingerprint} ({key.type})\n"
        + ("ANOTHER KEY OF THIS HOST IS KNOWN: it was set up anew, or somebody is in between.\n")
        * key.changed
        + "Compare it with what the host itself says: ssh-keygen -lf"
        f" /etc/ssh/ssh_host_{key.type.lower()}_key.pub",
        yes=arguments.yes is not None,
    )
    trust(context.state, host, key)
    said = f"{host.name}: {key.fingerprint} ({key.type}) is trusted, written to {host.known_hosts}"
    context.show({**data, "written": True}, lambda: said)
    return 0


def _cards(row: Json) -> str:
    cards = row["gpus"]
    if not isinstance(cards, list):
        return "-"
    names = [text(card.get("name", "?")) for card in cards if isinstance(card, dict)]
    return ", ".join(names) or "none"


def _memory(row: Json) -> str:
    """Free memory of the cards, or of the machine where it has none."""
    cards = row["gpus"]
    places: Sequence[Any] = cards if isinstance(cards, list) and cards else [row["ram"]]
    return ", ".join(map(_free, places))


def _free(place: Any) -> str:
    """Of a card's memory_used and memory_total, or a machine's used and total."""
    if not isinstance(place, dict):
        return "-"
    used = place.get("memory_used", place.get("used"))
    total = place.get("memory_total", place.get("total"))
    if not isinstance(used, int) or not isinstance(total, int):
        return "-"
    return f"{size(total - used)} of {size(total)}"


def _disk(row: Json) -> str:
    disk = row["disk"]
    return size(disk["free"]) if known(disk) and "free" in disk else "-"


def _serves(row: Json) -> str:
    deployed = row["deployed"]
    return text(deployed["version"]) if known(deployed) else "-"


def _held(row: Json) -> str:
    models = row["models"]
    if not isinstance(models, list):
        return "-"
    shown = [
        f"{model['version'] if known(model['version']) else model['digest'][:8]}"
        f" ({ago(model['used'])})"
        for model in models
    ]
    return ", ".join(shown) or "nothing"
