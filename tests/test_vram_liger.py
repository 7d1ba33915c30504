"""Liger's kernels in the estimate: its own code is run, its kernels are not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers

from engine.memory import asking
from engine.memory.cards import Device
from engine.memory.estimate import Profile
from engine.memory.profile import profile
from queue_store import config
from tests.test_vram import folder_of, settings

KERNEL = """
class JITFunction:
    def run(self, *arguments, **named):
        raise RuntimeError("0 active drivers")
    def __getitem__(self, grid):
        return lambda *arguments, **named: self.run(*arguments, grid=grid, **named)
"""
TUNED = "class Autotuner:\n    run = None\nclass Heuristics:\n    run = None\n"
LIGER = '''
"""As Liger's SwiGLU: the gate and the other half are kept, and overwritten by their gradients."""
import torch
from triton.runtime.jit import JITFunction
forward_kernel, backward_kernel = JITFunction(), JITFunction()

class Mul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        c = torch.empty_like(a)
        forward_kernel[(1,)](a, b, c)
        ctx.save_for_backward(a, b)
        return c
    @staticmethod
    def backward(ctx, dc):
        a, b = ctx.saved_tensors
        backward_kernel[(1,)](dc, a, b)
        return a, b

def forward(self, x):
    return self.down_proj(Mul.apply(self.gate_proj(x), self.up_proj(x)))

def _apply_liger_kernel_to_instance(model, fused_linear_cross_entropy=True):
    if BROKEN:
        raise TypeError("another release")
    assert not fused_linear_cross_entropy
    for layer in model.model.layers:
        layer.mlp.__dict__["forward"] = forward.__get__(layer.mlp, type(layer.mlp))

BROKEN = False
'''
NAMES = ("triton", "triton.runtime", "triton.runtime.jit", "triton.runtime.autotuner")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand-ins for triton, whose kernels do not run here, and liger_kernel."""
    for name in ("triton/runtime", "liger_kernel"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("triton", "triton/runtime", "liger_kernel"):
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "triton/runtime/jit.py").write_text(KERNEL)
    (tmp_path / "triton/runtime/autotuner.py").write_text(TUNED)
    (tmp_path / "liger_kernel/transformers.py").write_text(LIGER)
    names = (*NAMES, "liger_kernel", "liger_kernel.transformers")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in names:
        sys.modules.pop(name, None)


def both(folder: Path) -> tuple[Profile, Profile]:
    """(plain, with Liger's kernels)"""
    model = config.default().model
    plain, patched = (asking.asked(folder, model, 2, liger) for liger in (False, True))
    return Profile.of(profile(plain)), Profile.of(profile(patched))


def test_what_its_kernels_keep_is_measured_by_its_own_code(packages: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "qwen3", intermediate_size=1024)
    plain, patched = both(folder)
    assert plain.trained == patched.trained and plain.parts is patched.parts is True
    # Per token: of silu(gate), its product and their gradients two of seven are left out.
    saved = plain.plain_inner.bytes_per_layer(512) - patched.plain_inner.bytes_per_layer(512)
    assert saved == pytest.approx(2 * 1024, rel=0.05)
    assert patched.checkpointed_inner.bytes_beside(512) < plain.checkpointed_inner.bytes_beside(512)
    jit = importlib.import_module("triton.runtime.jit")
    with pytest.raises(RuntimeError, match="0 active drivers"):
        jit.JITFunction()[(1,)]()
    own = transformers.models.qwen3.modeling_qwen3.Qwen3MLP
    assert own.__module__.startswith("transformers"), "nothing is left behind"


def test_a_release_that_does_not_let_itself_be_measured_is_counted_as_plain(
    packages: Path, tmp_path: Path
) -> None:
    (packages / "liger_kernel/transformers.py").write_text(
        LIGER.replace("BROKEN = False", "BROKEN = True")
    )
    plain, patched = both(folder_of(tmp_path / "model", "qwen3"))
    assert plain == patched


def test_it_is_asked_for_on_a_card_with_the_packages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "model", "qwen3")
    card = Device("card", 24_000_000_000, 24_000_000_000, True)
    for installed, device, wanted, expected in (
        (True, card, "auto", True),
        (True, card, "on", True),
        (True, card, "off", False),
        (False, card, "on", False),
    ):
        monkeypatch.setattr(asking, "liger_installed", lambda installed=installed: installed)
        estimator = asking.Estimator(None, folder, device)
        assert estimator.key(settings(liger=wanted))[2] is expected


def test_ligers_own_code_lets_itself_be_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The real package, where it is installed: its kernels need a card, what it keeps does not."""
    for name in ("triton", "liger_kernel"):
        pytest.importorskip(name)
    plain, patched = both(folder_of(tmp_path / "model", "qwen3", intermediate_size=1024))
    own = [one for one in caplog.records if one.name == "trainctl.memory"]
    assert not own, "it was counted as plain"
    assert patched.plain_inner.layer < 0.8 * plain.plain_inner.layer
    assert patched.checkpointed_inner.rest < 0.8 * plain.checkpointed_inner.rest
