"""What follows from stored answers: real versions, real results, and what the journal and the
hints say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.hints import rest
from engine.hints.watch import Watch
from engine.judging import verdicts
from engine.judging.after import judged
from engine.judging.evaluating import Model, model
from engine.lines import segments
from queue_store import config, journal, records
from queue_store.metrics import Metrics, StepMetric
from queue_store.results import Result, Results
from snapshots import labels, rollback, versions
from tests.results_kit import answer, digest, store
from tests.store_world import World

BASE = "b" * 64
KINDS = ("evaluation.canary", "evaluation.regression", "best.moved", "best.kept")


class Judge(World):
    """A home with v001 to v004, one every ten steps; a training loss of 0.4 at each step."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.home.config.write_text("")
        self.home.evaluation.mkdir(exist_ok=True)
        (self.home.evaluation / "sums.jsonl").write_text("{}\n")
        self.metrics = Metrics(self.home)
        self.results = Results(self.home)
        for _ in range(4):
            self.go(10)
            self.save()
            versions.create(self.state, verified=False)

    def go(self, steps: int, loss: float = 0.4) -> None:
        for _ in range(steps):
            self.step += 1
            step = StepMetric(self.branch, self.step, 1, 0, 1, loss, 1e-3, 1.0, 10, 0.1, 0)
            self.metrics.add_step(self.run, step)
        self.metrics.flush()

    def answers(self, name: str, right: int | Callable[[int], bool], **more: Any) -> int:
        """So many of 40 right of a version, or of the base model."""
        of = BASE if name == "base" else versions.get(self.state, name).weights_digest
        if isinstance(right, int):
            return store(self.results, of, lambda n: answer(n, n < right), **more)
        return store(self.results, of, lambda n: answer(n, right(n)), **more)

    def judge(self, name: str) -> Any:
        settings = config.load(self.home.config)
        return judged(self.state, settings, model(self.state, settings, name))

    def judge_base(self) -> Any:
        base = Model("base", BASE, 0, 1, self.home.root, True, {})
        return judged(self.state, config.load(self.home.config), base)

    def told(self) -> list[tuple[str, str]]:
        found = [e for e in journal.latest(self.state, 100) if e.kind in KINDS]
        found = [e for e in found if not e.text.endswith("for this test")]
        return [(e.kind, e.text) for e in found]

    def hints(self) -> dict[str, Any]:
        found = rest.at_rest(self.state, config.load(self.home.config), self.step)["hints"]
        return {h["rule"]: h for h in found if h["rule"] in ("canary", "regression")}

    def close(self) -> None:
        self.results.close()
        self.metrics.close()
        super().close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Judge]:
    made = Judge(tmp_path / "home")
    yield made
    made.close()


def best(world: Judge) -> str:
    found = labels.best(world.state)
    return found.name if found else ""


def test_best_goes_from_base_to_version_by_a_paired_test_and_each_is_told_once(
    world: Judge,
) -> None:
    world.answers("v001", 20)
    assert "base has no results" in world.judge("v001")["best"]["why"] and best(world) == ""
    world.answers("base", 4)
    world.judge_base()  # it was asked last: v001 waited for it
    assert best(world) == "v001"
    found = verdicts.of(world.state, versions.get(world.state, "v001").weights_digest)
    assert found is not None and found["against"] == "base"
    moved = {"moved": True, "n": 40, "gained": 16, "lost": 0, "final": True}
    assert moved.items() <= found["best"].items() and found["best"]["p"] < 1e-4
    assert "has the weights of the best" in world.judge("v001")["best"]["unknown"]

    world.answers("v002", 23)
    assert not world.judge("v002")["best"]["moved"] and best(world) == "v001"
    assert world.judge("v002") == world.judge("v002"), "nothing new, nothing decided anew"
    world.answers("v001", 40, settings={"max_tokens": 9})  # another question: the same decision
    assert not world.judge("v002")["best"]["moved"] and len(world.told()) == 3
    world.answers("v003", 30)
    assert world.judge("v003")["best"]["why"].startswith("v003 is better than v001: gained 10")
    assert best(world) == "v003"
    assert [kind for kind, _ in world.told()] == [
        *("best.kept", "best.moved", "best.kept", "best.moved")
    ]
    assert world.told()[2][1] == (
        "v001 stays the best: v002 is not shown to be better than v001: gained 3, lost 0 of 40"
        " items (p 0.25)"
    )
    event = [e for e in journal.latest(world.state, 9) if e.kind == "best.moved"][-1]
    assert (event.data["left"], event.data["gained"], event.step) == ("v001", 10, 30)


def test_a_regression_is_told_hinted_and_over_with_a_later_model(world: Judge) -> None:
    world.answers("base", 2)
    world.answers("v002", 38)
    world.judge("v002")
    world.answers("v001", 5)
    assert world.judge("v001")["regressions"] == [], "what is older has not become worse"
    assert world.hints() == {}
    world.answers("v003", 20)
    found = world.judge("v003")
    assert found["regressions"][0]["text"].startswith("v003 is worse than v002 on sums: 20 of 40")
    world.judge("v003")
    told = [text for kind, text in world.told() if kind == "evaluation.regression"]
    assert len(told) == 1 and "20 of 40 right, 38 before" in told[0]
    hint = world.hints()["regression"]
    assert hint["level"] == "warn" and "trainctl compare v002 v003" in hint["advice"]
    assert (hint["figures"]["lost"], hint["since"]["step"]) == (18, 30)
    status = {"state": "training", "global_step": 40, "queue": {}, "item": None, "gpus": []}
    watched = {one.rule: one for one in Watch(world.home).look(world.state, status)}
    assert watched["regression"].text == hint["text"], "and the engine's own look has it"
    # The tag taken off by hand: what was found was against a version that is no longer the best.
    labels.untag(world.state, "v002", "best")
    assert world.hints() == {}
    labels.move_best(world.state, "v002", "for this test", {})
    assert "regression" in world.hints()
    world.answers("v004", 37)
    assert world.judge("v004")["regressions"] == [] and world.hints() == {}


