"""What the figures were measured on: enough to compare two tables, and nothing that names the
machine, its user or its folders."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("torch", "transformers", "trl", "textual", "tokenizers", "numpy")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def describe() -> dict[str, Any]:
    """CPU model, cores that this process may use, memory in GB, kernel, Python and packages, and
    how busy the machine was before the first figure (a busy one measures itself)."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "load_before": round(os.getloadavg()[0], 2),
    }


def slug(machine: dict[str, Any]) -> str:
    """A short name for file names: the processor and its cores."""
    words = re.sub(r"\(.*?\)|@.*|\b(cpu|processor)\b", " ", machine["processor"], flags=re.I)
    name = "-".join(re.findall(r"[a-z0-9]+", words.lower()))[:40].strip("-")
    return f"{name or 'machine'}-{machine['cores']}-cores"
