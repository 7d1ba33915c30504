"""A wheel built from this tree works by itself: stylesheets, data and default settings inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("tui", "trainctl", "engine", "evaluation", "snapshots", "queue_store")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the tree; without the network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in (*PACKAGES, "tests", "benchmarks"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, tree / path.name)
    out = tree / "dist"
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), "."],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a fresh environment, which sees this one's packages but not this tree."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--disable-pip-version-check", "--target", str(site), str(wheel)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Behind its own site-packages come this environment's, for torch and all the others.
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def run(installed: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "XDG_DATA_HOME")}
    return subprocess.run(
        [str(installed / "bin" / "python"), "-P", *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_the_wheel_holds_all_that_is_no_python_too(wheel) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "queue_store/default.toml" in names
    assert not {name.split("/")[0] for name in names} & {"tests", "benchmarks"}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in names, path
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "Requires-Python: >=3.11" in text and "Requires-Dist: textual==" in text


def test_installed_it_is_not_this_tree(installed, tmp_path) -> None:
    done = run(installed, "-c", "import trainctl; print(trainctl.__file__)", cwd=tmp_path)
    assert done.stdout.startswith(str(installed)), done.stdout + done.stderr


def test_installed_it_makes_a_home_and_adds_a_file(installed, tmp_path) -> None:
    assert (
        "trainctl status"
        in run(installed, "-m", "trainctl", "status", "--help", cwd=tmp_path).stdout
    )
    assert run(installed, "-m", "trainctl", "init", "home", cwd=tmp_path).returncode == 0
    assert "[model]" in (tmp_path / "home" / "config.toml").read_text()
    (tmp_path / "a.jsonl").write_text('{"text": "hello"}\n')
    added = run(installed, "-m", "trainctl", "add", "a.jsonl", "--home", "home", cwd=tmp_path)
    assert added.returncode == 0 and "queued" in added.stdout, added.stderr
    made = run(
        installed,
        *("-m", "trainctl", "data", "make", "syllo", "--level", "1", "--count", "5"),
        *("-o", "s.jsonl"),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr


def test_the_console_script_is_there(wheel) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "trainctl = trainctl.__main__:main" in archive.read(entry).decode()
