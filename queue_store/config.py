"""config.toml: its keys, their types and limits, and the strict reading of it.

Every key is declared once, here; the default values stand in the commented config.toml that
ships with trainctl, so that the file a person reads is the file that counts.
A home's config.toml is laid over the defaults key by key.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from queue_store import config_errors, places
from queue_store.errors import ConfigError
from queue_store.sharing import check_processes

Positive = Annotated[int, Meta(ge=1)]
Steps = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(gt=0, le=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]

ROOM = '"1.2" in sizes of a checkpoint, or "50 GB"'
Room = Annotated[str, Meta(pattern=r"^\d+(\.\d+)?( (kB|MB|GB|TB))?$", description=ROOM)]
"""Disk space."""

CLOCK = 'a time of day as "03:00", or "" for never'
Clock = Annotated[str, Meta(pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$", description=CLOCK)]
"""A local time of day."""

RENDEZVOUS = r"(?:\[[0-9a-fA-F:.]+\]|[^\s:/]+):(\d{1,5})"

OPEN_TABLES = ("console.keys.", "backups.", "hosts.")
"""Tables whose keys are a person's own names; msgspec checks what stands under them."""

LOCKED = ("model.base", "model.method", "model.name", "training.max_length")
"""Keys that stay as they were once a home has trained a step."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of config.toml."""


class Lora(Section, frozen=True):
    r: Positive
    alpha: Positive
    dropout: Share
    targets: list[str]


class Model(Section, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=60)]
    base: Annotated[str, Meta(min_length=1)]
    method: Literal["full", "lora", "qlora"]
    precision: Literal["auto", "bf16", "fp32"]
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"]
    lora: Lora


class Muon(Section, frozen=True):
    learning_rate: Rate
    momentum: Share
    weight_decay: NotNegative
    adjust: Literal["original", "match_rms_adamw"]
    rest: Literal["adamw", "adamw_8bit"]


class Training(Section, frozen=True):
    max_length: Annotated[int, Meta(ge=16, le=1_048_576)]
    batch_size: Positive
    effective_batch: Positive
    epochs: Positive
    learning_rate: Rate
    warmup_steps: Steps
    schedule: Literal["constant", "linear", "cosine", "wsd"]
    schedule_steps: Steps
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "muon"]
    weight_decay: NotNegative
    max_grad_norm: NotNegative
    in_backward: bool
    rounding: Literal["auto", "nearest", "stochastic"]
    packing: bool
    liger: Literal["auto", "on", "off"]
    chunked_loss: Literal["auto", "on", "off"]
    gradient_checkpointing: bool
    activation_offload: bool
    check_memory: bool
    deterministic: bool
    threads: Annotated[int, Meta(ge=0, le=1024)]
    processes: Annotated[int, Meta(ge=1, le=64)] | Literal["auto"]
    """On each host; "auto" is one for each of its GPUs."""
    parallel: Literal["auto", "ddp", "fsdp"]
    seed: Steps
    log_steps: Positive
    eval_steps: Steps
    save_steps: Positive
    sample_steps: Steps
    monitoring_budget: Share
    muon: Muon

    def __post_init__(self) -> None:
        if self.effective_batch % self.batch_size:
            raise ValueError(
                f"effective_batch {self.effective_batch} is not a multiple of"
                f" batch_size {self.batch_size}"
            )
        if self.in_backward and self.effective_batch != self.batch_size:
            raise ValueError(
                "in_backward steps with the gradients of one batch, none add up: set batch_size"
                f" {self.batch_size} and effective_batch {self.effective_batch} to the same"
            )
        if self.in_backward and self.max_grad_norm > 0:
            raise ValueError(
                "in_backward never has all gradients at once, whose norm max_grad_norm"
                f" {self.max_grad_norm} would clip: set max_grad_norm = 0"
            )
        if self.activation_offload and not self.gradient_checkpointing:
            raise ValueError("activation_offload needs gradient_checkpointing = true")
        if self.schedule != "constant" and self.schedule_steps <= self.warmup_steps:
            raise ValueError(
                f'schedule "{self.schedule}" needs schedule_steps above warmup_steps'
                f" ({self.warmup_steps})"
            )


