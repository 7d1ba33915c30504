"""compare: which of two models is better, by the answers that are stored. Reads only."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from trainctl.context import Context
from trainctl.output import count, counted, known, table, text

if TYPE_CHECKING:
    from queue_store.results import Results

Json = dict[str, Any]
SHOWN = 3
"""Items that changed sides, of either kind, that a person is shown."""
LONGEST = 160
"""Characters of a prompt or an answer on such a line; --json has all of them."""


def compare(context: Context, arguments: argparse.Namespace) -> int:
    """Model B against model A on the items that both answered. JSON: see --help."""
    from evaluation.compare import Model
    from evaluation.compare import compare as compared
    from queue_store.results import Results
    from snapshots.named import named

    a, b = (
        Model(found.name, found.digest, found.val_loss)
        for found in (named(context.state, name) for name in (arguments.first, arguments.second))
    )
    with Results(context.home) as results:
        if arguments.rejudge:
            for model in (a, b):
                _rejudge(results, model.digest, arguments.set)
        found = compared(results, a, b, set_name=arguments.set)
    context.show(found, lambda: "\n".join(_words(found)))
    return 0


def _rejudge(results: Results, digest: str, set_name: str | None) -> None:
    """Judge the stored answers of a model anew, as its rows were rendered. Raises ConfigError for
    a profile that is not there."""
    from evaluation.judging import rejudge

    for one in results.evaluations(model=digest, set_name=set_name):
        plain: Callable[[str], str] = str
        if one.settings.get("profile", "none") != "none":
            from engine.prepare import profiles

            plain = functools.partial(profiles.scored, profiles.find(one.settings["profile"]))
        rejudge(results, one.id, plain)


def _words(found: Json) -> Iterator[str]:
    a, b = found["a"]["name"], found["b"]["name"]
    yield table(
        ("set", ">items", f">{a}", f">{b}", ">gained", ">lost", ">p", ">adjusted"),
        [(one["set"], *_cells(one["accuracy"])) for one in found["sets"]],
    )
    for one in found["sets"]:
        yield ""
        yield from _set(one, a, b)
        if len(found["sets"]) == 1:
            yield from _changed(one, a, b)
    if len(found["sets"]) > 1:
        yield ""
        first = text(found["sets"][0]["set"])
        yield f"which items changed sides: trainctl compare {a} {b} --set {first}"
    if found["refused"]:
        yield ""
    for one in found["refused"]:
        mend = f" ({text(one['mend'])})" if one["mend"] else ""
        yield f"not compared: {text(one['why'])}{mend}"
    losses = [text(found[side]["val_loss"]) for side in ("a", "b")]
    yield ""
    yield f"validation loss: {a} {losses[0]}, {b} {losses[1]}"


def _cells(group: Json) -> tuple[Any, ...]:
    return (
        *(count(group["n"]), rate_cell(group["a"]), rate_cell(group["b"])),
        *(group["gained"], group["lost"], f"{group['p']:.2g}", f"{group['p_adjusted']:.2g}"),
    )


def rate_cell(rate: Json) -> str:
    """ "71.0 % (61-79)": a share with its 95 % interval."""
    if not known(rate["share"]):
        return "-"
    return f"{100 * rate['share']:.1f} % ({100 * rate['low']:.0f}-{100 * rate['high']:.0f})"


def _set(one: Json, a: str, b: str) -> Iterator[str]:
    judged = ", ".join(one["scorers"]) or "nobody"
    yield f"{text(one['set'])} ({one['digest'][:12]}), judged by {judged}"
    yield text(one["verdict"]["text"])
    for side, name in (("a", a), ("b", b)):
        errors = one["errors"][side]
        if errors:
            told = ", ".join(f"{text(kind)} {n}" for kind, n in sorted(errors.items()))
            yield f"{name} gave no answer that counts to {sum(errors.values())}: {told}"
    columns = (f">{a}", f">{b}", ">gained", ">lost", ">p", ">adjusted")
    for family, keys in (
        ("skills", ["skill"]),
        ("tiers", ["tier"]),
        ("levels", ["skill", "level"]),
    ):
        if len(one[family]) > 1:  # one group is the whole set
            yield table(
                (*keys, ">n", *columns),
                [(*(group[key] for key in keys), *_cells(group)) for group in one[family]],
            )
    if len(one["parts"]) > 1:  # one part is the verdict itself
        tests = {(g["scorer"], g["part"]): g for g in one["graded"]}
        yield table(
            ("part", ">n", f">{a}", f">{b}", "difference"),
            [
                (
                    *(f"{part['scorer']} {part['part']}", count(part["n"])),
                    *(f"{part['a']:.3f}", f"{part['b']:.3f}"),
                    _graded(tests.get((part["scorer"], part["part"]))),
                )
                for part in one["parts"]
            ],
        )
    for side, name in (("a", a), ("b", b)):
        for rate in one["speed"][side]:
            hosts = f" on {', '.join(rate['hosts'])}" if rate["hosts"] else ""
            batch = f", batch {rate['batch']}" if known(rate["batch"]) else ""
            by = text(f"{rate['backend'] or 'an unnamed backend'}{hosts}{batch}")
            yield f"speed of {name}: {rate['tokens_per_second']:.0f} tokens/s ({by})"


def _graded(test: Json | None) -> str:
    if test is None:
        return ""
    return (
        f"{test['difference']:+.3f} ({test['low']:+.3f} to {test['high']:+.3f}, p {test['p']:.2g})"
    )


def _changed(one: Json, a: str, b: str) -> Iterator[str]:
    for gained, items, word in ((True, one["gained"], "gained"), (False, one["lost"], "lost")):
        if not items:
            continue
        yield f"{b} {word} {counted(len(items), 'item')}:"
        for item in [c for c in one["changed"] if c["gained"] is gained][:SHOWN]:
            yield f"  {text(item['item'])}"
            for key, name in (("prompt", "asked"), ("expected", "expected"), ("a", a), ("b", b)):
                line = text(item[key])
                line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
                yield f"    {name:<10}{line}"
        if len(items) > SHOWN:
            yield f"  and {len(items) - SHOWN} more (--json has all)"
