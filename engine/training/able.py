"""Whether this machine can do what config.toml asks for, before anything is loaded."""

from __future__ import annotations

import torch

from engine.training.model import check_offload, choose_device, choose_dtype, wants_liger
from engine.training.stepping import check_rounding
from queue_store.config import Config


def check_able(config: Config) -> None:
    """Raises ConfigError where one process on this machine cannot train these settings: asked at
    the start, and of an edit of config.toml while another one still trains."""
    model, training = config.model, config.training
    device = choose_device()
    dtype = "bf16" if choose_dtype(model.precision, device) is torch.bfloat16 else "fp32"
    wants_liger(training.liger, device)
    check_offload(training, device)
    check_rounding(dtype, model.method, training)
