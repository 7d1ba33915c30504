"""The report on learning as one HTML page: charts as inline SVG, tables, nothing from elsewhere.

No script, no font, no image, no link: the page forbids itself every request by its own policy.
Whatever a model, a file or a set said is escaped (`svg.words`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trainctl.commands.report import cell, effect_row, examples_line, figures, tier_order
from trainctl.output import clock, count, known, text
from trainctl.svg import Chart, words

Json = dict[str, Any]
MARKS = {"item": "m-item", "version": "m-version", "rollback": "m-bad", "failure": "m-bad"}
"""Marks that are drawn, and the class of each; a restart is of no interest to learning."""
COLOURS = 6
DOTS = 80
"""Points of a curve that are drawn as such; of more the line says it."""
STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --dim: #67717d; --paper: #fff; --rule: #dfe3e8;
  --train: #7a8ca3; --val: #c2410c; --held: #15803d; --item: #94a3b8; --version: #6d28d9;
  --bad: #b91c1c; --c0: #0369a1; --c1: #a16207; --c2: #be185d; --c3: #4d7c0f; --c4: #7c3aed;
  --c5: #0f766e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --dim: #98a2ae; --paper: #15181c;
  --rule: #30363d; --train: #8fa3bd; --val: #fb923c; --held: #4ade80; --item: #64748b;
  --version: #c4b5fd; --bad: #f87171; --c0: #38bdf8; --c1: #facc15; --c2: #f472b6; --c3: #a3e635;
  --c4: #a78bfa; --c5: #2dd4bf; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p, li { margin: .25rem 0; } .dim { color: var(--dim); }
.verdict { font-size: 1.15rem; border-left: 4px solid var(--val); padding: .3rem .8rem;
  margin: 1rem 0; }
.alarm { border-left: 4px solid var(--bad); padding: .2rem .8rem; margin: .5rem 0; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: var(--dim); }
polyline { fill: none; stroke-width: 1.8; } polygon { stroke: none; opacity: .22; }
.grid { stroke: var(--rule); stroke-width: 1; } .mark { stroke-width: 1; stroke-dasharray: 3 3; }
.train { stroke: var(--train); } polygon.train { fill: var(--train); }
.val { stroke: var(--val); } circle.val { fill: var(--val); }
.held { stroke: var(--held); } circle.held { fill: var(--held); }
.m-item { stroke: var(--item); } .m-version { stroke: var(--version); }
.m-bad { stroke: var(--bad); } .m-best { stroke: var(--held); stroke-width: 2; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
circle.c0 { fill: var(--c0); } circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); }
circle.c3 { fill: var(--c3); } circle.c4 { fill: var(--c4); } circle.c5 { fill: var(--c5); }
.key { display: inline-block; width: 1.2em; border-top: 3px solid; vertical-align: middle;
  margin: 0 .3em 0 1em; } .key.train { color: var(--train); } .key.val { color: var(--val); }
.key.held { color: var(--held); } .key.m-item { color: var(--item); }
.key.m-version { color: var(--version); } .key.m-bad { color: var(--bad); }
.key.m-best { color: var(--held); }
.key.c0 { color: var(--c0); } .key.c1 { color: var(--c1); } .key.c2 { color: var(--c2); }
.key.c3 { color: var(--c3); } .key.c4 { color: var(--c4); } .key.c5 { color: var(--c5); }
.wide { overflow: auto; max-height: 32rem; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: break-word; max-width: 22rem; }
th { color: var(--dim); font-weight: 600;
  position: sticky; top: 0; background: var(--paper); }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
"""
HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src'
    ' \'unsafe-inline\'"><meta name="viewport" content="width=device-width">'
)


