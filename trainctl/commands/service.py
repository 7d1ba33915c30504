"""service: a systemd user unit that runs this home's daemon, printed, written or taken away.

Writes one file and starts nothing: what to type next is said. Must never overwrite or remove a
unit that trainctl did not write.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from queue_store import durable
from queue_store.errors import NotFound, Refused
from queue_store.home import Home
from trainctl.confirm import confirm
from trainctl.context import Context

MARK = "# Written by `trainctl service install`."
STOP_SECONDS = 900
WATCHDOG_SECONDS = 60
ANALYZE_SECONDS = 60
KEPT = (
    "HF_HOME",
    "XDG_STATE_HOME",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "LD_LIBRARY_PATH",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
)
"""What the daemon has of the environment that `install` is typed in: where things lie, and with
which card and allocator it trains. No secret, for units are read by everybody."""


def install(context: Context, arguments: argparse.Namespace) -> int:
    """Write the unit, or with --dry-run print it. JSON: path, unit, text, next[], problems[]."""
    home = context.home
    context.config  # noqa: B018 - what is wrong in it is said before a service fails over it
    text, path = unit_text(home), unit_path(home)
    data: dict[str, Any] = {"path": str(path), "unit": path.name, "text": text, "next": []}
    if arguments.dry_run:
        context.show({**data, "problems": analyze(path.name, text)}, lambda: text.rstrip())
        return 0
    if path.exists() and MARK not in path.read_text(errors="replace"):
        confirm(f"{path} was not written by trainctl and would be replaced", yes=arguments.yes)
    durable.make_folder(path.parent)
    durable.write_atomic(path, text.encode(), mode=0o644)
    data["next"] = [
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {path.name}",
        f"loginctl enable-linger {os.environ.get('USER', '$USER')}   # runs on after logging out",
    ]
    data["problems"] = analyze(path.name, text)
    lines = [f"written: {path}", *data["problems"], "now type:", *map("  {}".format, data["next"])]
    context.show(data, lambda: "\n".join(lines))
    return 0


def uninstall(context: Context, arguments: argparse.Namespace) -> int:
    """Take the unit away (its service is to be disabled first)."""
    path = unit_path(context.home)
    if not path.exists():
        raise NotFound("no such unit", where=str(path), mend="trainctl service install writes it")
    if MARK not in path.read_text(errors="replace"):
        raise Refused("not written by trainctl", where=str(path), mend="remove it by hand")
    durable.remove_file(path)
    data = {"path": str(path), "next": ["systemctl --user daemon-reload"]}
    context.show(data, lambda: f"removed: {path}; now type: systemctl --user daemon-reload")
    return 0


def unit_path(home: Home) -> Path:
    """Where the user's unit of this home stands."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "systemd" / "user" / f"trainctl-{escaped(str(home.root))}.service"


def escaped(path: str) -> str:
    """A path as a part of a unit's name, as `systemd-escape --path` writes it."""
    kept = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")
    out = []
    for place, byte in enumerate("/".join(filter(None, path.split("/"))).encode()):
        sign = chr(byte)
        if sign == "/":
            out.append("-")
        elif sign in kept and not (sign == "." and place == 0):
            out.append(sign)
        else:
            out.append(f"\\x{byte:02x}")
    return "".join(out) or "-"


def quoted(word: str) -> str:
    """A word of ExecStart= or Environment=: specifiers and variables taken literally."""
    for sign, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(sign, written)
    return f'"{word}"'


def unit_text(home: Home) -> str:
    """The unit of this home's daemon."""
    words = [sys.executable, "-P", "-m", "trainctl", "--daemon", "--home", str(home.root)]
    # A checkout that is not installed is found by its path.
    found = Path(__file__).resolve().parents[2]
    kept = {"PYTHONPATH": str(found)} if (found / "pyproject.toml").is_file() else {}
    kept |= {name: os.environ[name] for name in KEPT if name in os.environ}
    environment = "".join(
        f"Environment={quoted(f'{name}={value}').replace('$$', '$')}\n"
        for name, value in kept.items()
    )
    described = str(home.root).replace("%", "%%")
    return f"""{MARK} Yours to edit; `install` replaces it.
[Unit]
Description=trainctl, training in {described}
After=default.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={" ".join(map(quoted, words))}
{environment}Restart=on-failure
RestartSec=30
# A setting that is wrong stays wrong until a person mends it.
RestartPreventExitStatus=2
# The supervisor restarts the training process itself; systemd watches the supervisor.
WatchdogSec={WATCHDOG_SECONDS}
# Stopping finishes the step and saves, which takes its time for a large model.
TimeoutStartSec=600
TimeoutStopSec={STOP_SECONDS}
KillMode=mixed
# Memory that runs out ends the training process, and the supervisor goes on from the last save.
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def analyze(name: str, text: str) -> list[str]:
    """What `systemd-analyze verify` says against the unit, a line each; [] where it is content or
    is not on this machine."""
    import tempfile

    tool = shutil.which("systemd-analyze")
    if tool is None:
        return []
    with tempfile.TemporaryDirectory(prefix="trainctl-unit-") as folder:
        place = Path(folder) / name
        place.write_text(text)
        # Without a login session there is no runtime folder, and the tool then judges nothing.
        runtime = os.environ.get("XDG_RUNTIME_DIR") or folder
        try:
            done = subprocess.run(
                [tool, "verify", "--user", str(place)],
                env={**os.environ, "XDG_RUNTIME_DIR": runtime},
                capture_output=True,
                text=True,
                timeout=ANALYZE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return [f"systemd-analyze did not answer: {error}"]
    told = [line.strip() for line in (done.stderr + done.stdout).splitlines()]
    ours = [line for line in told if name in line or folder in line]
    return ours or (told if done.returncode else [])
