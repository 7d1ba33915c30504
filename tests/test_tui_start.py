"""The console's start: the first frame before numpy and torch, and what it may import at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from textual.theme import BUILTIN_THEMES

from tests.tui_pilot import configured, console_on, running
from tests.tui_world import World
from tui.themes import THEMES

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "torch", "transformers", "pandas", "accelerate", "peft")

FIRST_FRAME = """
import asyncio, sys
from queue_store.config import default
from tests.tui_world import World
from tui.console import Console
import tui.app

world = World(steps=50)
app = Console(default(), world, world, leave=lambda way: None)
seen = []

async def main():
    async with app.run_test(size=(120, 36)) as pilot:
        while not app.frame.status:
            await pilot.pause(0.02)

start = app.poller.start
def first_frame():
    shown = "".join(s.text for s in app.screen._compositor.render_strips())
    assert "1 queue" in shown and "6 events" in shown, shown
    seen.append([m for m in %r if m in sys.modules])
    start()
app.poller.start = first_frame
asyncio.run(main())
print("HEAVY", *seen[0])
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TERM": "xterm-256color"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_first_frame_is_shown_before_numpy_and_torch_are_loaded() -> None:
    out = python(FIRST_FRAME % (HEAVY,))
    assert "HEAVY\n" in out, f"loaded at the first frame: {out}"


def test_importing_every_module_of_the_console_loads_neither_numpy_nor_torch() -> None:
    code = (
        "import importlib, pkgutil, sys, tui\n"
        "for m in pkgutil.walk_packages(tui.__path__, 'tui.'):\n"
        "    if m.name not in ('tui.series', 'tui.raster'): importlib.import_module(m.name)\n"
        f"print('HEAVY', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert "HEAVY\n" in python(code)


def test_the_arrays_of_the_curves_need_numpy_but_never_torch() -> None:
    code = "import sys, tui.series, tui.raster, tui.curve; print('torch' in sys.modules)"
    assert python(code).strip() == "False"


async def test_the_configured_theme_is_used() -> None:
    app = console_on(World(steps=2), configured(theme="textual-light"))
    async with running(app):
        assert app.theme == "textual-light"


def test_the_themes_that_may_be_configured_are_those_that_textual_has() -> None:
    assert sorted(THEMES) == sorted(BUILTIN_THEMES)


def test_checking_a_theme_does_not_load_textual() -> None:
    code = "import sys, tui.themes as t; t.checked('nord', 'f'); print('textual' in sys.modules)"
    assert python(code).strip() == "False"


@pytest.mark.parametrize("words", [[], ["config", "show"], ["--readonly"]], ids=" ".join)
def test_an_unknown_theme_is_refused_with_the_one_that_was_meant(home, trainctl, words) -> None:  # type: ignore[no-untyped-def]
    home.config.write_text('[console]\ntheme = "texual-light"\n')
    done = trainctl(*words, home=home)
    assert done.code == 2 and done.err.count("\n") == 1 and "Traceback" not in done.err
    assert f"{home.config}: console.theme" in done.err
    assert "unknown theme 'texual-light'" in done.err and "did you mean textual-light?" in done.err


def test_no_module_of_the_console_is_longer_than_400_lines() -> None:
    for path in (ROOT / "tui").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