def test_a_line_that_was_left_takes_its_regression_along(world: Judge) -> None:
    world.answers("v002", 38)
    labels.move_best(world.state, "v002", "for this test", {})
    world.answers("v004", 10)
    assert world.judge("v004")["regressions"] and "regression" in world.hints()
    rollback.apply(world.state, rollback.plan(world.state, "v002"))
    assert world.hints() == {}
    line = segments(records.line(world.state, live=False))
    assert verdicts.newest(world.state, line) is None


def test_the_canary_speaks_and_nothing_else_is_decided(world: Judge) -> None:
    world.answers("v003", 30)
    labels.move_best(world.state, "v003", "for this test", {})
    world.go(60, loss=0.01)
    world.save()
    versions.create(world.state, verified=False)
    world.answers("v005", 0)
    found = world.judge("v005")
    assert "none of 40 answers is right while the training loss is 0.01" in found["canary"]
    assert found["regressions"] == [] and best(world) == "v003"
    assert found["best"]["why"].startswith("v005 is not judged: none of 40 answers is right")
    hints = world.hints()
    assert set(hints) == {"canary"} and hints["canary"]["level"] == "bad"
    assert [kind for kind, _ in world.told()] == ["evaluation.canary", "best.kept"]
    # The same answers where the loss is no such thing: no alarm, and a regression.
    world.go(60, loss=0.4)
    world.save()
    versions.create(world.state, verified=False)
    world.answers("v006", 0)
    found = world.judge("v006")
    assert found["canary"] == "" and found["regressions"]


def test_what_is_not_whole_or_not_comparable_decides_nothing(world: Judge) -> None:
    world.answers("v001", 10)
    labels.move_best(world.state, "v001", "for this test", {})
    settings = config.load(world.home.config)
    of = versions.get(world.state, "v002").weights_digest
    store(world.results, of, lambda n: answer(n, True) if n < 30 else None)
    assert "is not judged yet: 10 of 40" in world.judge("v002")["best"]["why"]
    store(world.results, of, lambda n: Result(f"q{n}", error_kind="timeout"))
    assert not world.judge("v002")["best"]["final"] and world.told() == []
    # Another set that the best one was asked is to come first.
    (world.home.evaluation / "words.jsonl").write_text("{}\n")
    world.answers("v001", 10, set_name="words", set_digest=digest("6"))
    world.answers("v003", 40)
    assert world.judge("v003")["best"] == {"unknown": "v003 was not asked words yet"}
    world.answers("v003", 40, set_name="words", set_digest=digest("7"))
    world.answers("v004", 40, set_name="words", set_digest=digest("7"))
    world.answers("v004", 40, set_digest=digest("8"))
    kept = world.judge("v004")["best"]
    assert not kept["moved"] and "is not the one of before" in kept["why"]
    assert best(world) == "v001" and settings.evaluation.sets == []
    # A set that is gone, or not chosen, is not asked for.
    (world.home.evaluation / "words.jsonl").unlink()
    assert world.judge("v003")["best"]["moved"] and best(world) == "v003"


def test_a_checkpoint_is_judged_and_no_candidate(world: Judge) -> None:
    world.answers("v002", 38)
    labels.move_best(world.state, "v002", "for this test", {})
    world.go(10)
    point = world.save()
    store(world.results, point.weights_digest, lambda n: answer(n, n < 10))
    found = world.judge(point.name)
    assert found["regressions"] and "is no version" in found["best"]["unknown"]
    assert "regression" in world.hints()
    # A version made of it has its answers already, and is a candidate without a new one.
    versions.create(world.state, verified=False)
    assert not world.judge("v005")["best"]["moved"]
    assert [kind for kind, _ in world.told()] == ["evaluation.regression", "best.kept"]
    versions.create(world.state, records.checkpoint(world.state, 2), verified=False)
    assert "has the weights of the best" in world.judge("v006")["best"]["unknown"]
    # The base model was asked last, and is older than any: no regression, and no candidate.
    world.answers("base", 0)
    found = world.judge_base()
    assert found["regressions"] == [] and "unknown" in found["best"]


def test_a_tag_that_moved_meanwhile_is_decided_anew(
    world: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading and writing another process makes v003 the best: v002, better than v001 but
    not than v003, must not take it away."""
    world.answers("v001", 10)
    world.answers("v002", 20)
    world.answers("v003", 40)
    labels.move_best(world.state, "v001", "for this test", {})
    import engine.judging.after as after

    whole = after._decision

    def slow(*given: Any) -> Any:
        if best(world) == "v001":
            labels.move_best(world.state, "v003", "another process", {})
        return whole(*given)

    monkeypatch.setattr(after, "_decision", slow)
    found = world.judge("v002")
    assert found["against"] == "v003" and not found["best"]["moved"] and best(world) == "v003"
