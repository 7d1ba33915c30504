"""jobs: the evaluations that wait, run and have ended; the hosts; and the end of one of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from queue_store.errors import NoEngine, UsageError
from trainctl.context import Context
from trainctl.output import ago, count, known, table, text
from trainctl.output import progress as share

Json = dict[str, Any]


def jobs(context: Context, arguments: argparse.Namespace) -> int:
    """List the jobs. JSON: see --help."""
    found = read(context, arguments.ended)
    context.show(found, lambda: "\n".join(_page(found)))
    return 0


def read(context: Context, ended: int) -> Json:
    """{jobs, hosts} by the engine's word, or by the store's where none runs."""
    from engine.reading import jobrows

    session = context.engine_if_any()
    if session is not None:
        try:
            answer: Json = session.request("jobs", timeout=10, ended=ended)
            return answer
        except NoEngine:
            context.forget_engine()
    views = context.views
    return jobrows.joined(jobrows.listed(views.state, ended), views.status())


def cancel(context: Context, arguments: argparse.Namespace) -> int:
    """End a job at any time. JSON: the job."""
    from engine.reading import jobrows
    from queue_store import jobs as table_of_jobs

    # The row is the order: the process that has the job looks at it, so no engine is asked.
    made = table_of_jobs.cancel(context.state, arguments.id)
    data = jobrows.job_json(made, live=context.views.live())
    context.show(data, lambda: f"{made.told} is cancelled; what it was answered is kept")
    return 0


def order(context: Context, arguments: argparse.Namespace) -> int:
    """`evaluate --queue`: a job instead of the answers. JSON: the job."""
    from engine.judging import wanted
    from engine.reading import jobrows
    from evaluation.host.machine import LOCAL
    from queue_store.items import Priority

    if arguments.limit is not None or arguments.max_tokens is not None:
        raise UsageError(
            "a job asks every item, with the answers' length of [samples]",
            mend="leave out --limit and --max-tokens, or --queue",
        )
    host = LOCAL if arguments.local else arguments.host or ""
    priority = Priority.of(arguments.priority or "high")
    made = wanted.order(
        context.state, context.config, arguments.version, arguments.set, priority, host
    )
    live = context.views.live()
    data = jobrows.job_json(made, live=live)
    begins = "trainctl jobs shows it" if live else "it begins when an engine runs"
    context.show(data, lambda: f"{made.told} is {made.state}; {begins}")
    return 0


def refuse_without_queue(arguments: argparse.Namespace) -> None:
    """--priority says nothing of an evaluation that is done at once."""
    if arguments.priority is not None:
        raise UsageError("--priority goes with --queue", mend="trainctl evaluate --help")


def _page(found: Json) -> Iterator[str]:
    yield table(
        (">id", "model", ">step", "why", "priority", "state", "host", ">answered", "since", ""),
        [_row(job) for job in found["jobs"]],
        empty="no evaluation job yet: trainctl evaluate --queue makes one, and [evaluation] says"
        " which are made by themselves",
    )
    hosts = found["hosts"]
    if isinstance(hosts, list) and hosts:
        yield ""
        yield table(
            ("host", "state", ">job", "seen", "GPU", "why"),
            [
                (
                    *(host["name"], host["state"]),
                    host["job"] if known(host["job"]) else "-",
                    ago(host["seen"]) if known(host["seen"]) else "-",
                    *(cards(host["gpus"]), host["error"]),
                )
                for host in hosts
            ],
        )


def _row(job: Json) -> tuple[Any, ...]:
    done = job["answered"] if known(job["items"]) else "-"
    since = next(
        (job[key] for key in ("ended", "started", "created") if known(job[key])), job["created"]
    )
    return (
        *(job["id"], job["model"], count(job["step"]) if known(job["step"]) else "-"),
        *(job["reason"], job["priority"], job["state"]),
        job["host"] if known(job["host"]) else job["wanted"] or "-",
        share(done, job["items"]) if known(job["items"]) else done,
        *(ago(since), job["error"]),
    )


def cards(gpus: Any) -> str:
    """The cards of a host and how busy they are, in a cell."""
    if not isinstance(gpus, list):
        return "-"
    found = []
    for card in gpus:
        use = card.get("utilization")
        busy = f" {use:.0f} %" if isinstance(use, int | float) else ""
        found.append(f"{text(card.get('name', '?'))}{busy}")
    return ", ".join(found) or "none"
