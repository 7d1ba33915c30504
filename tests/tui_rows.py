"""Rows and reports of items for tests of the console, in the engine's shapes."""

from __future__ import annotations

from typing import Any

from queue_store.errors import NotFound
from tests.tui_world import World

LAST = 12
LONG = " ".join(f"word{n}" for n in range(400))
HOSTILE = "\x1b]52;c;SEFDS0VE\x07 \x9b31m \x1b[2J \u202eevil \x85 ⟧ end"


def report(limit: int = 576) -> dict[str, Any]:
    """As engine.prepare.report builds it, with one mask check that failed."""
    return {
        "lines": 2000,
        "accepted": 1998,
        "rejected": [{"line": 7, "reason": "not JSON"}],
        "rejected_count": 2,
        "rows": 1957,
        "held_out": list(range(40)),
        "over_length": [3],
        "over_limit": {"count": 1, "share": 0.0005, "max_length": limit, "longest": 700},
        "tokens": {
            "total": 300_000,
            "max": 700,
            "mean": 150.2,
            "p50": 140,
            "p95": 260,
            "p99": 300,
            "histogram": {
                "edges": [n * 59 for n in range(13)],
                "counts": [0, 310, 900, 520, 200, 60, 6, 0, 0, 0, 0, 1],
            },
        },
        "masks": {
            "ways": {"structure": 1998},
            "trained_tokens": 120_000,
            "trained_share": 0.4,
            "checks": [
                {"name": "masking ratio", "passed": True, "text": "40 % trains", "line": None},
                {
                    "name": "content",
                    "passed": False,
                    "text": "a user's turn would train",
                    "line": 9,
                },
            ],
        },
        "checks": {
            "level": "standard",
            "rows": 2000,
            "versions": {"repetition": "1.0.0", "near_held_out": "1.0.0"},
            "counts": {"repetition": 3, "near_held_out": 0},
            "findings": [{"line": 12, "checker": "repetition", "text": "a word 9 times"}],
        },
        "packing": {"packs": 512, "tokens": 280_000, "fill": 0.974, "longest_row": 560},
        "validation": {"rows": 40, "packs": 12},
    }


def words(text: str, trained: bool = False) -> dict[str, Any]:
    """A segment of a row."""
    return {"text": text, "trained": trained}


def row(line: int, **more: Any) -> dict[str, Any]:
    """What the engine answers to `row` with whole=False."""
    return {
        "line": line,
        "segments": [
            {"text": f"<|im_start|>user\nWhat is {line} + 2?<|im_end|>\n", "trained": False},
            {"text": "<|im_start|>assistant\n", "trained": False},
            {"text": f"{line} + 2 = {line + 2}\t天<|im_end|>", "trained": True},
            {"text": "\n", "trained": False},
        ],
        "left_out": "",
        "item": 1,
        "name": "train_syllo_level1_2000.jsonl",
        "settings": "frozen",
        "prepared": {
            "key": "ab",
            "part": "train",
            "pack": 16,
            "packs": 512,
            "rows_in_pack": 4,
            "lines": [line, 40, 41, 90],
            "tokens_in_pack": 570,
            "times": [{"epoch": 1, "place": 17, "packs": 512, "step": 3, "trained": False}],
        },
        "tokens": 31,
        "trained_tokens": 12,
        **more,
    }


class RowsWorld(World):
    """A World whose first item is prepared and whose engine answers `row`.

    Line 2 is blank, line 4 wrong, line 5 long, line 6 hostile; the last row is on line LAST.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.asked: list[tuple[int, str]] = []
        self.special: dict[int, dict[str, Any]] = {
            4: {"line": 4, "error": "messages has no assistant turn"},
            5: row(5, segments=[words(LONG), words("yes", True)]),
            6: row(6, segments=[words(HOSTILE), words(HOSTILE, True)]),
        }

    def item(self, item: int) -> dict[str, Any]:
        return {**super().item(item), "report": report()} if item == 1 else super().item(item)

    def do_row(self, item: int, line: int, near: str, whole: bool) -> dict[str, Any]:
        assert not whole, "a console asks for no ids"
        self.asked.append((line, near))
        if line == 2:
            line += {"next": 1, "previous": -1}.get(near, 0)
        if line == 2:
            raise NotFound("line 2 is blank or a header", where="a.jsonl")
        if line > LAST:
            raise NotFound(f"no line {line}: the last row stands on line {LAST}", where="a.jsonl")
        return self.special.get(line) or row(line)
