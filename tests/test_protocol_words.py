"""The words of a session mean the same on both sides, and the status has its promised shape."""

from __future__ import annotations

from typing import get_args

import orjson
import pytest

from engine import faults
from engine.messages import COMMANDS, METRICS, EngineState, Kind, Metric, QueuePage, check, plain
from engine.reading.status import free_limit, model_status, snapshots_left, status
from engine.sessions.dispatch import _HANDLERS
from engine.sessions.wire import BadRequest, error_line, parse, result_line
from queue_store import errors
from queue_store.errors import ConfigError, TrainctlError, UsageError
from queue_store.items import ItemState


def family(kind: type[TrainctlError]) -> list[type[TrainctlError]]:
    return [kind, *(k for sub in kind.__subclasses__() for k in family(sub))]


SPOKEN = [
    kind
    for kind in family(TrainctlError)
    if kind.__module__ in (errors.__name__, faults.__name__) and kind is not BadRequest
]


@pytest.mark.parametrize("kind", SPOKEN, ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_the_class_that_was_raised_with_its_parts(
    kind: type[TrainctlError],
) -> None:
    raised = kind("it broke", where="config.toml: key", mend="mend\nit")
    answer = orjson.loads(error_line(3, raised))
    arrived = faults.error_from(answer["error"])
    assert type(arrived) is kind
    assert (arrived.what, arrived.where, arrived.mend) == (
        "it broke",
        "config.toml: key",
        "mend\nit",
    )
    assert arrived.exit_code == raised.exit_code
    assert answer["error"]["message"] == "config.toml: key: it broke (mend it)"
    assert answer["error"]["code"] in set(faults.ErrorCode)


def test_an_error_of_a_newer_engine_is_still_an_error() -> None:
    error = faults.error_from({"code": "from the future", "message": "m"})
    assert (type(error), str(error)) == (TrainctlError, "m")


def test_every_command_that_the_store_answers_has_a_handler_and_no_other() -> None:
    kinds = (Kind.READ, Kind.LOOK, Kind.STORE, Kind.UPKEEP, Kind.ASK)
    stored = {name for name, spec in COMMANDS.items() if spec.kind in kinds}
    assert set(_HANDLERS) == stored


def test_the_lists_of_words_agree() -> None:
    assert get_args(Metric) == METRICS
    states = QueuePage.__annotations__["state"]
    for state in ItemState:
        assert plain(check("queue", {"state": state.value}))["state"] == state.value
        assert f'"{state.value}"' in str(states).replace("'", '"')


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_an_argument_that_it_does_not_know(command: str) -> None:
    with pytest.raises(UsageError, match=command):
        check(command, {"surprise": 1})


def test_a_line_is_read_back_as_it_was_meant() -> None:
    request = parse(b'{"id": 7, "command": "priority", "item": 3, "priority": "high"}')
    assert (request.id, request.command) == (7, "priority")
    assert plain(check(request.command, request.arguments)) == {"item": 3, "priority": "high"}
    with pytest.raises(BadRequest) as bad:
        parse(b'{"id": 7}')
    assert bad.value.id == 7
    assert result_line(7, {"a": float("nan")}) == b'{"id":7,"ok":true,"result":{"a":null}}\n'


def test_the_status_has_every_promised_field_and_no_null_but_two() -> None:
    found = status(
        state=EngineState.STARTING,
        branch=None,
        global_step=0,
        queue={"high": 1},
        head_checkpoint=None,
        head_version=None,
        model=model_status(name="m", method="full"),
        gpus=[],
        ram={"used": 1, "total": 2, "process": 1},
        disk={"free": 1, "total": 2, "snapshots_left": 0},
        engine=None,
        loss=float("inf"),
    )
    assert [key for key, value in found.items() if value is None] == ["item", "engine"]
    assert found["loss"] == {"unknown": "not a number (inf)"}
    assert found["queue"] == {"high": 1, "normal": 0, "low": 0}
    assert orjson.loads(orjson.dumps(found)) == found


def test_how_many_snapshots_fit_leaves_what_must_stay_free() -> None:
    assert free_limit("1.5", 100) == 150
    assert free_limit("50 GB", 100) == 50_000_000_000
    assert snapshots_left(1000, 100, 150) == 8
    assert snapshots_left(100, 100, 150) == 0
    assert snapshots_left(1000, None, 0) == {"unknown": "no checkpoint yet to take the size from"}
    for wrong in ("", "much", "1 PB", "-1", "inf", "nan GB"):
        with pytest.raises(ConfigError):
            free_limit(wrong, 100)
