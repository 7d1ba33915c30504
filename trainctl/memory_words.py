"""The words of the verbs about memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from trainctl.words import Verbs

OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit", "muon")


def add_vram_verb(verbs: Verbs, positive: Callable[[str], int]) -> None:
    """`trainctl vram`."""
    vram = verbs.add("vram", "commands.vram:vram", "what training takes of a card's memory")
    vram.add_argument(
        "--card", default="here", metavar="CARD", help="4090, 3090, 4080, 4070; default: here"
    )
    vram.add_argument(
        "--model", metavar="FOLDER", help="a folder with a config.json; default: the home's"
    )
    vram.add_argument("--length", type=positive, metavar="N", help="training.max_length")
    vram.add_argument("--batch", type=positive, metavar="N", help="training.batch_size")
    vram.add_argument("--optimizer", choices=OPTIMIZERS)
    vram.add_argument("--precision", choices=("auto", "bf16", "fp32"))
    vram.add_argument("--method", choices=("full", "lora", "qlora"))
    vram.add_argument("--checkpointing", choices=("on", "off"), help="of activations")
    vram.add_argument(
        "--in-backward",
        choices=("on", "off"),
        help="on: the whole step as one batch, and no clipping, as it needs them",
    )
    vram.add_argument("--chunked-loss", choices=("auto", "on", "off"))
    vram.add_argument("--offload", choices=("on", "off"), help="training.activation_offload")
    vram.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="training.processes, and batches that they can share; what is told is one's",
    )
    vram.add_argument("--parallel", choices=("ddp", "fsdp"), help="training.parallel")
    vram.epilog, vram.formatter_class = VRAM, argparse.RawDescriptionHelpFormatter


VRAM = """\
Nothing is loaded: the model's own classes run one step on shapes without memory. Without options
it is what config.toml says, on this machine. Of several processes it is what each of them takes,
of a card of its own or of its part of the host's memory. Exit 1 where it does not fit.
JSON: {
  device{name, total, free, gpu}, usable      bytes
  fits, dtype, parameters, trained, processes
  estimate{weights, gradients, optimizer, activations, logits, workspace, context, pageable, total,
           moment}
  measured{items, low, high, last{…}} | null  predicted / measured of the items that trained here
  nearest[{settings{key: value}, total}]      what would fit }
"""
