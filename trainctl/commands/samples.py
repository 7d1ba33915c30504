"""samples: the fixed examples and what the model answers to them, by step."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from queue_store.errors import TrainctlError
from trainctl.context import Context
from trainctl.output import count, duration, known, text

Json = dict[str, Any]


def samples(context: Context, arguments: argparse.Namespace) -> int:
    """All examples at a step, or one through the steps. JSON: see --help."""
    data = context.views.samples(step=arguments.step, example=arguments.example)
    data["due"] = _due(context)
    asked = None if arguments.example else arguments.step  # an example is shown at all steps
    context.show(data, lambda: "\n".join(_words(data, asked)))
    return 0


def _due(context: Context) -> Any:
    """The tick that the engine puts off, or why there is none."""
    try:
        engine = context.engine_if_any()
        if engine is None:
            return {"unknown": "no engine is running"}
        return engine.request("snapshot").get("samples_due", {"unknown": "an older engine runs"})
    except TrainctlError as error:
        return {"unknown": str(error)}


def _words(data: Json, asked: int | None) -> Iterator[str]:
    """`asked` is the step of --step, for which the newest tick at or before it is shown."""
    rows = data["samples"]
    if rows and asked is not None and data["step"] < asked:
        yield (
            f"no samples were taken at step {count(asked)}: these are of step"
            f" {count(data['step'])}, the newest before it"
        )
    if not rows:
        why = data["step"].get("unknown")
        yield text(why) if why else "no sample was taken yet"
    for row in rows:
        sign = "exact" if row["exact"] else f"similarity {text(row.get('similarity'))}"
        yield f"step {count(row['step'])} · {text(row['example'])} · {sign} · {_course(row)}"
        yield f"  prompt    {text(row['prompt'])}"
        yield f"  expected  {text(row['expected'])}"
        yield f"  answer    {text(row['answer'])}"
        yield f"  loss of the expected answer  {_expected_loss(row)}"
        if known(row["host"]):
            yield f"  answered by  {text(row['host'])}"
    if rows:
        yield "; ".join(_counts(data))
    if known(late := data["due"]):
        yield (
            f"samples are due since step {count(late['step'])}, put off until the budget"
            f" (training.monitoring_budget) has room: {duration(late['training_seconds'])} of"
            " training"
        )


def _counts(data: Json) -> Iterator[str]:
    yield f"{data['exact']} of {data['total']} exact"
    if data["item_total"]:
        yield f"rows of the item: {data['item_exact']} of {data['item_total']} exact"
    told = [
        f"{number} {change}"
        for change, number in data["changes"].items()
        if number or change != "new"
    ]
    since = {row["since"] for row in data["samples"] if known(row["since"])}
    if since:
        yield f"since step {count(max(since))}: {', '.join(told)}"


def _course(row: Json) -> str:
    """When it was learned and lost."""
    if not known(row["learned"]):
        return f"{row['change']}, never exact so far"
    told = f"{row['change']}, learned at step {count(row['learned'])}"
    return told + (f", lost at {count(row['lost'])}" if known(row["lost"]) else "")


def _expected_loss(row: Json) -> str:
    """In words, as it is no score: nats a token, given the prompt."""
    loss = row["expected_loss"]
    return text(loss) + (" nats a token" if isinstance(loss, float) else "")
