"""`python -m engine.verify.deep_verify … FOLDER`: is a version a model, not only what was written?

First every byte against the manifest, as snapshots.verify. Then what a manifest cannot know: the
headers of all safetensors files fit them, the weights go into the model that config.json
describes, complete and finite; the optimizer's state, the generators and training_state.json can
be read and fit that model; one forward pass gives finite numbers. It runs on the CPU: the GPU
belongs to training. Prints one JSON object (as snapshots.verify, with `checks`) and exits with 0,
4 (damaged), or 1 where something that is not the version's own is missing.
Read-only: it must never fetch, make, change or repair anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queue_store.errors import NotFound, TrainctlError, VerificationFailed
from queue_store.home import Home
from snapshots.checkpoints import LEDGER, Ledger
from snapshots.digest import tensors, weight_files, weights_digest
from snapshots.manifest import file_names
from snapshots.verify import MISMATCH, verify
from snapshots.versions import BASE, WEIGHTS

if TYPE_CHECKING:
    from engine.training.model import LoadedModel


class Environment(Exception):
    """Something that does not belong to the version keeps us from looking."""


class Examination:
    """One version's checks, in their order; `problems` grow, and a check that finds one lets those
    that do not stand on it go on."""

    def __init__(self, folder: Path, words: argparse.Namespace) -> None:
        self.folder = folder
        self.words = words
        self.scope = words.scope
        self.problems: list[dict[str, str]] = []
        self.checks: list[dict[str, Any]] = []
        self.loaded: LoadedModel | None = None

    def check(self, name: str, act: Callable[[], str]) -> bool:
        """Run one check; `act` returns what it saw and raises what it found."""
        try:
            text, ok = act(), True
        except Environment:
            raise
        except MemoryError as error:
            raise Environment("too little memory for this") from error
        except Exception as error:
            # Whatever a library says of these files, they cannot be used: that is the finding.
            said = error.what if isinstance(error, TrainctlError) else str(error)
            text, ok = (said.strip() or type(error).__name__).splitlines()[0][:500], False
            self.problems.append({"kind": "deep", "name": name, "text": f"{name}: {text}"})
        self.checks.append({"check": name, "ok": ok, "text": text})
        return ok

    def skip(self, name: str, why: str) -> None:
        self.checks.append({"check": name, "ok": True, "text": f"not looked at: {why}"})

    def run(self) -> None:
        from engine.verify import deep_parts

        model_folder = self.base() if self.scope == BASE else self.folder
        if self.scope == BASE:
            self.check("digest", lambda: self._is(model_folder, self.words.weights))
        if not self.check("headers", lambda: headers(model_folder)):
            return  # nothing loads from a torn file
        if self.check("weights", lambda: self._load(model_folder)):
            assert self.loaded is not None
            loaded = self.loaded
            self.check("numbers", lambda: deep_parts.finite_weights(loaded))
            self.check("forward pass", lambda: deep_parts.forward(loaded))
        if self.scope == WEIGHTS:
            self.skip("training state", "the version holds weights only")
        elif self.scope == BASE:
            self.skip("training state", "the base model has none")
        else:
            self._training_state()

    def _training_state(self) -> None:
        from engine.verify import deep_parts

        self.check("training state", lambda: deep_parts.training_info(self.folder, self.words.step))
        self.check("generators", lambda: deep_parts.generators(self.folder))
        self.check("ledger", self._ledger)
        loaded = self.loaded
        if loaded is None:
            self.skip("optimizer", "the weights did not load")
        else:
            self.check("optimizer", lambda: deep_parts.optimizer(self.folder, loaded))

    def _ledger(self) -> str:
        if LEDGER not in file_names(self.folder):
            return "none was written"
        return f"of {Ledger.read(self.folder).canonical_name}"

    def _load(self, folder: Path) -> str:
        from engine.verify import deep_parts

        base = None
        if deep_parts.is_adapter(folder):
            base = self.base()
            if self.words.base_digest:
                self._is(base, self.words.base_digest, "the base model is not the one trained on")
        self.loaded = deep_parts.load(folder, base)
        beside = " beside the full-precision base" if base is not None else ""
        count = f"{self.loaded.parameters:,}".replace(",", " ")
        return f"{count} parameters in {self.loaded.dtype}{beside}"

    @staticmethod
    def _is(
        folder: Path, expected: str, otherwise: str = "the weights are not the recorded"
    ) -> str:
        found = weights_digest(folder)
        if found != expected:
            raise VerificationFailed(f"{otherwise}: digest {found[:12]}, not {expected[:12]}")
        return f"the weights are those of digest {expected[:12]}"

    def base(self) -> Path:
        """The base model's folder, which must be here already. Raises Environment."""
        from engine.training.base import base_here
        from queue_store import config as configuration

        if not self.words.home:
            raise Environment("the base model is needed: say --home")
        home = Home(Path(self.words.home))
        try:
            config = configuration.load(home.config)
            found = base_here(home, config.model.base, config.training.seed)
            if found is None:
                raise NotFound(f"{config.model.base} is not here")
            return found
        except TrainctlError as error:
            raise Environment(f"the base model cannot be looked at: {error}") from error


def headers(folder: Path) -> str:
    """Every safetensors file is complete, no two tensors of it overlap, and an index of shards
    names what is there. Raises VerificationFailed."""
    files = sorted(folder.glob("*.safetensors"))
    if not weight_files(folder):
        raise VerificationFailed("no weights here")
    count = 0
    names: dict[str, str] = {}
    for path in files:
        found = sorted(tensors(path), key=lambda t: (t.start, t.size))
        end = 0
        for tensor in found:
            if tensor.size and tensor.start < end:
                raise VerificationFailed(f"{path.name}: {tensor.name} overlaps another tensor")
            end = max(end, tensor.start + tensor.size)
        names |= {tensor.name: path.name for tensor in found}
        count += len(found)
    for index in sorted(folder.glob("*.safetensors.index.json")):
        for name, file in json.loads(index.read_bytes())["weight_map"].items():
            if names.get(name) != file:
                raise VerificationFailed(f"{index.name} names {name} in {file}, where it is not")
    return f"{count} tensors in {len(files)} files"


def examine(words: argparse.Namespace) -> dict[str, Any]:
    """The answer for one folder. Raises Environment."""
    folder = Path(words.folder)
    result = verify(folder, words.manifest or None, tell=True)
    if "unfinished" in result:
        raise Environment(result["unfinished"])
    result["checks"] = [
        {"check": "bytes", "ok": result["ok"], "text": "every byte as written"}
        if result["ok"]
        else {"check": "bytes", "ok": False, "text": result["problems"][0]["text"]}
    ]
    if not result["ok"]:
        return result
    looked = Examination(folder, words)
    looked.run()
    result["checks"] += looked.checks
    return {**result, "ok": not looked.problems, "problems": looked.problems}


def _words(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engine.verify.deep_verify")
    parser.add_argument("folder")
    parser.add_argument("--scope", choices=("whole", WEIGHTS, BASE), default="whole")
    parser.add_argument("--home", default="", help="where the base model is looked for")
    parser.add_argument("--manifest", default="", help="digest of the manifest, as recorded")
    parser.add_argument("--weights", default="", help="digest of the weights, as recorded")
    parser.add_argument("--base-digest", default="", help="digest of the base model's weights")
    parser.add_argument("--step", type=int, default=None, help="the global step, as recorded")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    words = _words(arguments)
    try:
        result = examine(words)
    except Environment as error:
        print(json.dumps({"unfinished": str(error)}))
        return 1
    print(json.dumps(result))
    return 0 if result["ok"] else MISMATCH


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
