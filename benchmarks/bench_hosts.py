"""The evaluation host: items a second, the round trip of a frame, and weights on their way.

Over a real sshd on loopback where there is one, so what a network takes is not in it.
"""

from __future__ import annotations

import importlib.util
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, at_least, at_most, figure, skipped
from benchmarks.kit import WORDS
from evaluation.host import measure, shipment, shipping
from evaluation.host.machine import Machine
from evaluation.host.session import Session
from evaluation.host.shipment import Shipment
from queue_store import places, ssh
from tests.sshd_kit import MISSING, Host, make_host

TOKENS, BATCH = 32, 32
RATE, TRIP_MS, SLOWER = 0.9, 1.0, 1.25
SIZE = 200 << 20


def machine(host: Host, folder: Path, store: str = "store") -> Machine:
    place = places.parse_host("bench", "bench", str(folder / store), str(host.config))
    return Machine("bench", place, sys.executable, threads=1)


def items(count: int) -> list[dict[str, Any]]:
    draw = random.Random(1)
    asked = [" ".join(draw.choices(WORDS, k=draw.randint(5, 30))) for _ in range(count)]
    return [
        {"id": str(n), "messages": [{"role": "user", "content": text}]}
        for n, text in enumerate(asked)
    ]


class Plain:
    """`generate` in this process, batches sorted by length as the worker's."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        torch.set_num_threads(1)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.config = GenerationConfig(
            max_new_tokens=TOKENS, do_sample=False, eos_token_id=[0, 2], pad_token_id=0
        )

    def __call__(self, asked: list[dict[str, Any]]) -> None:
        import torch

        tokenizer = self.tokenizer
        texts = [
            tokenizer.apply_chat_template(
                item["messages"], add_generation_prompt=True, tokenize=False
            )
            for item in asked
        ]
        texts.sort(key=len, reverse=True)
        for at in range(0, len(texts), BATCH):
            some = tokenizer(
                texts[at : at + BATCH], return_tensors="pt", padding=True, add_special_tokens=False
            )
            with torch.inference_mode():
                out = self.model.generate(**some, generation_config=self.config)
            tokenizer.batch_decode(out[:, some["input_ids"].shape[1] :], skip_special_tokens=True)


class Harness:
    """lm-evaluation-harness's transformers backend in this process, on the same prompts."""

    def __init__(self, plain: Plain) -> None:
        from lm_eval.models.huggingface import HFLM

        words = {"tokenizer": plain.tokenizer, "batch_size": BATCH, "device": "cpu"}
        self.model: Any = HFLM(plain.model, **words)
        self.tokenizer = plain.tokenizer

    def __call__(self, asked: list[dict[str, Any]]) -> None:
        from lm_eval.api.instance import Instance

        wanted = {"until": [], "max_gen_toks": TOKENS, "do_sample": False}
        requests = [
            Instance("generate_until", {}, (self._text(item), dict(wanted)), n)
            for n, item in enumerate(asked)
        ]
        self.model.generate_until(requests, disable_tqdm=True)

    def _text(self, item: dict[str, Any]) -> str:
        text: str = self.tokenizer.apply_chat_template(
            item["messages"], add_generation_prompt=True, tokenize=False
        )
        return text


def harness(plain: Plain) -> Harness | None:
    """None where it is not installed: pip install 'trainctl[bench]'."""
    if importlib.util.find_spec("lm_eval") is None:
        return None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return Harness(plain)


def rate(act: Callable[[], object], count: int) -> float:
    """Items a second of an act over `count` of them."""
    started = time.perf_counter()
    act()
    return count / (time.perf_counter() - started)


def generating(host: Host, folder: Path, quick: bool) -> list[Row]:
    """The worker's rate beside the plain one, the rounds in turn with nothing else between."""
    from engine.training.tiny import make_tiny

    model = folder / "tiny"
    model.mkdir()
    make_tiny(model, 1)
    packed = shipment.pack(shipment.of_folder(model, name="tiny", weights_digest="0" * 64))
    asked, rounds = items(128 if quick else 512), 3 if quick else 5
    config = {"max_tokens": TOKENS, "batch": BATCH}
    plain_generate = Plain(model)
    peer = harness(plain_generate)
    worker, plain, other = [], [], []
    with Session(machine(host, folder)) as session:
        loaded = session.load(packed)
        for _ in range(rounds + 1):
            worker.append(
                rate(lambda: session.generate(asked, config, lambda answer: None), len(asked))
            )
            plain.append(rate(lambda: plain_generate(asked), len(asked)))
            if peer is not None:
                other.append(rate(lambda: peer(asked), len(asked)))
        trips = measure.round_trips(session, 200 if quick else 1000)
        speed = [measure.throughput(session) / 1e6 for _ in range(3)]
    # The first round warms up.
    worker, plain, other = worker[1:], plain[1:], other[1:]
    return [
        figure("builtin:tiny, items/s of the worker over ssh", worker, "items/s"),
        figure("  of a plain batched generate, same items and batches", plain, "items/s"),
        at_least("  worker against plain", ratios(worker, plain), "times", RATE),
        *against(worker, other),
        figure("  loading it there, torch's import and digests with it", [loaded.seconds], "s"),
        at_most("round trip of a frame over ssh", trips, "ms", TRIP_MS),
        figure("  4 MiB there and back", speed, "MB/s"),
    ]


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def against(worker: list[float], other: list[float]) -> list[Row]:
    """The worker beside lm-evaluation-harness, where that is installed."""
    if not other:
        return [skipped("  lm-evaluation-harness", "not installed: pip install 'trainctl[bench]'")]
    return [
        figure("  of lm-evaluation-harness (HFLM), same items and batches", other, "items/s"),
        at_least("  worker against lm-evaluation-harness", ratios(worker, other), "times", RATE),
    ]


def made(folder: Path, seed: int) -> Shipment:
    """Weights of SIZE bytes that share none with those of another seed."""
    folder.mkdir()
    draw = random.Random(seed)
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(draw.randbytes(1 << 20))
    (folder / "config.json").write_text("{}")
    return shipment.pack(shipment.of_folder(folder, name=folder.name, weights_digest="0" * 64))


def sending(host: Host, folder: Path, quick: bool) -> list[Row]:
    """200 MB by `ship` beside the same by a plain rsync, each to an empty place."""
    ours, plain = [], []
    target = machine(host, folder, "ship")
    shell = ssh.rsync_shell(target.ssh())
    with Session(target) as session:
        for turn in range(2 if quick else 4):
            packed = made(folder / f"v{turn}", turn)
            started = time.perf_counter()
            shipping.ship(target, session.channel, packed)
            ours.append(time.perf_counter() - started)
            words = [
                *("rsync", "-a", "--whole-file", "-e", shell, "--"),
                *(f"{folder / f'v{turn}'}/", f"bench:{folder}/plain{turn}/"),
            ]
            started = time.perf_counter()
            subprocess.run(words, check=True)
            plain.append(time.perf_counter() - started)
    ratio = statistics.median(ours) / statistics.median(plain)
    return [
        figure("200 MB of weights to the host's store", ours, "s"),
        figure("  by a plain rsync -a --whole-file", plain, "s"),
        at_most("  against plain", [ratio], "times", SLOWER),
    ]


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    if MISSING:
        return {"rows": [skipped("hosts", f"not installed here: {', '.join(MISSING)}")]}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "sshd").mkdir()
        host = make_host(folder / "sshd", "bench")
        host.start()
        try:
            return {"rows": [*generating(host, folder, quick), *sending(host, folder, quick)]}
        finally:
            host.stop()
