"""Power cuts on a real ext4."""

from __future__ import annotations

import pytest

from tests.faults import cuts
from tests.faults.parts import nothing_wrong, part

pytestmark = pytest.mark.skipif(bool(cuts.missing()), reason=cuts.missing() or "cuts work")


def test_a_few_power_cuts_lose_nothing() -> None:
    told = part("cuts", "--every", 25, "checkpoint", "add")
    nothing_wrong(told)
    assert len(told) >= 3


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_power_cuts_in_every_protocol_lose_nothing() -> None:
    told = part("cuts", "--every", 4)
    nothing_wrong(told)
    assert len(told) >= 60
