"""What follows from a model's answers, once it has them: canary, regression, whether it is best.

Everything rests on stored results and is journaled with its figures, once a state of these
results: judging again what is judged already changes and tells nothing. Any process of the home
may call it; two at once decide one after the other. Asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

from engine import lines
from engine.judging import verdicts
from engine.judging.evaluating import Model
from evaluation import best as deciding
from evaluation import hints
from evaluation.best import Decision
from evaluation.compare import Model as Compared
from evaluation.compare import compare
from queue_store import heldout, journal, records, tallies
from queue_store.config import Config
from queue_store.database import State, now, open_metrics
from queue_store.errors import NotFound, Refused
from queue_store.records import Checkpoint
from queue_store.results import Results
from snapshots import labels, named, versions
from snapshots.versions import Version

Json = dict[str, Any]
LOSS_STEPS = 50
"""Steps before a model whose mean training loss the canary looks at."""


def judged(state: State, config: Config, model: Model) -> Json:
    """Judge a model by what is stored of it: {model, digest, step, time, right, n, train_loss,
    canary, against, regressions[], best{moved, why, n, gained, lost, p}}.

    `canary` is why the evaluation looks broken, "" where it does not; `against` the best version
    before, or base; `regressions` (as hints.regressions) where a model that came after it is worse
    beyond chance; `best` whether the tag moved to this version, or {"unknown": why} where there
    was nothing to decide. Only the sets of [evaluation] sets count. What is new is journaled
    (evaluation.canary, evaluation.regression, best.moved, best.kept). Where it is the best itself,
    or base, that has its answers now, the versions that waited for them are judged. Raises OSError.
    """
    found = _settled(state, config, model)
    if found["key"][0] == model.digest:
        for version in versions.versions(state):
            before = verdicts.of(state, version.weights_digest)
            if before is not None and before["waits_for"] == model.digest:
                _settled(state, config, _model(state, version))
    return found


def _settled(state: State, config: Config, model: Model) -> Json:
    while True:
        found = _judge(state, config, model)
        if found is not None:
            return found


def _model(state: State, version: Version) -> Model:
    told = (version.name, version.weights_digest, version.step, version.branch)
    return Model(*told, versions.version_folder(state.home, version), False, {})


def _judge(state: State, config: Config, model: Model) -> Json | None:
    """`judged`; None where the tag was moved by somebody else meanwhile: then it is to be asked
    again."""
    against, sets = _against(state), _sets(state, config)
    candidate = _candidate(state, model.digest)
    with Results(state.home) as results:
        rival = None if against is None or against.digest == model.digest else against
        asked = [model.digest, *([rival.digest] if rival else [])]
        stored = [t for t in tallies.tallies(results.db, asked) if t.set_name in sets]
        mine = list(tallies.newest(stored).get(model.digest, {}).values())
        key = [
            *(against.digest if against else "", candidate.name if candidate else ""),
            *([t.evaluation, t.right, t.n] for t in stored),
        ]
        before = verdicts.of(state, model.digest)
        if before is not None and before["key"] == key:
            return before
        compared = _compared(results, rival, model, sets) if rival else None
    point = _checkpoint(state, model)
    loss = None if point is None else _train_loss(state, point)
    right, n = sum(one.right for one in mine), sum(one.n for one in mine)
    alarm = hints.canary(right, n, loss)
    regressions: list[Json] = []
    if isinstance(compared, dict) and not alarm and _came_after(state, point, rival):
        regressions = hints.regressions(compared)
    decision = _decision(candidate, model, compared, alarm, n)
    found = {
        **{"model": model.name, "digest": model.digest, "step": model.step, "time": now()},
        **{"right": right, "n": n, "canary": alarm, "regressions": regressions, "key": key},
        "train_loss": {"unknown": "no steps of it are on record"} if loss is None else loss,
        "against": against.name if against else {"unknown": "nothing has trained here"},
        "best": _told(decision),
        # Who would have to be asked before this one can be compared; "" for nobody.
        "waits_for": rival.digest if rival and isinstance(compared, str) else "",
    }
    with state.transaction():
        if _against(state) != against:
            return None
        verdicts.keep(state, model.digest, found)
        _journal(state, found, before or {}, candidate, decision, point)
    return found


def _against(state: State) -> Compared | None:
    """The best version, or the base model where none is; None in a home that never trained."""
    best = labels.best(state)
    if best is not None:
        loss = {"unknown": "no validation before it"} if best.val_loss is None else best.val_loss
        return Compared(best.name, best.weights_digest, loss)
    try:
        base = named.named(state, named.BASE)
    except NotFound:
        return None
    return Compared(base.name, base.digest, base.val_loss)


def _sets(state: State, config: Config) -> set[str]:
    """The names of the sets by which models are judged: the chosen ones, else all that are there.
    What was asked of a set that is gone says nothing of later models."""
    return set(config.evaluation.sets or heldout.set_files(state.home))


def _compared(results: Results, rival: Compared, model: Model, sets: set[str]) -> Json | str:
    """What `compare` found on the sets that count, and `lacking`, those that only the rival was
    asked; or why they cannot be compared."""
    other = Compared(model.name, model.digest, {"unknown": "not looked at"})
    try:
        found = compare(results, rival, other, details=0)
    except (NotFound, Refused) as error:
        return str(error)
    mine, theirs = (
        {one.set_name for one in results.evaluations(model=digest) if one.complete or one.failed}
        for digest in (model.digest, rival.digest)
    )
    counted = [one for one in found["sets"] if one["set"] in sets]
    if not counted:
        whys = [one["why"] for one in found["refused"] if one["set"] in sets]
        again = f"trainctl evaluate {rival.name} asks it the sets as they are now"
        return f"{whys[0]}; {again}" if whys else "no set was asked of both"
    return {**found, "sets": counted, "lacking": sorted((theirs - mine) & sets)}


def _checkpoint(state: State, model: Model) -> Checkpoint | None:
    """The newest checkpoint with these weights that was trained; None for the base model."""
    same = [c for c in records.checkpoints(state, deleted=True) if c.weights_digest == model.digest]
    return same[-1] if same and same[-1].run is not None and not model.base else None


def _train_loss(state: State, point: Checkpoint) -> float | None:
    """The mean training loss of the last LOSS_STEPS steps of a checkpoint's line."""
    with closing(open_metrics(state.home)) as metrics:
        found: list[float] = []
        for part in reversed(lines.line_of(state, point.id)):
            rows = metrics.execute(
                "SELECT loss FROM steps WHERE run = ? AND step > ? AND step <= ?"
                " AND loss IS NOT NULL ORDER BY step DESC LIMIT ?",
                (part.run, part.low, part.high, LOSS_STEPS - len(found)),
            )
            found += [row[0] for row in rows]
    return sum(found) / len(found) if found else None


