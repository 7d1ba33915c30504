"""The config.json of an older system (formats F12) as settings of config.toml.

Such a file says some things twice, and not always the same. Every place that a setting could
come from is looked at; where they differ, all are listed and a person chooses. Nothing is ever
picked in silence, and every key of the file ends in one of four lists. Must never write a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queue_store import config
from queue_store.errors import ConfigError, DataError
from trainctl.importing import old_hosts
from trainctl.settings_text import check_values

Json = dict[str, Any]
LIMIT = 4 << 20
"""Bytes of the longest config.json that is read."""

BATCH, EFFECTIVE = "training.batch_size", "training.effective_batch"

KEYS = {
    "model_name": "model.name",
    "model_path": "model.base",
    "base_model": "model.base",
    "locked.base_model": "model.base",
    "training_mode": "model.method",
    "fp_precision": "model.precision",
    "lora.r": "model.lora.r",
    "lora.alpha": "model.lora.alpha",
    "lora.dropout": "model.lora.dropout",
    "lora.target_modules": "model.lora.targets",
    "max_length": "training.max_length",
    "locked.max_context_length": "training.max_length",
    "batch_size": BATCH,
    "gradient_accumulation": EFFECTIVE,
    "learning_rate": "training.learning_rate",
    "warmup_steps": "training.warmup_steps",
    "epochs": "training.epochs",
    "log_steps": "training.log_steps",
    "eval_steps": "training.eval_steps",
    "save_steps": "training.save_steps",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "seed": "training.seed",
    "optimizer": "training.optimizer",
    "optimizer.type": "training.optimizer",
    "optimizer.lr": "training.learning_rate",
    "optimizer.learning_rate": "training.learning_rate",
    "optimizer.weight_decay": "training.weight_decay",
    "profile": "data.profile",
    "profile.name": "data.profile",
    "num_eval_samples": "samples.count",
    "eval_max_tokens": "samples.max_tokens",
    "snapshot_time": "snapshots.daily",
}
"""Where the value of an old key goes. Every top-level one may also stand under `hyperparams`."""

LEFT = {
    "model_display_name": "model.name is what is shown everywhere",
    "current_model_dir": "weights are no setting: trainctl import takes them over as versions",
    "load_in_4bit": 'model.method says it: "qlora" trains beside a 4-bit base',
    "poll_interval": "the inbox is watched: a file is taken when it is complete",
    "eval_timeout_seconds": "monitoring_budget limits what validation and samples take",
    "self_correction": "trainctl makes no correction rows",
    "auto_run": "the engine trains whatever is in the queue",
    "auto_generate": "trainctl does not call generators: put their files into the inbox",
    "curriculum": "levels are not chosen by trainctl: the queue's order is",
    "retention": "[snapshots] keeps by number, day, week and score, not by hours and GB",
    "environment": "trainctl runs no DeepSpeed and sets no environment",
    "performance_baselines": "trainctl measures its own",
    "locked.model_architecture": "it stands in the base model's own config.json",
    "locked.vocab_size": "it stands in the base model's own config.json",
}
"""What has no counterpart, and why."""

TABLES = ("hyperparams", "locked", "lora", "optimizer", "profile")
"""Tables of which each key is looked at by itself."""

METHODS = {"full": "full", "lora": "lora", "qlora": "qlora"}
PRECISIONS = {
    **{"auto": "auto", "bf16": "bf16", "bfloat16": "bf16"},
    **{"fp32": "fp32", "float32": "fp32"},
}
WORDS: dict[str, tuple[dict[str, str], str]] = {
    "model.method": (METHODS, "trainctl trains full, lora or qlora"),
    "model.precision": (PRECISIONS, "trainctl computes in bf16 or fp32"),
    "training.optimizer": (
        {name: name for name in ("adamw", "adamw_8bit", "paged_adamw_8bit", "muon")},
        "trainctl has adamw, adamw_8bit, paged_adamw_8bit and muon",
    ),
}
"""Settings whose words differ: theirs to ours, and what to say of any other."""


@dataclass
class Settings:
    """What a config.json comes to; the four lists are as `trainctl init --help` says them.
    `values` are the settings by dotted key."""

    mapped: list[Json] = field(default_factory=list)
    conflicts: list[Json] = field(default_factory=list)
    ignored: list[Json] = field(default_factory=list)
    problems: list[Json] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether the settings can be written as they are."""
        return not self.conflicts and not self.problems

    def json(self) -> Json:
        return {
            "mapped": self.mapped,
            "conflicts": self.conflicts,
            "ignored": self.ignored,
            "problems": self.problems,
        }