def page(found: Json, name: str) -> str:
    """The page of a report (engine.reading.learning) on the model `name`."""
    title = f"{name}: does it get better?"
    parts = [
        *(HEAD, f"<title>{words(title)}</title><style>{STYLE}</style></head><body>"),
        f"<h1>{words(title)}</h1>",
        f'<p class="dim">step {count(found["step"])}, branch {words(text(found["branch"]))};'
        f" made {words(clock(found['made']))} by trainctl report --learning</p>",
        *_verdict(found),
        *_losses(found),
        *_scores(found),
        *_decisions(found),
        *_effects(found),
        *_hard(found),
        f"<h2>Fixed examples</h2><p>{words(examples_line(found['examples']))}</p>",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _verdict(found: Json) -> Iterable[str]:
    yield f'<p class="verdict">{words(found["verdict"]["text"])}</p><ul>'
    yield from (f"<li>{words(line)}</li>" for line in figures(found))
    yield "</ul>"
    judged = found["judged"]
    if known(judged):
        alarms = [judged["canary"]] if judged["canary"] else []
        for said in [*alarms, *(one["text"] for one in judged["regressions"])]:
            yield f'<p class="alarm">{words(said)}</p>'


def _losses(found: Json) -> Iterable[str]:
    curves = found["curves"]
    train = [p for p in curves["train"] if p[3] is not None]
    val, sets = curves["val"], curves["sets"]
    yield "<h2>Loss</h2>"
    if not train and not val:
        yield "<p>Nothing has trained on this line yet.</p>"
        return
    steps = [p[0] for p in (*train, *val)]
    values = [p[3] for p in train] + [p[1] for p in val]
    chart = Chart.over("Training and validation loss", steps, values, "nats a token")
    for mark in found["marks"]:
        if mark["kind"] in MARKS:
            told = f"step {mark['step']}: {mark['text']}"
            chart.mark(mark["step"], MARKS[mark["kind"]], told)
    best = found["verdict"]["best"]
    if known(best):
        told = f"step {best['step']}: lowest validation loss, {best['val_loss']:.4g}"
        chart.mark(best["step"], "m-best", told)
    chart.band([(p[0], p[1], p[2]) for p in train], "train")
    chart.line([(p[0], p[3]) for p in train], "train")
    chart.line([(p[0], p[1]) for p in val], "val")
    for step, loss in val if len(val) <= DOTS else ():
        chart.dot((step, loss), "val", f"step {step}: validation loss {loss:.4g}")
    yield chart.svg()
    keys = [("train", "training, mean and range"), ("val", "validation")]
    keys += [("m-item", "a file begins"), ("m-version", "version"), ("m-bad", "back, or failure")]
    keys += [("m-best", "lowest validation loss")] if known(best) else []
    yield _keys(keys)
    if len(sets) > 1:
        yield "<h2>Validation loss by set</h2>"
        points = [point for mine in sets.values() for point in mine]
        chart = Chart.over(
            "Validation loss by set", [p[0] for p in points], [p[1] for p in points], "nats a token"
        )
        for number, mine in enumerate(sets.values()):
            chart.line([(p[0], p[1]) for p in mine], f"c{number % COLOURS}")
        yield chart.svg()
        yield _keys([(f"c{n % COLOURS}", name) for n, name in enumerate(sets)])


def _keys(keys: Sequence[tuple[str, str]]) -> str:
    shown = "".join(f'<span class="key {of}"></span>{words(name)}' for of, name in keys)
    return f'<p class="dim">{shown}</p>'


def _scores(found: Json) -> Iterable[str]:
    yield "<h2>Held-out answers</h2>"
    if not found["scores"]:
        yield "<p>No model of this line was evaluated yet: trainctl evaluate</p>"
        return
    if len(found["held"]) > 1 and len(found["scores"]) > 1:
        yield "<p>All sets together, of the models that were asked all of them:</p>"
        yield _accuracy("All sets", [("held", "all sets", found["held"])])
    for one in found["scores"]:
        tiers = sorted({tier for row in one["models"] for tier in row["tiers"]}, key=tier_order)
        yield f"<p><b>{words(one['set'])}</b>, {count(one['items'])} items, share right with"
        yield "its 95 % interval (Wilson)</p>"
        curves = [("held", "all", one["models"])]
        for number, tier in enumerate(tiers if len(tiers) > 1 else ()):
            mine = [{**row, **row["tiers"][tier]} for row in one["models"] if tier in row["tiers"]]
            curves.append((f"c{number % COLOURS}", tier, mine))
        yield _accuracy(f"Accuracy on {one['set']}", curves)
        head = (">step", "model", ">right", ">accuracy", *(f">{tier}" for tier in tiers))
        rows = [
            (
                *(count(row["step"]), row["name"], f"{row['right']}/{row['n']}", cell(row)),
                *(cell(row["tiers"].get(tier)) for tier in tiers),
            )
            for row in one["models"]
        ]
        yield _table(head, rows)


def _accuracy(title: str, curves: Sequence[tuple[str, str, Sequence[Json]]]) -> str:
    steps = [float(row["step"]) for _, _, rows in curves for row in rows]
    last = max(steps) if max(steps) > min(steps) else min(steps) + 1
    chart = Chart(title, min(steps), last, 0.0, 1.0, "right", percent=True)
    for of, name, rows in curves:
        shown = [row for row in rows if row["n"]]
        chart.line([(row["step"], row["accuracy"]) for row in shown], of)
        for row in shown:
            told = f"{row['name']}, {name}: {row['right']}/{row['n']}, {cell(row)}"
            if of == "held":  # intervals of all tiers over each other would be a thicket
                chart.interval(row["step"], row["low"], row["high"], of)
            if len(shown) <= DOTS:
                chart.dot((row["step"], row["accuracy"]), of, told)
    return chart.svg() + _keys([(of, name) for of, name, _ in curves])


def _decisions(found: Json) -> Iterable[str]:
    yield f"<h2>Best version: {words(text(found['best']))}</h2>"
    if not found["events"]:
        yield "<p>No regression, no alarm and no decision so far.</p>"
        return
    rows = [
        (clock(one["time"]), one["kind"], text(one["step"]), one["text"])
        for one in reversed(found["events"])
    ]
    yield _table(("time", "what", ">step", ""), rows)


def _effects(found: Json) -> Iterable[str]:
    yield "<h2>What each file did to the validation loss</h2>"
    if not found["effects"]:
        yield "<p>No file has trained on this line.</p>"
        return
    yield '<p class="dim">From the last validation before its first step to the first one from'
    yield "its last step on; beyond noise: more than three standard deviations of such a"
    yield "difference.</p>"
    head = (">item", "file", ">before", ">after", ">change", "beyond noise")
    yield _table(head, [effect_row(row) for row in found["effects"]])


def _hard(found: Json) -> Iterable[str]:
    yield "<h2>Hard examples</h2>"
    if not found["hard"]:
        yield "<p>None was wrong in three of its last five answers, the last among them.</p>"
        return
    rows = [
        (
            *(row["set"], row["item"], f"{row['wrong']} of {row['of']}"),
            *("never right" if row["never"] else "", row["prompt"], row["expected"]),
            row["answer"],
        )
        for row in found["hard"]
    ]
    head = ("set", "item", ">wrong", "", "asked", "expected", "answered last")
    yield _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A title that begins with ">" is aligned to the right."""
    of = ["n" if title.startswith(">") else "t" for title in head]
    titles = "".join(
        f'<th class="{kind}">{words(title.lstrip(">"))}</th>'
        for kind, title in zip(of, head, strict=True)
    )
    lines = (
        "".join(
            f'<td class="{kind}">{words(text(value))}</td>'
            for kind, value in zip(of, row, strict=True)
        )
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'
