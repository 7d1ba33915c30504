"""The base folder of an older system, as formats F1 to F13 describe it, made small.

Every layout that the importer reads, and with it what it must leave out: links that point out of
the folder, torn weights, pickles, files of other kinds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.store_world import write_safetensors

CONFIG: dict[str, Any] = {
    "model_name": "qwen3_4b",
    "model_display_name": "Qwen3 4B",
    "base_model": "Qwen3-4B-Instruct-2507",
    "current_model_dir": "current_model",
    "batch_size": 2,
    "gradient_accumulation": 16,
    "learning_rate": 2e-4,
    "warmup_steps": 100,
    "epochs": 1,
    "load_in_4bit": False,
    "log_steps": 10,
    "eval_steps": 200,
    "num_eval_samples": 4,
    "save_steps": 1000,
    "poll_interval": 30,
    "snapshot_time": "03:00",
    "max_length": 2048,
    "eval_max_tokens": 512,
    "eval_timeout_seconds": 60,
    "self_correction": {"enabled": False},
    "auto_run": {"enabled": True},
    "auto_generate": {"enabled": True, "host": "generator", "port": 8080},
    "remote_eval": {"host": "evaluator", "remote_user": "me"},
    "curriculum": {"enabled": True, "target_accuracy": 0.8},
    "retention": {"hours": 36},
    "profile": {"name": "none"},
    "hyperparams": {"fp_precision": "bf16", "max_length": 384, "batch_size": 2},
    "environment": {"deepspeed_config": None},
    "training_mode": "full",
    "optimizer": {"type": "adamw_8bit"},
    "lora": {"r": 64, "alpha": 64, "dropout": 0.02, "target_modules": ["q_proj", "v_proj"]},
    "performance_baselines": {},
    "locked": {
        "base_model": "Qwen/Qwen3-4B",
        "model_architecture": "Qwen3ForCausalLM",
        "max_context_length": 4096,
        "vocab_size": 151936,
    },
}
"""The shipped file, which contradicts itself about max_length and the base model."""


def chat(n: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"What is {n} + {n}?"},
            {"role": "assistant", "content": str(2 * n)},
        ]
    }


def rows(*numbers: int) -> str:
    return "".join(json.dumps(chat(n)) + "\n" for n in numbers)


def legacy(n: int) -> dict[str, Any]:
    """A row of the binary sets: no messages."""
    return {
        **{"id": f"bin-{n:04}", "skill": "binary", "scenario": "add-verify"},
        **{"user_prompt": f"Compute: increment({n})", "assistant_response": f"= {n + 1}"},
        **{"rubric": "the value", "tags": ["add", "easy"]},
    }


def write(path: Path, content: str | bytes | dict[str, Any] | list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


Weights = Callable[[Path, int], None]


def small_weights(folder: Path, number: int) -> None:
    """The files of a model that nobody loads; the numbers depend on `number`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = hashlib.sha256(str(number).encode()).digest() * 4
    write_safetensors(folder / "model.safetensors", {"w": ("F32", (32,), data)})
    write(folder / "config.json", {"model_type": "x", "vocab_size": 8})
    write(folder / "tokenizer.json", "{}")
    write(folder / "tokenizer_config.json", "{}")


HOSTS = {
    "version": 1,
    "warden_port": 8760,
    "local_host": "4090",
    "default_trainer": "4090",
    "default_inference": "3090",
    "hosts": {
        "4090": {"name": "trainer", "host": "localhost", "role": "trainer", "ssh_user": "me"},
        "spare.lan": {"host": "10.0.0.9", "role": "inference"},
        "3090": {
            **{"name": "second", "host": "evaluator", "role": "inference", "ssh_user": "me"},
            **{"services": {"inference": {"port": 8765}}, "models_dir": "/models"},
            "capabilities": ["generate"],
        },
        "nas": {"name": "nas", "host": "nas", "role": "storage"},
    },
}


def adapter(folder: Path, number: int) -> None:
    """A LoRA adapter that nobody loads."""
    folder.mkdir(parents=True, exist_ok=True)
    data = hashlib.sha256(f"a{number}".encode()).digest() * 4
    write_safetensors(folder / "adapter_model.safetensors", {"a": ("F32", (32,), data)})
    write(
        folder / "adapter_config.json",
        {"r": 128, "lora_alpha": 128, "target_modules": ["q_proj"], "base_model_name_or_path": "x"},
    )


def make(root: Path, weights: Weights = small_weights) -> Path:
    """The whole folder."""
    write(root / "config.json", CONFIG)
    queue(root)
    held_out(root)
    models(root, weights)
    write(root / "status" / "training_status.json", {"status": "idle", "current_step": 250})
    write(root / "curriculum_state.json", {"skills": {}})
    write(root / "hosts.json", HOSTS)
    write(root / "control" / "state.json", {})
    return root


