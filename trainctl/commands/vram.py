"""vram: what training takes of a device's memory, before anything is loaded."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from queue_store import config as configuration
from queue_store.config import Config
from queue_store.errors import UsageError
from trainctl.context import Context
from trainctl.output import size, table

if TYPE_CHECKING:
    from engine.memory.fitting import Proposal

Json = dict[str, Any]
PARTS = (
    ("weights", "of the model, trained or frozen"),
    ("gradients", ""),
    ("optimizer", "its states"),
    ("activations", "of one micro-batch, forward and backward"),
    ("logits", "of the micro-batch, and what the loss makes of them"),
    ("workspace", "made in passing"),
    ("context", "the libraries'; an assumption"),
    ("pageable", "may leave the card for the host"),
)
MOMENTS = {
    "backward": "the start of the backward pass",
    "layers": "the first layer's backward pass",
    "gradients": "the end of the backward pass",
    "step": "the optimizer's step",
}


def vram(context: Context, arguments: argparse.Namespace) -> int:
    """Exit 1 where it does not fit. JSON: {device, usable, fits, dtype, parameters, processes,
    estimate{parts, total, moment}, measured[], nearest[{settings, total}]}."""
    from engine.memory import asking, cards, fitting, records

    home = context.found_home()
    config = _config(context, arguments)
    device = cards.here() if arguments.card == "here" else cards.card(arguments.card)
    each = config.training.processes
    device = cards.share(device, each if isinstance(each, int) else 1)
    with ExitStack() as stack:
        folder = _folder(context, config, arguments.model, stack)
        estimated = asking.Estimator(home, folder, device)
        whole, profile = estimated(config), estimated.profile(config)
        number = asking.number_bytes(config.model, device.gpu)
        fits = whole.total <= device.usable
        near = [] if fits else fitting.nearest(config, device, estimated)
    found = {
        "model": config.model.name if arguments.model is None else arguments.model,
        "device": msgspec.to_builtins(device),
        "usable": device.usable,
        "fits": fits,
        "dtype": "bf16" if number == 2 else "fp32",
        "parameters": profile.frozen + profile.trained,
        "trained": profile.trained,
        "processes": asking.processes(config),
        "estimate": whole.to_json(),
        "measured": records.summary(context.state, device.name) if home is not None else None,
        "nearest": [{"settings": one.settings, "total": one.estimate.total} for one in near],
    }
    context.show(found, lambda: _words(found, config, near))
    return 0 if fits else 1


def _config(context: Context, arguments: argparse.Namespace) -> Config:
    """The home's configuration, or the default one, with what the command line changes."""
    from engine.memory.fitting import shared, with_settings

    home = context.found_home()
    config = configuration.load(home.config) if home is not None else configuration.default()
    changes: Json = {}
    for option, key in (
        ("length", "training.max_length"),
        ("batch", "training.batch_size"),
        ("optimizer", "training.optimizer"),
        ("precision", "model.precision"),
        ("method", "model.method"),
        ("chunked_loss", "training.chunked_loss"),
        ("processes", "training.processes"),
        ("parallel", "training.parallel"),
    ):
        if getattr(arguments, option) is not None:
            changes[key] = getattr(arguments, option)
    if arguments.checkpointing is not None:
        changes["training.gradient_checkpointing"] = arguments.checkpointing == "on"
    if arguments.offload is not None:
        changes["training.activation_offload"] = arguments.offload == "on"
    batch, whole = arguments.batch, config.training.effective_batch
    if batch is not None and whole % batch:
        changes["training.effective_batch"] = batch
    if arguments.in_backward is not None:
        changes["training.in_backward"] = arguments.in_backward == "on"
    if arguments.in_backward == "on":
        one = batch if batch is not None else whole
        changes |= {"training.batch_size": one, "training.effective_batch": one}
        changes["training.max_grad_norm"] = 0.0
    many = arguments.processes
    try:
        if many is not None and arguments.in_backward != "on":
            alone = {**changes, "training.processes": 1}
            changes |= shared(with_settings(config, alone), many * config.launch.nodes)
        return with_settings(config, changes)
    except ValueError as error:
        raise UsageError(str(error), where="vram", mend="see trainctl vram --help") from None


def _folder(context: Context, config: Config, given: str | None, stack: ExitStack) -> Path:
    """The folder of the model's config.json. Raises NotFound."""
    from engine.training.base import TINY, base_here, text_folder

    if given is not None and given != TINY:
        folder = Path(given).expanduser()
        return folder.parent if folder.name == "config.json" else folder
    home = context.found_home()
    base = given or config.model.base
    found = None if home is None else base_here(home, base, config.training.seed)
    if found is not None:
        return found
    of = home if given is None else None  # who named the model is told where it is named
    return stack.enter_context(text_folder(of, base, config.training.seed))


def _together(processes: int, parallel: str) -> str:
    split = "a part of the model (fsdp)" if parallel == "fsdp" else "a copy of the model (ddp)"
    return f"each of {processes} processes, which has {split}:"


def _words(found: Json, config: Config, near: list[Proposal]) -> str:
    """The parts, the sum, and what else would fit."""
    from engine.memory import records

    whole = found["estimate"]
    training = config.training
    lines = [
        f"{found['model']}: {found['parameters'] / 1e6:,.1f} M parameters in {found['dtype']},"
        f" {found['trained'] / 1e6:,.1f} M of them trained ({config.model.method})",
        f"batch_size {training.batch_size}, max_length {training.max_length},"
        f" {training.optimizer}, gradient_checkpointing"
        f" {'on' if training.gradient_checkpointing else 'off'}"
        f"{', in_backward' if training.in_backward else ''}",
        *([_together(found["processes"], training.parallel)] if found["processes"] > 1 else []),
        "",
        table(
            ("part", ">size", "what"),
            [
                (name, ("-" if name == "pageable" else "") + size(whole[name]), what)
                for name, what in PARTS
                if whole[name]
            ],
        ),
        "",
        f"peak {size(whole['total'])} (at {MOMENTS[whole['moment']]}) of"
        f" {size(found['usable'])} usable on {found['device']['name']}:"
        f" {'fits' if found['fits'] else 'does not fit'}",
    ]
    measured = found["measured"]
    if measured:
        lines.append(f"so far here, {records.told(measured)}")
    if not found["fits"]:
        lines.append("")
        lines += [f"fits: {one.words()} ({size(one.estimate.total)})" for one in near] or [
            "nothing nearby fits: a smaller model, or a larger card"
        ]
    return "\n".join(lines)