@dataclass(frozen=True)
class _Said:
    """One place of the file that says a setting; `value` None where our words have none for it."""

    place: str
    given: Any
    value: Any
    why: str = ""


def read(path: Path) -> list[tuple[str, Any]]:
    """The keys of a config.json as (key, value), one that stands twice twice; objects are lists of
    such pairs wrapped in `Pairs`. Raises DataError."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise ValueError(f"longer than {LIMIT >> 20} MiB")
        raw = json.loads(data.decode("utf-8-sig"), object_pairs_hook=Pairs)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise DataError(f"not JSON: {error.msg} at column {error.colno}", where=where) from None
    except RecursionError:
        raise DataError("nested too deeply", where=str(path)) from None
    except ValueError as error:
        raise DataError(f"not usable JSON: {error}", where=str(path)) from None
    if not isinstance(raw, Pairs):
        raise DataError("not a JSON object", where=str(path), mend="give an older config.json")
    return list(raw)


class Pairs(list[tuple[str, Any]]):
    """A JSON object with every key that stands in it, in order."""


def plain(value: Any) -> Any:
    """A value with its objects as dictionaries."""
    if isinstance(value, Pairs):
        return {key: plain(inner) for key, inner in value}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def translate(
    pairs: list[tuple[str, Any]], chosen: Mapping[str, Any], hosts: Any = None
) -> Settings:
    """Settings of config.toml by what `read` gave and what a person `chosen`; `hosts` is the
    content of a hosts.json beside it, None without one."""
    result = Settings()
    if hosts is not None:
        _take(result, old_hosts.hosts_json(hosts))
    said: dict[str, list[_Said]] = {}
    seen: dict[str, int] = {}
    for key, value in _leaves(pairs):
        seen[key] = seen.get(key, 0) + 1
        place = key if seen[key] == 1 else f"{key} (the {seen[key]}. time)"
        bare = key.removeprefix("hyperparams.")
        to = KEYS.get(bare)
        if value is None:
            result.ignored.append({"key": place, "because": "it is null"})
        elif bare == "remote_eval":
            _take(result, old_hosts.remote_eval(place, value))
        elif to is not None:
            said.setdefault(to, []).append(_said(place, to, value))
        elif because := _left(bare):
            result.ignored.append({"key": place, "because": because})
        else:
            result.ignored.append({"key": place, "because": "unknown to trainctl"})
    accumulation = said.pop(EFFECTIVE, [])
    for to, candidates in said.items():
        _decide(result, to, candidates, chosen)
    _effective_batch(result, accumulation, chosen)
    for key, value in chosen.items():
        if key not in result.values:
            result.mapped.append({"from": ["--set"], "to": key, "value": value})
            result.values[key] = value
    result.problems += _problems(result.values)
    return result


def _take(result: Settings, found: tuple[list[Json], list[Json], list[Json]]) -> None:
    """Add hosts; one that is there already by its address is the same host."""
    mapped, ignored, problems = found
    fresh = old_hosts.merged(result.values, mapped)
    because = "the same host as in hosts.json"
    result.ignored += [
        {"key": one["from"][0], "because": because} for one in mapped if one not in fresh
    ]
    result.mapped += fresh
    result.values |= {one["to"]: one["value"] for one in fresh}
    result.ignored += ignored
    result.problems += problems


def _leaves(pairs: list[tuple[str, Any]], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in pairs:
        if isinstance(value, Pairs) and key in TABLES and at in ("", "hyperparams."):
            yield from _leaves(list(value), f"{at}{key}.")
        else:
            yield f"{at}{key}", plain(value)


def _left(key: str) -> str:
    """Why a key has no counterpart; "" for one that nobody knows."""
    table, dot, _ = key.partition(".")
    return LEFT.get(key) or (LEFT.get(table, "") if dot else "")


def _said(place: str, to: str, given: Any) -> _Said:
    if to in WORDS:
        words, why = WORDS[to]
        value = words.get(given.lower()) if isinstance(given, str) else None
        return _Said(place, given, value, "" if value is not None else why)
    if isinstance(given, float) and given.is_integer() and to not in FLOATS:
        return _Said(place, given, int(given))
    return _Said(place, given, given)


FLOATS = frozenset(
    key
    for key, value in config.flat(config.to_dict(config.default())).items()
    if isinstance(value, float)
)
"""Settings that are no whole numbers."""


def _same(candidates: list[_Said], value: Callable[[_Said], Any]) -> bool:
    first = [value(one) for one in candidates]
    return all(type(v) is type(first[0]) and v == first[0] for v in first)


def _decide(result: Settings, to: str, candidates: list[_Said], chosen: Mapping[str, Any]) -> None:
    """One setting: chosen by a person, said by the file in one voice, or a conflict."""
    places = [one.place for one in candidates]
    if to in chosen:
        result.mapped.append({"from": [*places, "--set"], "to": to, "value": chosen[to]})
        result.values[to] = chosen[to]
        return
    why = next((one.why for one in candidates if one.why), "")
    if not why and _same(candidates, lambda one: one.value):
        result.mapped.append({"from": places, "to": to, "value": candidates[0].value})
        result.values[to] = candidates[0].value
        return
    _conflict(result, to, candidates, why or "the file says different things")


def _conflict(result: Settings, to: str, candidates: list[_Said], why: str) -> None:
    usable = next((one.value for one in candidates if one.value is not None), "VALUE")
    result.conflicts.append(
        {
            "key": to,
            "values": [{"value": one.given, "place": one.place} for one in candidates],
            "why": why,
            "choose": f"--set {to}={usable}",
        }
    )


def _effective_batch(result: Settings, said: list[_Said], chosen: Mapping[str, Any]) -> None:
    """gradient_accumulation counts batches, effective_batch what is in them."""
    if not said:
        return
    batch = result.values.get(BATCH, 1)
    waits = any(conflict["key"] == BATCH for conflict in result.conflicts)
    whole = isinstance(batch, int) and all(isinstance(one.value, int) for one in said)
    if EFFECTIVE in chosen or waits or not whole:
        if EFFECTIVE not in chosen and waits and _same(said, lambda one: one.value):
            unknown = {"unknown": f"{said[0].value} x {BATCH}, once that is chosen"}
            places = [one.place for one in said]
            result.mapped.append({"from": places, "to": EFFECTIVE, "value": unknown})
            return
        _decide(result, EFFECTIVE, said, chosen)
        return
    products = []
    for one in said:
        place = f"{one.place} {one.value} x {BATCH} {batch}"
        products.append(_Said(place, one.value * batch, one.value * batch))
    _decide(result, EFFECTIVE, products, chosen)


def _problems(values: Mapping[str, Any]) -> list[Json]:
    """Every setting that config.toml does not take, each with what it says."""
    where = Path("config.json")
    try:
        check_values(values, where)
    except ConfigError as whole:
        found = []
        for key, value in values.items():
            alone = {BATCH: value, EFFECTIVE: value} if key == BATCH else {key: value}
            try:
                check_values(alone, where)
            except ConfigError as error:
                found.append({"key": key, "value": value, "what": error.what})
        return found or [{"key": "", "value": None, "what": whole.what}]
    return []
