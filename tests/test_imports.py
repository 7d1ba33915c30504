"""The floors hold: who imports whom, who may load torch, and who may touch files."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLOORS = {"queue_store": 1, "snapshots": 2, "evaluation": 2, "engine": 3, "trainctl": 4, "tui": 4}
HEAVY = {"torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors", "numpy"}
ARRAYS = {"tui.raster", "tui.series"}
"""Modules that are arrays through and through: imported when the first curve is drawn."""
DURABLE = "queue_store/durable.py"
SHIPPED = ROOT / "evaluation" / "host" / "shipped"
"""What runs on an evaluation host: it imports torch there, and keeps that host's own store."""
FILE_ACTS = {
    *("rename", "renames", "replace", "link", "symlink", "unlink", "remove", "removedirs"),
    *("rmdir", "rmtree", "fsync", "fdatasync", "truncate", "move"),
}
PATH_ACTS = {"rename", "unlink", "rmdir", "hardlink_to", "symlink_to"}

ENGINE_ROOMS = (
    *("faults", "arguments", "evaluation_messages", "messages", "lines", "rowcheck", "kernels"),
    *("machine", "checks", "prepare", "training", "memory", "verify", "judging", "hints"),
    *("inspecting", "reading", "adapters", "sessions", "loop"),
)
"""The engine's own floors, the lowest first."""
LIGHT_ENGINE = [
    f"engine.{name}"
    for name in (
        *("messages", "faults", "reading.views", "reading.status", "sessions.session"),
        *("sessions.client", "sessions.server", "sessions.dispatch", "sessions.wire"),
        *("sessions.controlport",),
    )
]


def modules(package: str) -> list[str]:
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@cache
def sources() -> list[Path]:
    return [path for package in FLOORS for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    """The tree of a source file; only looked at."""
    return ast.parse(path.read_text(), filename=str(path))


def loaded_after(*names: str) -> dict[str, list[str]]:
    """For every module, imported one after the other in one fresh interpreter, the heavy
    packages that are loaded after it."""
    code = (
        "import importlib, json, sys\n"
        "found = {}\n"
        f"for name in {list(names)!r}:\n"
        "    importlib.import_module(name)\n"
        f"    found[name] = sorted({(HEAVY | {'textual'})!r} & set(sys.modules))\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("package", ["queue_store", "snapshots", "evaluation", "trainctl", "tui"])
def test_no_module_of_a_light_package_loads_torch_or_numpy(package: str) -> None:
    left_out = ("__main__", *ARRAYS)
    names = [name for name in modules(package) if not name.endswith(left_out)]
    for name, loaded in loaded_after(*names).items():
        heavy = set(loaded) - {"textual"}
        assert not heavy, f"importing {name} loads {sorted(heavy)}"


def test_the_engines_face_side_loads_no_torch() -> None:
    for name, loaded in loaded_after(*LIGHT_ENGINE).items():
        assert not loaded, f"importing {name} loads {loaded}"


def test_nothing_below_the_top_floor_loads_textual() -> None:
    light = [m for p in ("queue_store", "snapshots", "evaluation") for m in modules(p)]
    for name, loaded in loaded_after(*light, "trainctl.__main__").items():
        assert "textual" not in loaded, name


def test_imports_only_go_down() -> None:
    wrong = []
    for path in sources():
        package = path.relative_to(ROOT).parts[0]
        for line, name in imported(parsed(path)):
            top = name.split(".")[0]
            allowed = top not in ("tests", "benchmarks")
            if top == "textual":
                allowed = FLOORS[package] == 4
            if top in ("torch", "transformers", "accelerate", "peft"):
                allowed = package == "engine" or path.parent == SHIPPED
            if top in FLOORS and top != package:
                allowed = FLOORS[top] < FLOORS[package] or (package, top) == ("trainctl", "tui")
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong


def test_the_rooms_of_the_engine_import_only_what_stands_below() -> None:
    paths = [path for path in sources() if path.is_relative_to(ROOT / "engine")]
    wrong = [found for path in paths for found in imports_from_above(path)]
    assert paths and not wrong, wrong


def imports_from_above(path: Path) -> list[str]:
    """What a module of the engine imports of rooms that stand above its own."""
    order = [*ENGINE_ROOMS]
    parts = path.relative_to(ROOT / "engine").parts
    room = parts[0].removesuffix(".py")
    assert room in order or room == "__init__", f"where does {room} stand?"
    found = []
    tree = parsed(path)
    types = {id(n) for node in ast.walk(tree) if only_types(node) for n in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in types:
            continue
        names = (node.module or "").split(".")
        if names[0] != "engine":
            continue
        for other in names[1:2] or [alias.name for alias in node.names]:
            if order.index(other) > order.index(room):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {other}")
    return found


def only_types(node: ast.AST) -> bool:
    """Is it the body of `if TYPE_CHECKING`?"""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.append((node.lineno, node.module or ""))
    return found


def test_only_durable_renames_links_deletes_and_syncs() -> None:
    may = (ROOT / DURABLE, SHIPPED / "store.py")
    acts = {path.relative_to(ROOT): file_acts(parsed(path)) for path in sources()}
    wrong = {str(path): found for path, found in acts.items() if found and ROOT / path not in may}
    assert not wrong, f"this is the work of {DURABLE}: {wrong}"


def file_acts(tree: ast.AST) -> list[str]:
    """Calls that change names on disk or sync: os.X, shutil.X, and those methods of Path."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            found += [f"{node.lineno}: {a.name}" for a in node.names if a.name in FILE_ACTS]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, of = node.func.attr, node.func.value
        module = of.id if isinstance(of, ast.Name) else ""
        if module in ("os", "shutil"):
            if name in FILE_ACTS:
                found.append(f"{node.lineno}: {module}.{name}")
        elif module == "durable":
            continue
        elif name in PATH_ACTS or (
            # str.replace takes two arguments, dataclasses.replace and datetime.replace keywords
            name == "replace" and len(node.args) == 1 and not node.keywords
        ):
            found.append(f"{node.lineno}: .{name}()")
    return found


def test_the_search_for_file_acts_finds_them() -> None:
    code = "import os\nos.fsync(3)\nPath('a').unlink()\nPath('a').replace('b')"
    assert len(file_acts(ast.parse(code))) == 3
    assert not file_acts(ast.parse("'a'.replace('b', 'c')\ndurable.unlink(3)"))


def test_a_file_stays_under_400_lines_and_says_what_it_is_for() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in sources()}
    assert not {path: lines for path, lines in lengths.items() if lines > 400}
    silent = [str(p.relative_to(ROOT)) for p in sources() if not ast.get_docstring(parsed(p))]
    assert not silent, "no module docstring"


def test_what_is_shipped_needs_nothing_of_ours_and_an_older_python() -> None:
    paths = sorted(SHIPPED.glob("*.py"))
    assert paths
    for path in paths:
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        for line, name in imported(tree):
            ours = name.split(".")[0] in FLOORS and not name.startswith("evaluation.host.shipped")
            assert not ours, f"{path.name}:{line} imports {name}, which no host has"


def test_nothing_pickles_or_runs_a_shell() -> None:
    for path in sources():
        for node in ast.walk(parsed(path)):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{where} runs a shell")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"pickle", "cPickle", "dill", "joblib"}, f"{where} pickles"
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("load", "save")
                and isinstance(node.value, ast.Name)
                and node.value.id == "torch"
            ):
                raise AssertionError(f"{where} uses torch.{node.attr}")
