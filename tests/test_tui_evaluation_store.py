"""The console's views of evaluation on a real store and a real session."""

# ruff: noqa: F811

from __future__ import annotations

from typing import Any

import pytest

from engine.reading import judged
from engine.reading.views import Views
from engine.sessions.dispatch import Dispatcher
from engine.sessions.readonly import ReadOnlySession
from engine.sessions.session import LocalSession
from queue_store.config import default
from queue_store.errors import NotFound, Refused
from queue_store.home import Home
from queue_store.results import Result, Results
from tests.results_kit import answer, digest, store
from tests.story import Story
from tests.test_tui_compare import at
from tests.test_tui_judged import judged as judged_world
from tests.test_tui_store import Telling, engine, home, story  # noqa: F401
from tests.tui_pilot import running, screen, until
from tui.console import Console
from tui.dialogs.changed import ChangedView


def two_versions(story: Story) -> None:
    """v001 and v002, each with weights of its own."""
    story.version(story.checkpoint(), "v002")
    with story.state.transaction() as db:
        for name, sign in (("v001", "a"), ("v002", "b")):
            told = (digest(sign), name)
            db.execute("UPDATE versions SET weights_digest = ? WHERE name = ?", told)


@pytest.fixture
def evaluated(home: Home, story: Story) -> tuple[int, int]:
    """v001 and v002 asked forty sums; v002 lost one item and gained twelve."""
    two_versions(story)
    refused = Result("q39", error_kind="timeout", error="no answer in 60 s")
    with Results(home) as results:
        first = store(results, digest("a"), lambda n: answer(n, n < 10))
        second = store(results, digest("b"), lambda n: answer(n, 0 < n < 22) if n < 39 else refused)
    return first, second


async def test_a_read_only_console_shows_the_statistics_and_the_items_of_a_real_home(
    home: Home,
    engine: Telling,
    evaluated: tuple[int, int],
) -> None:
    session = ReadOnlySession(LocalSession(Dispatcher(engine)))
    views = Views(home)
    app = Console(default(), session, views, leave=lambda way: None, readonly=True)
    async with running(app) as pilot:
        await until(pilot, lambda: len(app.frame.versions) == 2)
        await pilot.press("5", "g", "space", "down", "c")
        await until(pilot, lambda: "v002 is better than v001: 21 of 39 right" in screen(pilot))
        shown = screen(pilot)
        assert "20 tokens/s (plain, box, batch 8)" in " ".join(shown.split()), shown
        assert "v002 has no answer that counts to 1: timeout 1" in shown
        await at(pilot, ChangedView, "i")
        assert "12 gained, 1 lost" in screen(pilot) and "- q0  0+1?" in screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "no idea" in screen(pilot))
        shown = " ".join(screen(pilot).split())
        assert "sums · q0 · sums · easy · level 1" in shown and "exact_match 1.1.0" in shown
        assert "system short" in shown and "None" not in shown


def test_the_world_of_the_tests_has_the_shapes_of_the_real_one(
    home: Home,
    evaluated: tuple[int, int],
) -> None:
    made = judged_world()
    with Views(home) as views:
        real = judged.compared(views, "v001", "v002", None)
        item = judged.item(views, *evaluated, "q0")
    told = made.do_compare_answers("v001", "v004")

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(part) for key, part in value.items() if key != "p_adjusted"}
        return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__

    for part in ("accuracy", "verdict", "levels", "tiers", "speed", "changed", "evaluations"):
        assert shape(told["sets"][0][part]) == shape(real["sets"][0][part]), part
    assert set(told) == set(real) and set(told["sets"][0]) == set(real["sets"][0])
    mine = made.do_compared_item(1, 2, "q0")
    assert set(mine) == set(item) and set(mine["a"]) == set(item["a"])
    assert set(mine["a"]["scores"][0]) == set(item["a"]["scores"][0])


def test_an_item_that_one_could_not_answer_is_an_error_and_no_answer(
    home: Home,
    evaluated: tuple[int, int],
) -> None:
    with Views(home) as views:
        found = judged.item(views, *evaluated, "q39")
        assert found["b"]["error_kind"] == "timeout" and found["b"]["scores"] == []
        assert found["a"]["answer"] == "no idea"
        with pytest.raises(NotFound, match="no item 'q77'"):
            judged.item(views, *evaluated, "q77")
        with pytest.raises(NotFound, match="no evaluation 99"):
            judged.item(views, 99, 1, "q0")


def test_a_list_of_thousands_is_cut_and_the_ids_tell_how_many(
    home: Home,
    story: Story,
) -> None:
    two_versions(story)
    with Results(home) as results:
        store(results, digest("a"), lambda n: answer(n, False), count=800)
        store(results, digest("b"), lambda n: answer(n, True), count=800)
    with Views(home) as views:
        (one,) = judged.compared(views, "v001", "v002", None)["sets"]
    assert len(one["gained"]) == 800 and len(one["changed"]) == judged.LISTED


def test_the_present_state_has_answers_only_where_it_is_what_was_saved(
    home: Home,
    engine: Telling,
    story: Story,
    evaluated: tuple[int, int],
) -> None:
    with Views(home) as views:
        with pytest.raises(NotFound, match="the present state has no results"):
            judged.compared(views, "v001", None, None)
        with Results(home) as results:  # the checkpoint's digest, of which v002 was made
            store(results, "e" * 64, lambda n: answer(n, True))
        with story.state.transaction() as db:
            db.execute("UPDATE checkpoints SET weights_digest = ?", ("e" * 64,))
        found = judged.compared(views, "v001", None, None)
        assert found["b"]["name"] == "the present state"
        assert found["sets"][0]["verdict"]["result"] == "better"
        story.train(3)
        with pytest.raises(Refused, match="the present state, step 43, was never evaluated"):
            judged.compared(views, "v001", None, None)