def queue(root: Path) -> None:
    """Folders of priorities, the inbox in its two layouts, and what is in the way there."""
    queue = root / "queue"
    name = "train_binary_level2_2_20260101_000000.jsonl"
    write(queue / "normal" / "second.jsonl", rows(1, 2))
    write(queue / "normal" / name, rows(3, 4))
    write(queue / "normal" / f"{name}.meta.json", {"generator_id": "g", "generator_version": "1"})
    os.utime(queue / "normal" / name, (1_000_000, 1_000_000))  # older: it comes first
    write(queue / "high" / "urgent.jsonl", rows(5))
    write(queue / "low" / "later.jsonl", json.dumps(legacy(1)) + "\n")
    write(queue / "processing" / "begun.jsonl", rows(6))
    write(queue / "failed" / "broke.jsonl", rows(7))
    write(queue / "recently_completed" / "learnt.jsonl", rows(8))
    write(queue / "deferred_stale" / "old.jsonl", rows(9))
    write(queue / "normal" / "half.jsonl.tmp", rows(10))
    write(queue / "normal" / "notes.txt", "no rows")
    write(queue / "normal" / "same.jsonl", rows(5))  # the bytes of urgent.jsonl
    write(queue / "normal" / "garbage.jsonl", "no json\n")
    (queue / "normal" / "outside.jsonl").symlink_to("/etc/hostname")
    write(
        queue / "queue_metadata.json",
        {
            "processed": [{"file": "learnt.jsonl", "completed_at": "2026-01-01T00:00:00"}],
            "skipped": [],
            "failed": [{"file": "broke.jsonl", "attempts": 3, "last_error": "out of memory"}],
        },
    )
    inbox = root / "inbox"
    write(inbox / "dropped.jsonl", rows(11))
    write(inbox / "high" / "hot.jsonl", rows(12))
    write(inbox / "dataset_a" / "training_samples.jsonl", rows(13))
    write(inbox / "dataset_b" / "readme.md", "nothing to train")


def held_out(root: Path) -> None:
    validation = root / "data" / "validation"
    for level in (1, 2):
        problem = {"prompt": f"Compute: negate({level})", "expected": f"= {level}"}
        data = {"scenario": "negate", "tags": ["easy"]}
        write(
            validation / "bin" / f"level_{level:02}.json",
            {
                **{"level": level, "level_name": f"L{level}", "bits": level + 1},
                **{"pass_threshold": 0.8, "problems": [{**problem, "metadata": data}]},
            },
        )
    answer = {"solutions": {"1": {"word": "WINDOW", "syllables": ["WIN", "DOW"]}}}
    write(
        validation / "sy_validation.json",
        {"1": [{"prompt": "puzzle one", "expected": answer}, {"prompt": "no answer"}]},
    )
    lines = "".join(json.dumps(legacy(n)) + "\n" for n in range(50, 53))
    write(validation / "binary" / "val_binary_easy_100.jsonl", lines)
    write(validation / "chat.jsonl", rows(90, 91))
    write(validation / "notes.md", "about the sets")
    write(validation / "broken.json", "{")


def models(root: Path, weights: Weights) -> None:
    """Versions, checkpoints with their ledgers, and broken ones."""
    versions = root / "models" / "versions"
    first = versions / "v001_20260101_030000_first_try"
    weights(first, 1)
    write(
        first / "metadata.json",
        {
            **{"version_id": "v001", "created_at": "2026-01-01T03:00:00", "total_steps": 100},
            **{"description": "first try", "training_data": ["a.jsonl"], "final_loss": 0.5},
        },
    )
    write(first / "evolution_snapshots" / "step_000001.json", {})
    second = versions / "v002_20260102_030000_an_adapter"
    adapter(second / "adapter", 2)
    write(second / "metadata.json", {"version_id": "v002", "description": "an adapter"})
    (versions / "latest").symlink_to(first.name)
    torn = versions / "v003_20260103_030000_torn"
    weights(torn, 3)
    whole = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(whole[:-7])
    write(versions / "v004_20260104_030000_empty" / "metadata.json", {"version_id": "v004"})
    pickled = versions / "v005_20260105_030000_pickle"
    write(pickled / "pytorch_model.bin", b"\x80\x04")
    write(pickled / "config.json", {})
    current = root / "current_model"
    weights(current, 4)
    saved = current / "checkpoint-200-20260106-1200"
    weights(saved, 200)
    write(saved / "optimizer.pt", b"\x80\x04")
    write(
        saved / ".ledger.json",
        {
            **{"step": 200, "timestamp": "2026-01-06T12:00:00", "train_loss": 0.4},
            **{"val_loss": 0.6, "training_file": "a.jsonl", "skill_name": "binary"},
        },
    )
    listed = current / "checkpoint-150-20260105-1200"
    weights(listed, 150)
    record = {"step": 150, "canonical_name": listed.name, "train_loss": 0.6, "val_loss": 0.7}
    ledger = {"version": 1, "checkpoint_count": 1, "checkpoints": {"150": record}}
    write(root / "status" / "checkpoint_ledger.json", ledger)
    linked = current / "checkpoint-300-20260107-1200"
    linked.mkdir()
    (linked / "model.safetensors").symlink_to("/etc/hostname")
    base = root / "models" / "Qwen3-4B"
    small_weights(base, 99)


def snapshot(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """Everything in a folder: size, mode, time of writing and digest of each entry."""
    found = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = b"" if path.is_dir() or path.is_symlink() else path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        found[str(path.relative_to(root))] = (info.st_size, info.st_mode, info.st_mtime_ns, digest)
    return found