class Launch(Section, frozen=True):
    """The hosts of a training with several processes, under [launch]."""

    nodes: Annotated[int, Meta(ge=1, le=1024)]
    """Hosts that train together, this one included."""
    rendezvous: str
    """"host:port" of this host, which the others reach."""
    join_minutes: Annotated[float, Meta(gt=0)]
    timeout_minutes: Annotated[float, Meta(gt=0)]

    def __post_init__(self) -> None:
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError("nodes above 1 need rendezvous, host:port of this host for the others")
        host_port = re.fullmatch(RENDEZVOUS, self.rendezvous)
        if self.rendezvous and not (host_port and 0 < int(host_port[1]) < 65536):
            raise ValueError(
                f"rendezvous {self.rendezvous!r} is no host:port (a port is 1 to 65535)"
            )


class Data(Section, frozen=True):
    profile: str
    system_prompt: str
    thinking: Literal["template", "keep", "drop"]
    over_length: Literal["drop", "refuse"]
    bad_rows: Literal["reject_file", "drop"]
    bad_rows_limit: Share
    level: Literal["quick", "standard", "deep"]
    validation_split: Annotated[float, Meta(ge=0, lt=0.5)]


class Queue(Section, frozen=True):
    max_attempts: Positive
    preempt: bool
    quiet_seconds: NotNegative


class Snapshots(Section, frozen=True):
    keep_checkpoints: Positive
    keep_best: Steps
    background: Literal["auto", "off"]
    keep_last: Steps
    keep_daily: Steps
    keep_weekly: Steps
    keep_best_versions: Steps
    prune: bool
    branch_days: NotNegative
    trash_days: NotNegative
    daily: Clock
    save_seconds: NotNegative
    warn_free: Room
    stop_free: Room


class Backup(Section, frozen=True):
    """A place for second copies of versions, under [backups.NAME]."""

    target: Annotated[str, Meta(min_length=1)]
    """A folder, or user@host:path (anything that ssh knows)."""
    ssh_config: str = ""
    """A file for `ssh -F`, where the target needs other settings than ~/.ssh/config."""
    when: Literal["version", "daily", "manual"] = "version"
    what: Literal["whole", "weights"] = "whole"
    keep_last: Steps = 3
    keep_daily: Steps = 7
    keep_weekly: Steps = 4
    verify_days: NotNegative = 30.0


class Host(Section, frozen=True):
    """A machine that evaluates, under [hosts.NAME]."""

    ssh: Annotated[str, Meta(min_length=1)]
    """An alias of the user's ssh configuration, or user@host."""
    store: Annotated[str, Meta(min_length=1)] = "trainctl-store"
    """The folder for weights there, from the root or the login folder on."""
    python: Annotated[str, Meta(min_length=1)] = "python3"
    """An interpreter there that has torch and transformers."""
    ssh_config: str = ""
    """A file for `ssh -F`, where the host needs other settings than ~/.ssh/config."""
    deploy: Literal["", "best"] = ""
    """What is brought to its store to be served from there, whenever it becomes another."""


class Watchdog(Section, frozen=True):
    stall_minutes: NotNegative
    restarts: Steps


class Samples(Section, frozen=True):
    count: Annotated[int, Meta(ge=0, le=1000)]
    item_count: Annotated[int, Meta(ge=0, le=1000)]
    schedule: list[Steps]
    max_tokens: Positive
    where: Literal["auto", "local", "host"]


class Evaluation(Section, frozen=True):
    sets: list[str]
    after_item: bool
    checkpoint_steps: Steps
    versions: bool
    baseline: bool
    deadline_minutes: NotNegative
    local: Annotated[str, Meta(pattern=r"^(cpu|cuda:\d+)?$", description='"cpu", "cuda:1" or ""')]
    """The device of this machine where no host is configured; "" is never here."""


class Console(Section, frozen=True):
    theme: str
    ascii: bool
    bell: bool
    keys: dict[str, str]