def _came_after(state: State, point: Checkpoint | None, rival: Compared | None) -> bool:
    """Whether a model was made after another: an old one that is worse is no regression."""
    if point is None or rival is None:
        return False
    theirs = [
        c for c in records.checkpoints(state, deleted=True) if c.weights_digest == rival.digest
    ]
    return not theirs or point.id > theirs[0].id


def _candidate(state: State, digest: str) -> Version | None:
    """The newest version with these weights that may be tagged."""
    fit = [
        one
        for one in versions.versions(state)
        if one.weights_digest == digest and one.state not in ("corrupt", versions.DELETING)
    ]
    return fit[-1] if fit else None


def _decision(
    candidate: Version | None, model: Model, compared: Json | str | None, alarm: str, n: int
) -> Decision | str:
    """What a paired test says of the tag, or why there is nothing to decide."""
    if model.base:
        return "the base model is what versions are compared with first, and no candidate"
    if candidate is None:
        return f"{model.name} is no version: trainctl snapshot makes one of the present state"
    if compared is None:
        return f"{candidate.name} has the weights of the best version, or of base"
    if isinstance(compared, dict) and compared["lacking"]:
        return f"{candidate.name} was not asked {', '.join(compared['lacking'])} yet"
    if isinstance(compared, str):
        why = f"{candidate.name} cannot be compared with the best: {compared}"
        return Decision(False, why, n, 0, 0, 1.0)
    named_so = {**compared, "b": {**compared["b"], "name": candidate.name}}
    return deciding.decide(named_so, alarm=alarm)


def _told(decision: Decision | str) -> Json:
    if isinstance(decision, str):
        return {"unknown": decision}
    return {"moved": decision.move, **{k: v for k, v in asdict(decision).items() if k != "move"}}


def _journal(
    state: State,
    found: Json,
    before: Mapping[str, Any],
    candidate: Version | None,
    decision: Decision | str,
    point: Checkpoint | None,
) -> None:
    """Events of what is new in a verdict. In the caller's transaction."""
    place: Json = {"branch": point.branch, "step": point.step} if point else {}
    data = {key: found[key] for key in ("model", "digest", "against", "right", "n")}
    if found["canary"] and found["canary"] != before.get("canary"):
        text = f"{found['model']}: {found['canary']}"
        figures = {**data, "train_loss": found["train_loss"]}
        journal.record(state, "evaluation.canary", text, data=figures, **place)
    worse = found["regressions"]
    if worse and _figures(worse) != _figures(before.get("regressions", [])):
        more = f", and in {len(worse) - 1} more of its parts" if len(worse) > 1 else ""
        text = f"{worse[0]['text']}{more}"
        figures = {**data, "regressions": worse}
        journal.record(state, "evaluation.regression", text, data=figures, **place)
    if isinstance(decision, str) or candidate is None or not decision.final:
        return
    figures = {**data, **found["best"]}
    if decision.move:
        labels.move_best(state, candidate.name, decision.why, figures)
    elif found["best"] != before.get("best"):
        text = f"{found['against']} stays the best: {decision.why}"
        figures = {"version": candidate.name, **figures}
        journal.record(state, "best.kept", text, data=figures, **place)


def _figures(regressions: list[Json]) -> list[Json]:
    """Regressions without their words: those of a checkpoint are those of its version, too."""
    return [{key: value for key, value in one.items() if key != "text"} for one in regressions]
