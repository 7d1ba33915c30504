"""The worker as one program text, and the one constant command that starts it anywhere.

The command reads a length and that many bytes from its input and runs them; frames follow on the
same input. So nothing is put on the host's disk, no argument ever holds data, and both sides
always speak the same protocol.
"""

from __future__ import annotations

import hashlib
import shlex
from functools import cache
from importlib.resources import files

PACKAGE = "evaluation.host.shipped"
ORDER = (
    *("frames", "store", "meters", "penalties", "model", "job", "plain", "continuous", "serve"),
)
"""The modules in the order of their imports."""

BOOT = "import sys;r=sys.stdin.buffer.read;sys.path[:]=filter(None,sys.path);exec(r(int(r(8))))"
"""What the interpreter is told. No quotes and no dollar: any login shell passes it on."""

_LOADER = """\
import sys, types
def _module(name, source=""):
    made = sys.modules[name] = types.ModuleType(name)
    made.__path__ = []
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, made)
    exec(compile(source, name, "exec"), made.__dict__)
for _name in ({packages}):
    _module(_name)
for _name, _source in {modules!r}:
    _module(_name, _source)
sys.modules["{package}.serve"].main()
"""


@cache
def program() -> bytes:
    """The worker's program text."""
    folder = files(PACKAGE)
    modules = [
        (f"{PACKAGE}.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in ORDER
    ]
    parts = PACKAGE.split(".")
    packages = ", ".join(repr(".".join(parts[: n + 1])) for n in range(len(parts)))
    return _LOADER.format(packages=packages, modules=modules, package=PACKAGE).encode()


@cache
def digest() -> str:
    """Which worker this is: SHA-256 of its text."""
    return hashlib.sha256(program()).hexdigest()


def first_bytes() -> bytes:
    """What goes to the command's input before the first frame."""
    return f"{len(program()):08}".encode() + program()


def remote_command(python: str) -> str:
    """The constant command for a login shell; `~/` of the interpreter is the login folder."""
    home, path = ("~/", python[2:]) if python.startswith("~/") else ("", python)
    return f"exec {home}{shlex.quote(path)} -u -c {shlex.quote(BOOT)}"


def local_command(python: str) -> list[str]:
    return [python, "-u", "-c", BOOT]
