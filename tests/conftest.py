"""What every test shares: an environment of its own, and homes in temporary folders."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from queue_store.home import Home
from tests.stepping_engine import SteppingEngine

# Two cores are shared by all tests; set before any of them imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[1]
_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Cards are for `pytest -m gpu`: everywhere else the figures and bits are those of a CPU, on a
    machine with a card too. And ctrl+c is heard by what the tests start, where a shell that had
    them run in the background took it from them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection() -> None:
    """Importing all that the tests use makes millions of objects and no garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What was imported stays for ever: no collection of later garbage looks through it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """No home, log or colour setting of the person who runs the tests reaches one."""
    for name in ("TRAINCTL_HOME", "TRAINCTL_CRASH_AT", "NO_COLOR", "TEXTUAL_THEME", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    # Not made, and not by mktemp, which looks through all that were made before.
    outside = tmp_path_factory.getbasetemp() / "xdg" / str(next(_numbers))
    monkeypatch.setenv("XDG_DATA_HOME", str(outside / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(outside / "state"))


@pytest.fixture(autouse=True)
def no_engine_is_left() -> Iterator[None]:
    """One that goes on would meet what later tests of this process put in a library's place."""
    yield
    assert SteppingEngine.THREAD not in {one.name for one in threading.enumerate()}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with the default configuration, empty otherwise."""
    home = Home(tmp_path / "home")
    home.create()
    home.config.write_text("")
    return home


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def trainctl(tmp_path: Path) -> Iterator[Callable[..., Done]]:
    """Runs the command in a process of its own, as a person's shell would, without a terminal.

    `trainctl("add", "x.jsonl", home=home)`; the working folder is the test's temporary one.
    """

    def run(
        *words: object, home: Home | None = None, timeout: float = 240, **environment: str
    ) -> Done:
        given = ["--home", str(home.root)] if home is not None else []
        done = subprocess.run(
            [sys.executable, "-P", "-m", "trainctl", *map(str, words), *given],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return Done(
            done.returncode,
            done.stdout.decode("utf-8", "surrogateescape"),
            done.stderr.decode("utf-8", "surrogateescape"),
        )

    yield run
