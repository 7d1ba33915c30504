"""status: what the engine is doing, or in what state the store is without one.

Answers in under 200 ms: imports nothing that it does not print.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from engine.reading.status import optimizer_words
from trainctl.context import Context, print_json
from trainctl.output import ago, count, duration, known, pairs, progress, size, text

CLEAR = "\x1b[H\x1b[2J"
Json = dict[str, Any]


def status(context: Context, arguments: argparse.Namespace) -> int:
    """Print the status once, or every second with --watch."""
    while True:
        data = read(context)
        if context.json:
            print_json(data, line=arguments.watch)
        else:
            clear = CLEAR if arguments.watch and sys.stdout.isatty() else ""
            print(clear + plain(data), flush=True)
        if not arguments.watch:
            return 0
        time.sleep(1)


def read(context: Context) -> Json:
    """The status by the engine's word, or by the store's where none runs."""
    from queue_store.errors import NoEngine

    session = context.engine_if_any()
    if session is not None:
        try:
            status: Json = session.request("snapshot", timeout=10)
            return status
        except NoEngine:
            context.forget_engine()
    return context.views.status()


def plain(status: Json) -> str:
    """The status as a page of aligned lines, without control characters."""
    engine = status.get("engine")
    head = status.get("head") or {}
    queue = status.get("queue") or {}
    lines: list[tuple[str, Any]] = [
        ("state", _state(status, engine)),
        ("model", _model(status.get("model"))),
        ("step", _step(status)),
        ("item", _item(status.get("item"))),
        ("loss", _losses(status)),
        ("speed", _speed(status)),
        ("queue", " · ".join(f"{queue.get(word, 0)} {word}" for word in ("high", "normal", "low"))),
        ("next", _ahead(status.get("ahead"))),
        ("head", _head(head)),
        *_gpus(status.get("gpus")),
        ("ram", _used(status.get("ram"), "process")),
        ("disk", _disk(status.get("disk"))),
        ("evaluation", _evaluation(status.get("evaluation"))),
        *_hosts(status.get("hosts")),
        *_hints(status),
    ]
    return pairs(lines)


def _evaluation(jobs: Any) -> str:
    """What runs, with how far it is, and how many jobs wait."""
    if not isinstance(jobs, dict) or not known(jobs):
        return ""
    parts = []
    for job in jobs["running"]:
        done = progress(job["answered"], job["items"]) if known(job["answered"]) else job["state"]
        parts.append(f"{text(job['model'])} on {text(job['host'])}, {done}")
    parts += [f"{jobs['waiting']} waiting"] * bool(jobs["waiting"])
    return " · ".join(parts)


def _hosts(hosts: Any) -> list[tuple[str, str]]:
    """A line for each host; this machine, where jobs run without one, has lines of its own."""
    lines = []
    for host in hosts if isinstance(hosts, list) else ():
        if host["name"] == "local":
            continue
        parts = [f"{text(host['name'])} {host['state']}"]
        if known(host["idle_since"]):
            parts[0] += f" for {ago(host['idle_since']).removesuffix(' ago')}"
        parts += [text(host["error"])] * bool(host["error"])
        cards = host["gpus"] if isinstance(host["gpus"], list) else []
        lines.append(("host", " · ".join([*parts, *map(_gpu, cards)])))
    return lines


def _hints(status: Json) -> list[tuple[str, str]]:
    """Each hint, and under it what one can do."""
    hints = status.get("hints")
    if not hints:
        return [("hint", status.get("hint") or "")]
    return [
        line for hint in hints for line in (("hint", hint["text"]), ("", f"-> {hint['advice']}"))
    ]


def _state(status: Json, engine: Any) -> str:
    state = text(status.get("state"))
    if not isinstance(engine, dict):
        return f"{state} · no engine runs (trainctl, or trainctl --daemon --detach)"
    phase = status.get("phase")
    if phase and phase != state:
        state += f" · {text(phase)}"
    started = engine.get("started")
    since = f" · up {ago(started).removesuffix(' ago')}" if known(started) else ""
    return f"{state} · {engine.get('mode')}, pid {engine.get('pid')}{since}"


def _model(model: Any) -> str:
    if not isinstance(model, dict) or not known(model):
        return text(model) if model else ""
    parts = [text(model.get("name")), text(model.get("method"))]
    parts += [text(model[key]) for key in ("dtype", "device") if known(model.get(key))]
    if known(model.get("parameters")):
        parts.append(f"{model['parameters'] / 1e6:.4g} M parameters")
    optimizer = model.get("optimizer")
    if isinstance(optimizer, dict) and known(optimizer):
        parts.append(optimizer_words(optimizer))
    return " · ".join(parts)


def _step(status: Json) -> str:
    branch = status.get("branch")
    return count(status.get("global_step")) + (f" on branch {branch}" if known(branch) else "")


def _item(item: Any) -> str:
    if not isinstance(item, dict) or not known(item):
        return "none" if item is None else text(item)
    parts = [f"{item.get('id')} {text(item.get('name'))}", text(item.get("priority"))]
    if known(item.get("steps")):
        parts.append(f"step {progress(item.get('step'), item['steps'])}")
    return " · ".join(parts)


def _ahead(ahead: Any) -> str:
    """The queued item that is being prepared while another one trains."""
    if not isinstance(ahead, dict) or not known(ahead):
        return ""
    share = f"{100 * ahead['progress']:.0f} %"
    return f"{ahead['id']} {text(ahead['name'])} · preparing ahead, {share}"


def _losses(status: Json) -> str:
    # Unlabelled, the first figure is the loss of training: it is never left out alone.
    parts = [text(status.get("loss")) if known(status.get("loss")) else "?"]
    if known(status.get("val_loss")):
        parts.append(f"validation {text(status['val_loss'])}")
    if known(status.get("learning_rate")):
        parts.append(f"rate {text(status['learning_rate'])}")
    return " · ".join(parts) if len(parts) > 1 or parts != ["?"] else ""


def _speed(status: Json) -> str:
    if not known(status.get("tokens_per_second")):
        return ""
    left = status.get("eta_seconds")
    eta = f" · {duration(left)} left" if known(left) else ""
    return f"{count(round(status['tokens_per_second']))} tokens/s{eta}"


def _head(head: Json) -> str:
    parts = [text(head["checkpoint"])] if known(head.get("checkpoint")) else []
    if known(head.get("version")):
        parts.append(f"version {text(head['version'])}")
    return " · ".join(parts)


def _gpus(gpus: Any) -> list[tuple[str, str]]:
    """A line for each GPU, or why there is none."""
    if not isinstance(gpus, list):
        return [("gpu", text(gpus))]
    if not gpus:
        return [("gpu", "CPU only")]
    return [(f"gpu {place}", _gpu(gpu)) for place, gpu in enumerate(gpus)]


def _gpu(gpu: Any) -> str:
    if not isinstance(gpu, dict) or "name" not in gpu:
        return text(gpu)
    parts = [text(gpu["name"])]
    if known(gpu.get("utilization")):
        parts.append(f"{text(gpu['utilization'])} %")
    if known(gpu.get("memory_used")):
        parts.append(f"{size(gpu['memory_used'])} of {size(gpu.get('memory_total'))}")
    if known(gpu.get("temperature")):
        parts.append(f"{text(gpu['temperature'])} °C")
    if known(gpu.get("power")):
        parts.append(f"{gpu['power']:.0f} W")
    return " · ".join(parts)


def _used(ram: Any, process: str) -> str:
    if not isinstance(ram, dict) or "used" not in ram:
        return text(ram) if ram else ""
    own = f" · engine {size(ram[process])}" if known(ram.get(process)) else ""
    return f"{size(ram['used'])} of {size(ram.get('total'))}{own}"


def _disk(disk: Any) -> str:
    if not isinstance(disk, dict) or "free" not in disk:
        return text(disk) if disk else ""
    left = disk.get("snapshots_left")
    room = f" · room for {count(left)} checkpoints" if known(left) else ""
    return f"{size(disk['free'])} free of {size(disk.get('total'))}{room}"
