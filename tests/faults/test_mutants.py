"""The suite turns red for each planted fault: else its green says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant, judged, planted

named = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@named
def test_the_text_of_a_mutant_is_still_in_the_source(mutant: Mutant, tmp_path: Path) -> None:
    planted(mutant, tmp_path)


@named
def test_each_mutant_is_caught_by_each_part_that_should(mutant: Mutant) -> None:
    told = judged(mutant)
    assert told, f"no part that catches it can run here: {mutant.caught_by}"
    for one in told:
        assert one["how"], f"{mutant.name} passes {one['caught_by']}"
