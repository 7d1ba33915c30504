"""Random SIGKILLs of an engine under load."""

from __future__ import annotations

import pytest

from tests.faults.parts import nothing_wrong, part


def test_a_few_random_kills_under_load_lose_nothing_and_change_no_bit() -> None:
    nothing_wrong(part("storm", "--kills", 3))


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("words", [(), ("--rollbacks",)], ids=["linear", "rollbacks"])
def test_a_hundred_random_kills_under_load(words: tuple[str, ...]) -> None:
    told = part("storm", "--kills", 100, "--seed", 7 + len(words), *words)
    nothing_wrong(told)
    assert told[0]["killed_while_training"] >= 30, told
