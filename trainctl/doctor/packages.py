"""Python and the packages that trainctl requires, by their own metadata."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from trainctl.doctor.check import Check

OPTIONAL = {
    "liger-kernel": "faster training on a GPU: pip install 'trainctl[gpu]'",
    "flash-attn": 'only for model.attention = "flash_attention_2"',
}


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, version, "" if ok else "Python 3.11 or newer is needed")


def required() -> list[tuple[str, str]]:
    """The distribution's own requirements as (name, version range), extras left out."""
    try:
        lines = importlib.metadata.requires("trainctl") or []
    except importlib.metadata.PackageNotFoundError:
        import tomllib

        project = Path(__file__).parents[2] / "pyproject.toml"
        lines = tomllib.loads(project.read_text())["project"]["dependencies"]
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        if "extra" in marker:
            continue
        end = next((i for i, c in enumerate(requirement) if c in "<>=!~ ["), len(requirement))
        found.append((requirement[:end], requirement[end:].strip()))
    return found


def packages() -> Iterator[Check]:
    for name, wanted in required():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, False, "not installed", f"pip install '{name}{wanted}'")
            continue
        fits = _fits(found, wanted)
        advice = "" if fits else f"trainctl wants {wanted}: pip install '{name}{wanted}'"
        yield Check(name, fits, found, advice)
    for name, why in OPTIONAL.items():
        try:
            yield Check(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, True, "not installed (optional)", why)


def _fits(found: str, wanted: str) -> bool:
    """Whether a version lies in a range; packaging is there with transformers."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(found, prereleases=True)
