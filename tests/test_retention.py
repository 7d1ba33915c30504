"""What the rules keep: every reason said, two verified ones always, the same answer every time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queue_store.errors import Refused
from queue_store.results import Results
from snapshots import labels, removal, retention, rollback, versions
from snapshots.retention import Rules
from tests.results_kit import answer, store
from tests.store_world import World, flip

DAY = 86400.0
ONE = Rules(last=1, daily=0, weekly=0, best=0, branch_days=0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """v001 to v005 verified, the head beyond."""
    made = World(tmp_path)
    for step in range(1, 6):
        made.step = step
        made.save(val_loss=1.0 / step)
        versions.create(made.state)
    for step in (6, 7):
        made.step = step
        made.save()
    yield made
    made.close()


def names(world: World) -> list[str]:
    return [version.name for version in versions.versions(world.state)]


def kept(world: World, rules: Rules) -> set[str]:
    return {name for name, why in retention.kept_because(world.state, rules).items() if why}


def test_the_plan_is_what_prune_does(world: World) -> None:
    plan = [e for e in retention.plan(world.state, ONE) if e.kind == "version"]
    assert [(e.name, e.keep) for e in plan] == [
        *(("v001", False), ("v002", False), ("v003", False), ("v004", True), ("v005", True))
    ]
    assert all(entry.reasons for entry in plan)
    assert names(world) == ["v001", "v002", "v003", "v004", "v005"]
    assert all(row["removed"] for row in retention.prune(world.state, ONE))
    assert names(world) == ["v004", "v005"]
    assert retention.prune(world.state, ONE) == []


def test_an_empty_policy_is_refused(world: World) -> None:
    nothing = replace(ONE, last=0)
    for act in (retention.plan, retention.prune):
        with pytest.raises(Refused, match="no rule"):
            act(world.state, nothing)


def test_a_candidate_stays_where_no_newer_version_is_good(world: World) -> None:
    for name in ("v004", "v005"):
        flip(world.home.versions / name / "model.safetensors")
    world.state.db.execute("UPDATE versions SET verified_at = verified_at - 90000")
    retention.prune(world.state, ONE)
    states = {v.name: v.state for v in versions.versions(world.state)}
    assert states["v004"] == states["v005"] == "corrupt"
    assert [n for n, s in states.items() if s == "verified"][-2:] == ["v002", "v003"]


def test_the_best_are_those_of_the_best_scores_else_of_the_lowest_loss(world: World) -> None:
    best = replace(ONE, best=1)
    world.state.db.execute("UPDATE versions SET val_loss = 0.001 WHERE name = 'v002'")
    assert kept(world, best) == {"v002", "v004", "v005"}
    digests = {v.name: v.weights_digest for v in versions.versions(world.state)}
    with Results(world.home) as results:
        store(results, digests["v001"], lambda n: answer(n, n < 20))
        assert kept(world, best) == {"v001", "v004", "v005"}
        store(results, digests["v003"], lambda n: answer(n, n < 30))
        assert kept(world, best) == {"v003", "v004", "v005"}
        # A part of the set, or another set that hardly anybody was asked, ranks nobody.
        store(results, digests["v001"], lambda n: answer(n, True), count=90, set_digest="6" * 64)
        store(results, digests["v002"], lambda n: answer(n, True) if n < 30 else None)
    reasons = retention.kept_because(world.state, replace(best, best=3))
    assert reasons["v003"] == reasons["v001"] == ["best 3 by score"]
    assert reasons["v002"] == ["best 3 by validation loss"]


def test_the_version_that_is_tagged_best_stays(world: World) -> None:
    labels.move_best(world.state, "v002", "it is better", {})
    assert retention.kept_because(world.state, ONE)["v002"] == ["tagged best"]
    retention.prune(world.state, ONE)
    assert "v002" in {v.name for v in versions.versions(world.state)}


def test_what_a_rollback_left_stays_for_its_days_and_no_longer(world: World) -> None:
    rollback.apply(world.state, rollback.plan(world.state, "v002"))
    for step in (3, 4):
        world.branch = world.state.db.execute("SELECT branch FROM head").fetchone()[0]
        world.step = step
        world.save()
    week = replace(ONE, branch_days=7)
    reasons = retention.kept_because(world.state, week)
    for name in ("v003", "v004", "v005", "v006"):
        assert "on a branch left within 7 days" in reasons[name]
    assert not any("left" in why for why in reasons["v002"] + reasons["v001"])
    world.state.db.execute("UPDATE branches SET created = created - ?", (8 * DAY,))
    assert not any(
        "left" in w for why in retention.kept_because(world.state, week).values() for w in why
    )


def test_a_later_rollback_does_not_protect_what_an_old_one_left(world: World) -> None:
    rollback.apply(world.state, rollback.plan(world.state, "v002"))
    world.state.db.execute("UPDATE branches SET created = created - ?", (8 * DAY,))
    world.branch = world.state.db.execute("SELECT branch FROM head").fetchone()[0]
    world.step = 9
    world.save()
    versions.create(world.state)
    rollback.apply(world.state, rollback.plan(world.state, "v001"))
    reasons = retention.kept_because(world.state, replace(ONE, branch_days=7))
    left = {name for name, why in reasons.items() if any("left" in w for w in why)}
    assert "v007" in left and not left & {"v003", "v004", "v005"}


VERSION = st.tuples(
    st.sampled_from(["verified", "unverified", "corrupt"]),
    st.sampled_from(["manual", "demo", "daily", "before_rollback"]),
    st.booleans(),
    st.integers(-3, 60),
)
RULES = st.builds(
    Rules,
    last=st.integers(1, 4),
    daily=st.integers(0, 4),
    weekly=st.integers(0, 3),
    best=st.integers(0, 2),
    branch_days=st.just(7.0),
)


@pytest.fixture(scope="module")
def ledger() -> Iterator[World]:
    """A home whose version rows alone are rewritten: the rules read the database."""
    with tempfile.TemporaryDirectory() as folder:
        made = World(Path(folder))
        made.step = 1
        made.save()
        versions.create(made.state)
        made.step = 2
        made.save()
        made.step = 3
        made.save()
        yield made
        made.close()


def fill(world: World, drawn: list[tuple[str, str, bool, int]]) -> None:
    db = world.state.db
    columns = [row[1] for row in db.execute("PRAGMA table_info(versions)")]
    first = dict(db.execute("SELECT * FROM versions LIMIT 1").fetchone())
    db.execute("DELETE FROM versions")
    for number, (state, kind, pinned, age) in enumerate(drawn, 1):
        row = first | {
            "id": number,
            "name": f"v{number:03}",
            "state": state,
            "kind": kind,
            "pinned": int(pinned),
            "created": time.time() - age * DAY,
        }
        db.execute(
            f"INSERT INTO versions VALUES({','.join('?' * len(columns))})",
            [row[column] for column in columns],
        )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(VERSION, min_size=1, max_size=9), rules=RULES)
def test_the_rules_never_keep_too_little(
    ledger: World, drawn: list[tuple[str, str, bool, int]], rules: Rules
) -> None:
    fill(ledger, drawn)
    stay = kept(ledger, rules)
    assert stay == kept(ledger, rules)  # the same answer every time
    found = versions.versions(ledger.state)
    good = [v.name for v in found if v.state == "verified"]
    personal = [v.name for v in found if v.state == "verified" and v.kind in removal.PERSON]
    assert set(good[-2:]) <= stay and set(personal[-2:]) <= stay
    assert {v.name for v in found if v.pinned or v.state != "verified"} <= stay
    for more in ("last", "daily", "weekly"):  # a larger rule never keeps less
        assert stay <= kept(ledger, replace(rules, **{more: getattr(rules, more) + 1}))
    # What no rule keeps may go by hand too: the two never contradict each other.
    for version in found:
        if version.name not in stay:
            assert removal.refusal(ledger.state, version) == ""
