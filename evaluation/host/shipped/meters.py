"""What the host is and how busy it is: packages, cards, memory. Imports no torch: that takes
seconds, and a look at a host should not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "safetensors", "peft", "accelerate")
NEEDED = ("torch", "transformers", "safetensors")
QUERY = "name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
Json = dict[str, Any]


def packages() -> dict[str, str]:
    """Versions by package; "" for one that is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def missing() -> list[str]:
    """Packages without which no model loads."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def cards() -> list[Json] | Json:
    """One object a card: {name, utilization, memory_used, memory_total, temperature, power} in
    percent, bytes, degrees Celsius and watts; [] without one, {"unknown": why} where nobody says.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        if Path("/dev/nvidia0").exists():
            return {"unknown": "there is a card, and no nvidia-smi"}
        return []
    command = [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"unknown": f"nvidia-smi: {error}"}
    if done.returncode:
        return {"unknown": f"nvidia-smi: {(done.stdout or done.stderr).strip()[:200]}"}
    return [_card(line) for line in done.stdout.splitlines() if line.count(",") >= 5]


def _card(line: str) -> Json:
    name, *values = (part.strip() for part in line.rsplit(",", 5))
    keys = ("utilization", "memory_used", "memory_total", "temperature", "power")
    found: Json = {"name": name}
    for key, value in zip(keys, values, strict=False):
        try:
            number = float(value)
        except ValueError:
            found[key] = {"unknown": f"nvidia-smi says {value}"}
            continue
        found[key] = int(number * (1 << 20)) if key.startswith("memory") else number
    return found


def memory() -> Json:
    """{used, total} in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}
        total = values["MemTotal"]
        return {"used": total - values["MemAvailable"], "total": total}
    except (OSError, KeyError, ValueError, IndexError):
        return {"unknown": "no /proc/meminfo"}


def now() -> Json:
    """The body of a `meters` frame: {gpu, ram, load}; `load` is the average of a minute."""
    return {"gpu": cards(), "ram": memory(), "load": os.getloadavg()[0]}


def machine() -> Json:
    """What does not change while the worker runs."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "packages": packages(),
    }