class Config(Section, frozen=True):
    """The whole of config.toml."""

    model: Model
    training: Training
    launch: Launch
    data: Data
    queue: Queue
    snapshots: Snapshots
    backups: dict[str, Backup]
    hosts: dict[str, Host]
    watchdog: Watchdog
    samples: Samples
    evaluation: Evaluation
    console: Console

    @property
    def samples_on_host(self) -> bool:
        """Whether the fixed examples of the sets are answered by evaluation jobs, and none in the
        training process. "auto" needs a host and something that makes jobs by itself."""
        rules = self.evaluation
        makes_jobs = rules.after_item or bool(rules.checkpoint_steps) or rules.versions
        where = self.samples.where
        return bool(self.hosts) and (where == "host" or (where == "auto" and makes_jobs))


def default_path() -> Path:
    """The commented default: beside this module in a wheel, at the top of a checkout."""
    packaged = Path(__file__).with_name("default.toml")
    return packaged if packaged.is_file() else Path(__file__).parents[1] / "config.toml"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), mend="trainctl init makes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path)) from None


def _overlay(
    default: dict[str, Any], own: dict[str, Any], path: Path, at: str = ""
) -> dict[str, Any]:
    """`own` laid over `default`; an unknown key is an error that names its nearest neighbour."""
    result = dict(default)
    for key, value in own.items():
        name = f"{at}{key}"
        if at in OPEN_TABLES:
            result[key] = value
            continue
        if key not in default:
            raise config_errors.unknown(key, default, at, str(path))
        if isinstance(default[key], dict):
            if not isinstance(value, dict):
                raise config_errors.no_table(name, str(path))
            result[key] = _overlay(default[key], value, path, f"{name}.")
        else:
            result[key] = value
    return result


def _convert(raw: dict[str, Any], path: Path) -> Config:
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise config_errors.explained(error, raw, Config, str(path)) from None


def load(path: Path) -> Config:
    """The configuration of the home whose config.toml is at `path`, checked.

    Raises ConfigError that names the file, its line, the key, and its neighbour.
    """
    own = _read(path)
    try:
        return check(own, path)
    except ConfigError as error:
        line = config_errors.line_of(path.read_text(), error.key) if error.key else None
        if line is not None:
            error.where = error.where.replace(str(path), f"{path}, line {line}", 1)
        raise


def check(own: dict[str, Any], path: Path) -> Config:
    """What a config.toml with the content `own` comes to over the defaults. `path` stands in the
    errors, which are those of `load`."""
    config = _convert(_overlay(_read(default_path()), own, path), path)
    for name, backup in config.backups.items():
        places.parse(name, backup.target, backup.ssh_config, where=str(path))
        if not (backup.keep_last or backup.keep_daily or backup.keep_weekly):
            raise ConfigError(
                f"backups.{name} keeps nothing",
                where=str(path),
                mend=f"write backups.{name}.keep_last = 1, or more",
                key=f"backups.{name}",
            )
    for name, host in config.hosts.items():
        places.parse_host(name, host.ssh, host.store, host.ssh_config, where=str(path))
        places.check_python(name, host.python, where=str(path))
    check_processes(config, str(path))
    if config.samples.where == "host" and not config.hosts:
        raise ConfigError(
            'samples.where = "host", and no host is configured',
            where=str(path),
            mend='name one in [hosts], or write samples.where = "auto"',
            key="samples.where",
        )
    return config


def default() -> Config:
    """The configuration that ships."""
    path = default_path()
    return _convert(_read(path), path)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dictionaries, as in TOML."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    return plain


def from_dict(raw: dict[str, Any]) -> Config:
    """The reverse of `to_dict` (settings frozen with an item)."""
    return msgspec.convert(raw, Config)


def flat(raw: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Dotted keys to values: {"model.name": "tiny", …}."""
    result: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, dict) and at + key != "console.keys":
            result.update(flat(value, f"{at}{key}."))
        else:
            result[at + key] = value
    return result


def origins(path: Path) -> list[tuple[str, Any, str]]:
    """Every key with its value and the file it comes from, in the order of the default file."""
    own = flat(_read(path))
    config = flat(to_dict(load(path)))
    return [
        (key, value, str(path) if key in own else f"default ({default_path().name})")
        for key, value in config.items()
    ]
