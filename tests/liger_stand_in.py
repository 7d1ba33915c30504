"""A package that patches as liger_kernel does, in plain torch: for a machine without a card.

Written after liger_kernel.transformers.monkey_patch of version 0.8.2: `_bind_method_to_module` puts
a function into a module's `__dict__`, the model's `forward` becomes a MethodType, and in the
modeling module the classes and the rotary function are exchanged; what is not known returns.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = '''
"""Stands in for liger_kernel.transformers."""
from types import MethodType
import torch

class LigerRMSNorm(torch.nn.Module):
    def forward(self, hidden):
        square = hidden.float().pow(2).mean(-1, keepdim=True)
        scaled = hidden.float() * torch.rsqrt(square + self.variance_epsilon)
        return self.weight * scaled.to(hidden.dtype)

class LigerSwiGLUMLP(torch.nn.Module):
    def forward(self, x):
        gated = torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(gated * FAULT)

def liger_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    def turned(x):
        half = x.shape[-1] // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin
    return turned(q), turned(k)

FAULT = 1.0

def lce_forward(self, input_ids=None, position_ids=None, labels=None, skip_logits=None, **kwargs):
    hidden = self.model(input_ids=input_ids, position_ids=position_ids, **{
        key: value for key, value in kwargs.items() if key in ("use_cache", "attention_mask")
    })[0]
    if skip_logits is None:
        skip_logits = self.training and labels is not None
    logits = hidden @ self.lm_head.weight.t() if skip_logits else self.lm_head(hidden)
    loss = None
    if labels is not None:
        loss = self.loss_function(
            logits=logits, labels=labels, vocab_size=self.config.vocab_size,
            num_items_in_batch=kwargs.get("num_items_in_batch"),
        )
    from transformers.modeling_outputs import CausalLMOutputWithPast
    return CausalLMOutputWithPast(loss=loss, logits=None if skip_logits else logits)

def bind(module, name, method):
    module.__dict__[name] = method.__get__(module, module.__class__)

def apply_to_qwen3(model, fused_linear_cross_entropy=True):
    from transformers.models.qwen3 import modeling_qwen3
    modeling_qwen3.apply_rotary_pos_emb = liger_rotary_pos_emb
    modeling_qwen3.Qwen3RMSNorm = LigerRMSNorm
    modeling_qwen3.Qwen3MLP = LigerSwiGLUMLP
    if fused_linear_cross_entropy:
        model.forward = MethodType(lce_forward, model)
    bind(model.model.norm, "forward", LigerRMSNorm.forward)
    for layer in model.model.layers:
        bind(layer.mlp, "forward", LigerSwiGLUMLP.forward)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            bind(norm, "forward", LigerRMSNorm.forward)

def _apply_liger_kernel_to_instance(model, **kwargs):
    if model.config.model_type == "qwen3":
        apply_to_qwen3(model, **kwargs)
'''


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the package where Python finds it, for the test; its `transformers` module."""
    package = folder / "liger_kernel"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "transformers.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    module = importlib.import_module("liger_kernel.transformers")
    # Taken out of sys.modules again when the test ends.
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    return module
