"""The version of every day: when one is due, and what was made of the last time.

One a local day, at a time of day; after a downtime it is caught up at the next look. A clock that
is set back, a day of 23 or of 25 hours make neither two of one day nor a gap.
"""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import Any

from queue_store.database import State, now

_LAST = "daily.last"


def scheduled_day(moment: float, at: str) -> str:
    """The local day whose time `at` ("03:00") was the last to come by `moment` (seconds since the
    epoch), as "2026-11-26"."""
    local = time.localtime(moment)
    hour, minute = (int(part) for part in at.split(":"))
    day = date(local.tm_year, local.tm_mon, local.tm_mday)
    if (local.tm_hour, local.tm_min) < (hour, minute):
        day -= timedelta(days=1)
    return day.isoformat()


def due(moment: float, at: str, last_day: str | None) -> bool:
    """Whether the version of a day is still to be made; `at` "" is never.

    Days are compared in their order: where the clock goes back over `at` (by hand, or in the night
    of 25 hours) the day before is the scheduled one again, and it was dealt with. A last day that
    has not come yet was written by a wrong clock and says nothing.
    """
    if not at:
        return False
    today = time.strftime("%Y-%m-%d", time.localtime(moment))
    return last_day is None or last_day > today or scheduled_day(moment, at) > last_day


def last(state: State) -> dict[str, Any]:
    """{day, branch, step} of the last time, {} before the first."""
    found: dict[str, Any] = state.meta_get(_LAST, {})
    return found


def moved(state: State, branch: int, step: int) -> bool:
    """Whether the model has trained, or stands elsewhere, since the last daily version."""
    before = last(state)
    if not step:
        return False
    return (before.get("branch"), before.get("step")) != (branch, step)


def done(state: State, at: str, branch: int, step: int) -> None:
    """The day is dealt with: a version was made, or the model had not moved."""
    with state.transaction():
        day = scheduled_day(now(), at)
        state.meta_set(_LAST, {"day": day, "branch": branch, "step": step})
