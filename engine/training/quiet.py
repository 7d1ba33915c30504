"""The libraries keep off the terminal, which belongs to the console, and are imported quickly.

Imports none of them: call it before they are imported, as some speak while they are.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def quiet() -> None:
    """No progress bars, no advice, no warnings of what the libraries will change one day.
    Errors still reach the log. Idempotent."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("transformers", "bitsandbytes", "accelerate", "peft", "liger_kernel"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("transformers", "peft", "accelerate", "bitsandbytes"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")


@contextmanager
def importing() -> Iterator[None]:
    """Around the first import of the libraries. They make millions of objects and hardly any
    garbage: looking through them for it again and again is a sixth of an engine's start."""
    quiet()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
