"""What the evaluation sets say of two versions: the statistics, and each item's answers in full.

Reads only, and asks no model: the answers are those that evaluations left. Ten thousand items
take half a second of a processor, which neither training nor a key may wait for: a child computes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from engine import lines
from engine.faults import error_from, error_object
from engine.messages import unknown
from queue_store import records
from queue_store.errors import NotFound, Refused, TrainctlError
from queue_store.home import Home
from queue_store.results import Result, Results
from snapshots import child
from snapshots.named import named

if TYPE_CHECKING:
    from engine.reading.views import Views

Json = dict[str, Any]
MODULE = "engine.reading.judged"
NICE = 5
"""A person waits, and training goes on: a quarter of a core that trains, for a second or two."""
SECONDS = 120.0
LISTED = 500
"""Items that turned right, and that turned wrong, of a set that are told by their prompts."""
PROMPT = 300
"""Letters of a prompt in that list: enough to know it by."""
PRESENT = "the present state"


def answer(views: Views, first: str, second: str | None, set: str | None) -> Json:
    """The command `compare_answers`: `compared`, in a child. Raises as that, and Unfinished."""
    order = {"home": str(views.home.root), "read_only": views.read_only}
    order |= {"first": first, "second": second, "set": set}
    told = child.run(
        MODULE,
        [],
        where=str(views.home.root),
        stop=views.closing,
        seconds=SECONDS,
        stdin=orjson.dumps(order),
        what="the comparison",
        mend="ask again",
        nice=NICE,
    )
    if "error" in told:
        raise error_from(told["error"])
    found: Json = told["found"]
    return found


def main() -> None:
    """In the child: an order on stdin, and what came of it as a line."""
    from engine.reading.views import Views

    order = orjson.loads(sys.stdin.buffer.read())
    told: Json = {"ok": True}
    with Views(Home(Path(order["home"])), read_only=order["read_only"]) as views:
        try:
            told["found"] = compared(views, order["first"], order["second"], order["set"])
        except TrainctlError as error:
            told["error"] = error_object(error)
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")


def compared(views: Views, first: str, second: str | None, set: str | None) -> Json:
    """`evaluation.compare.compare`, and of every set `changed` [{item, gained, prompt, expected}],
    LISTED of either kind and cut to PROMPT letters.

    Without `second` the present state stands for it, as long as it is what was saved last. Raises
    NotFound where one of them has no answers, Refused where they cannot be compared.
    """
    from evaluation.compare import Model, compare

    found = named(views.state, first)
    a = Model(found.name, found.digest, found.val_loss)
    if second is None:
        b = Model(PRESENT, _present(views), unknown("it stands above"))
    else:
        found = named(views.state, second)
        b = Model(found.name, found.digest, found.val_loss)
    results = Results(views.home, views.metrics)
    told = compare(results, a, b, set_name=set, details=0)
    for one in told["sets"]:
        one["changed"] = _changed(results, one)
    return told


def _present(views: Views) -> str:
    """The digest of what trains, where that is what is on disk."""
    head = records.head(views.state)
    if head is None:
        raise NotFound("nothing has trained here yet")
    newest = lines.newest_row(views.metrics, views.line())
    if newest is not None and newest["step"] > head.checkpoint.step:
        raise Refused(
            f"the present state, step {newest['step']}, was never evaluated",
            mend="a snapshot makes it a version, which can be",
        )
    return head.checkpoint.weights_digest


def _changed(results: Results, one: Json) -> list[Json]:
    gained, lost = one["gained"][:LISTED], one["lost"][:LISTED]
    asked = {item.id: item for item in results.items(one["digest"], [*gained, *lost])}
    return [
        {
            "item": item,
            "gained": turned,
            "prompt": _last(asked[item].prompt)[:PROMPT],
            "expected": asked[item].expected[:PROMPT],
        }
        for turned, items in ((True, gained), (False, lost))
        for item in items
    ]


def _last(prompt: Any) -> str:
    return next((str(turn["content"]) for turn in reversed(prompt)), "")


def item(views: Views, first: int, second: int, item: str) -> Json:
    """The command `compared_item`: an item that two evaluations asked, whole: {item, skill, level,
    tier, messages[{role, content}], expected, a ANSWER, b ANSWER}. ANSWER: {answer, finish,
    tokens, ms, backend, host, error_kind, error, scores[{scorer, version, exact, parts, error}]},
    or unknown. Raises NotFound."""
    results = Results(views.home, views.metrics)
    asked = results.items(results.evaluation(first).set_digest, [item])
    if not asked:
        raise NotFound(f"no item {item!r} in that evaluation")
    one = asked[0]
    return {
        **{"item": one.id, "skill": one.skill, "level": one.level, "tier": one.tier},
        "messages": [dict(turn) for turn in one.prompt],
        "expected": one.expected,
        "a": _answer(results.results(first, [item])),
        "b": _answer(results.results(second, [item])),
    }


def _answer(found: list[Result]) -> Json:
    if not found:
        return unknown("it was not asked")
    one = found[0]
    return {
        **{"answer": one.answer, "finish": one.finish, "tokens": one.tokens, "ms": one.ms},
        **{"backend": one.backend, "host": one.host},
        **{"error_kind": one.error_kind, "error": one.error},
        "scores": [
            {
                **{"scorer": score.scorer, "version": score.version, "exact": score.exact},
                **{"parts": dict(score.parts), "error": score.error},
            }
            for score in one.scores
        ],
    }


if __name__ == "__main__":
    main()
