"""Checks of what rows say, beyond what a row must have: small checkers with a name and a version.

    rows -> Checks(level) -> an error keeps a row from training, a warning goes to the report

`quick` is the row spec alone (queue_store.specs), `standard` is looked at before every training,
`deep` is everything (formats F3, D03). Imports neither torch nor a tokenizer: lengths in tokens
are told where rows become tokens, in engine.prepare.
"""

from engine.checks.findings import LEVELS, Checker, CheckReport, Finding, Problem
from engine.checks.run import Checks, checkers, run_checks, versions

__all__ = [
    "LEVELS",
    "CheckReport",
    "Checker",
    "Checks",
    "Finding",
    "Problem",
    "checkers",
    "run_checks",
    "versions",
]
