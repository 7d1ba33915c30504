"""What the checks find decides what trains: errors refuse or drop rows, warnings are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.checks import versions
from engine.prepare import Prepared, prepare
from engine.reading import shapes
from engine.training.items import Settings, make_ready, validation_sets
from queue_store import config, intake, journal, queue, transitions
from queue_store.database import open_state
from queue_store.errors import DataError
from queue_store.heldout import HeldOut, held_out
from queue_store.home import Home
from tests.prepare_model import chat, model_folder, prepared, settings, write_rows


def rows(count: int) -> list[Any]:
    return [chat(f"how much is {i} + {i}?", f"it is {2 * i}") for i in range(count)]


def broken() -> dict[str, Any]:
    return {**chat("q", "no JSON at all"), "metadata": {"output_format": "json"}}


def test_an_error_of_a_check_is_a_bad_row(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [*rows(3), broken(), *rows(16)])
    reason = r"^a\.jsonl:4: json_answer: metadata\.output_format says JSON.*data\.bad_rows"
    with pytest.raises(DataError, match=reason):
        prepared(tmp_path, source, level="deep")
    data = prepared(tmp_path, source, level="deep", bad_rows="drop")
    assert data.rows == 19 and [bad["line"] for bad in data.report["rejected"]] == [4]
    assert data.report["checks"]["counts"]["json_answer"] == 1
    # The default level does not look so deep, and says how deep it looked.
    data = prepared(tmp_path, source)
    assert data.rows == 20 and data.report["checks"]["level"] == "standard"


def test_warnings_are_in_the_report_and_their_rows_train(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [*rows(3), chat("q", ""), *rows(3)])
    data = prepared(tmp_path, source, level="deep")
    found = data.report["checks"]
    assert data.rows == 7 and found["versions"] == versions("deep") and found["rows"] == 7
    assert found["counts"]["empty_answer"] == 1 and found["counts"]["duplicate_row"] == 3
    told = {(one["line"], one["checker"], one["severity"]) for one in found["findings"]}
    assert (4, "empty_answer", "warning") in told and (5, "duplicate_row", "warning") in told
    assert prepared(tmp_path, source, level="quick").report["checks"]["counts"] == {}


def test_the_versions_of_the_checks_are_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "a.jsonl", rows(3))
    before = prepared(tmp_path, source).key
    monkeypatch.setattr("engine.checks.versions", lambda level: {"empty_answer": "2.0.0"})
    assert prepared(tmp_path, source).key != before


def test_more_bad_rows_than_the_limit_refuse_the_file_with_the_share(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", [*rows(17), {"x": 1}, broken(), []])
    told = (
        r"^a\.jsonl: 3 of 20 rows are bad \(15\.0%, and data\.bad_rows_limit is 10\.0%\); line 18:"
        r" has no messages.*set data\.bad_rows_limit = 0\.15\)$"
    )
    with pytest.raises(DataError, match=told):
        prepared(tmp_path, source, bad_rows="drop", level="deep")
    data = prepared(tmp_path, source, bad_rows="drop", level="deep", bad_rows_limit=0.15)
    assert data.rows == 17 and [bad["line"] for bad in data.report["rejected"]] == [18, 19, 20]
    with pytest.raises(DataError, match=r"2 of 20 rows are bad \(10\.0%, and .* is 0\.0%\)"):
        prepared(tmp_path, source, bad_rows="drop", bad_rows_limit=0.0)
    assert prepared(tmp_path, source, bad_rows="drop").rows == 18  # just the limit


def with_sets(tmp_path: Path, source: Path, sets: HeldOut) -> Prepared:
    return prepare(
        source,
        model_folder=model_folder(tmp_path / "model"),
        settings=settings(),
        held_out=sets.digests,
        near=sets,
        root=tmp_path / "home" / "store" / "prepared",
        progress=lambda done, total: None,
        cancelled=lambda: False,
    )


def test_held_out_rows_are_counted_with_their_share_and_near_ones_named(
    home: Home, tmp_path: Path
) -> None:
    write_rows(home.evaluation / "own.jsonl", rows(30)[28:])
    near = chat("How much is 28 + 28", "56")
    data = with_sets(tmp_path, write_rows(tmp_path / "a.jsonl", [*rows(30), near]), held_out(home))
    assert data.report["held_out"] == [29, 30] and data.report["held_out_share"] == 0.0645
    assert data.rows == 29
    (told,) = data.report["checks"]["findings"]
    assert (told["checker"], told["line"]) == ("near_held_out", 31)
    assert told["text"] == "asks nearly what line 1 of the evaluation set own asks"


def test_the_journal_and_the_item_tell_what_does_not_train(home: Home, tmp_path: Path) -> None:
    """As the engine prepares it: with the home's sets and its settings."""
    home.config.write_text('[data]\nbad_rows = "drop"\nbad_rows_limit = 0.2\n')
    write_rows(home.evaluation / "own.jsonl", [chat("how much is 1 + 1?", "it is 2")])
    source = write_rows(tmp_path / "a.jsonl", [*rows(9), {"x": 1}, chat("How much is 1 + 1", "2")])
    own = Settings.of(config.load(home.config))
    folder = model_folder(tmp_path / "model")
    with open_state(home) as state:
        item = intake.add_file(state, source)
        ready = make_ready(home, item, own, folder, 0, lambda done, total: None, lambda: False)
        report = ready.prepared.report
        transitions.prepared(
            state,
            item.id,
            key=ready.prepared.key,
            settings=own.dump(),
            rows=ready.prepared.rows,
            epochs=1,
            steps=ready.plan.steps,
            held_out=len(ready.prepared.held_out),
            report=report,
        )
        event = journal.latest(state, 1)[0]
        assert event.text.endswith(
            "; 1 bad row dropped (line 10); 1 (9.1%) in evaluation sets; near_held_out 1"
        )
        assert event.data["dropped"] == [{"line": 10, "reason": report["rejected"][0]["reason"]}]
        assert queue.get(state, item.id).report == report
        assert shapes.item(queue.get(state, item.id), [])["rejected"] == report["rejected"]
    # The set itself is prepared too, for its loss, and is not near to itself.
    whole = validation_sets(home, config.load(home.config), own, folder, lambda: False)
    assert whole["own"].rows == 1 and whole["own"].report["checks"]["counts"] == {}
