"""The GPU by its driver and by torch, and the kernels that are installed.

torch and the kernels are imported in a child process: this one stays light, and a kernel that
crashes at its import takes nobody along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from trainctl.doctor.check import Check

CHILD_SECONDS = 120
ASK_TORCH = """
import importlib, importlib.metadata, importlib.util, json, torch
cuda = torch.cuda.is_available()
kernels = {}
quantizes = ""
for name in ("liger_kernel", "flash_attn", "bitsandbytes"):
    if importlib.util.find_spec(name) is not None:
        try:
            importlib.import_module(name)
            kernels[name] = ""
        except BaseException as error:
            kernels[name] = f"{type(error).__name__}: {error}".splitlines()[0]
if kernels.get("bitsandbytes") == "":
    # It is imported without its library, too, and fails where that is called.
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
        ones = torch.ones(64, 64, device="cuda" if cuda else "cpu")
        dequantize_4bit(*quantize_4bit(ones, quant_type="nf4", compress_statistics=True))
        version = importlib.metadata.version("bitsandbytes")
        quantizes = f"{version}, quantizes on the {'GPU' if cuda else 'CPU'}"
    except BaseException as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        kernels["bitsandbytes"] = f"{type(error).__name__}: {lines[0].strip()}"
architectures = []
if cuda and kernels.get("liger_kernel") == "":
    try:
        from liger_kernel.transformers import monkey_patch
        architectures = sorted(monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN)
    except BaseException as error:
        kernels["liger_kernel"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps({
    "cuda": cuda,
    "architectures": architectures,
    "built_for": torch.version.cuda or "",
    "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count() * cuda)],
    "bf16": bool(cuda and torch.cuda.is_bf16_supported()),
    "kernels": kernels,
    "quantizes": quantizes,
}))
"""


def gpus() -> Iterator[Check]:
    yield _driver()
    try:
        child = subprocess.run(
            [sys.executable, "-c", ASK_TORCH],
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Check(
            "torch", False, f"no answer in {CHILD_SECONDS} s", "is the GPU hung? see nvidia-smi"
        )
        return
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        yield Check("torch", False, f"cannot be imported: {last}", "pip install --force torch")
        return
    told = json.loads(child.stdout.strip().splitlines()[-1])
    for name, error in told["kernels"].items():
        advice = f"pip install --force {name}, or uninstall it" if error else ""
        found = (name == "bitsandbytes" and told["quantizes"]) or "can be imported"
        if name == "liger_kernel" and told["architectures"]:
            found += f", for {len(told['architectures'])} kinds of model"
        yield Check(f"{name} kernels", not error, error or found, advice)
    if told["cuda"]:
        bf16 = "bf16" if told["bf16"] else "no bf16: training in fp32"
        yield Check("torch's gpus", True, f"{', '.join(told['gpus'])} ({bf16})")
        return
    built = f"built for CUDA {told['built_for']}" if told["built_for"] else "built for the CPU"
    yield Check("torch's gpus", True, f"CPU only ({built})")


def _driver() -> Check:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return Check("nvidia driver", True, "CPU only (no driver)")
    except pynvml.NVMLError as error:
        return Check("nvidia driver", False, f"NVML: {error}", "see nvidia-smi and the driver")
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
        number = pynvml.nvmlDeviceGetCount()
        return Check("nvidia driver", True, f"{version}, {number} GPU{'s' * (number != 1)}")
    except pynvml.NVMLError as error:
        return Check("nvidia driver", False, f"NVML: {error}", "see nvidia-smi and the driver")
    finally:
        pynvml.nvmlShutdown()
