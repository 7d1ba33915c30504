"""Preparing a file (read, render, tokenize, mask, pack) against TRL's preparation of the same rows.

`python -m benchmarks.bench_prepare [--rows N] [--rounds N]`. Every run is a process of its own,
ours and TRL's in turn, each on the same JSONL file, tokenizer and template (with generation
markers, which TRL needs). The clock runs from the file on disk to packed rows on disk and does
not count imports; memory is the peak of the whole process. Both use their defaults. `again` is a
second start: what was prepared is found, and every byte of file and folder read.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Row, at_least, at_most, figure
from engine.prepare import packing

ROWS = 20_000
BYTES_A_ROW = 4250
MAX_LENGTH = 2048
TARGET_RATIO = 3.0
TARGET_MB = 1000.0
TARGET_AGAIN = 1.0
TARGET_FILL = 0.98

TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


class _Prose:
    """Made-up prose: words of a few syllables with a long-tailed frequency, some numbers."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        ends = ["", "n", "r", "s"]
        syllables = [a + b + c for a in "bcdfglmnprst" for b in "aeiou" for c in ends]
        count = 12_000
        self.words = [
            "".join(self.rng.choices(syllables, k=self.rng.choice((1, 2, 2, 3, 3, 4))))
            for _ in range(count)
        ]
        self.weights = [0.0] * count
        total = 0.0
        for index in range(count):
            total += 1 / (index + 8)
            self.weights[index] = total

    def text(self, characters: int) -> str:
        words = self.rng.choices(
            self.words, cum_weights=self.weights, k=max(3, characters * 10 // 77)
        )
        for index in range(0, len(words), 11):
            words[index] = f"{words[index].capitalize()} {self.rng.randrange(10_000)}"
            if index:
                words[index - 1] += ".\n" if index % 33 == 0 else "."
        return " ".join(words)


def make_data(folder: Path, rows: int) -> None:
    """rows.jsonl of about BYTES_A_ROW a row (two to six turns), and a model folder."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    prose = _Prose(7)
    sample: list[str] = []
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        for number in range(rows):
            turns = prose.rng.choice((2, 2, 2, 4, 6))
            share = int(BYTES_A_ROW * prose.rng.uniform(0.55, 1.45) * 0.9 / turns)
            messages = [{"role": "system", "content": "Answer as the notes say."}]
            for turn in range(turns):
                size = int(share * prose.rng.uniform(0.7, 1.3))
                role = ("user", "assistant")[turn % 2]
                messages.append({"role": role, "content": prose.text(size)})
            if number < 400:
                sample.extend(message["content"] for message in messages)
            out.write(json.dumps({"messages": messages, "metadata": {"id": number}}) + "\n")
    tokenizer = Tokenizer(models.BPE())
    # The split of Qwen's tokenizers: what real runs pay for.
    split = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    model = folder / "model"
    model.mkdir()
    tokenizer.save(str(model / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 1_000_000,
    }
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    (model / "chat_template.jinja").write_text(TEMPLATE)


def child_ours(folder: Path) -> dict[str, Any]:
    """Prepare rows.jsonl as an item is prepared."""
    from engine.prepare import Prepared, PrepareSettings, prepare

    settings = PrepareSettings(
        max_length=MAX_LENGTH,
        packing=True,
        profile="none",
        system_prompt="",
        over_length="drop",
        bad_rows="reject_file",
        validation_split=0.0,
        seed=42,
    )
    with tempfile.TemporaryDirectory(dir=folder) as home:

        def prepared() -> Prepared:
            return prepare(
                folder / "rows.jsonl",
                model_folder=folder / "model",
                settings=settings,
                held_out=frozenset(),
                root=Path(home) / "store" / "prepared",
                progress=lambda done, total: None,
                cancelled=lambda: False,
            )

        start, cpu = time.perf_counter(), time.process_time()
        report = prepared().report
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        start = time.perf_counter()
        prepared()
        again = time.perf_counter() - start
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "again": again,
        "rows": report["rows"],
        "packs": report["packing"]["packs"],
        "at_least": report["packing"]["at_least"],
        "tokens": report["packing"]["tokens"],
        "trained": report["masks"]["trained_tokens"],
        "mean": report["tokens"]["mean"],
    }


def child_trl(folder: Path) -> dict[str, Any]:
    """SFTTrainer's own preparation: load, tokenize with the assistant's mask, pack."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    shape = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    model = transformers.Qwen3ForCausalLM(shape)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        args = SFTConfig(
            output_dir=work,
            report_to=[],
            use_cpu=True,
            assistant_only_loss=True,
            packing=True,
            packing_strategy="bfd",
            padding_free=True,
            max_length=MAX_LENGTH,
        )
        with (folder / "rows.jsonl").open() as file:
            first = json.loads(file.readline())
        few = datasets.Dataset.from_list([{"messages": first["messages"]}] * 2)
        trainer = SFTTrainer(model=model, args=args, train_dataset=few, processing_class=tokenizer)
        start, cpu = time.perf_counter(), time.process_time()
        rows = datasets.load_dataset(
            "json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=work
        )
        packed = trainer._prepare_dataset(rows, tokenizer, args, True, None, "train")
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        tokens = sum(sum(row) for row in packed["seq_lengths"])
        labels = packed.with_format("numpy")["labels"]
        trained = sum(int((row != -100).sum()) for row in labels)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "rows": len(rows),
        "packs": len(packed),
        "tokens": tokens,
        "trained": trained,
        "mean": round(tokens / len(rows), 1),
    }


CHILDREN = {"ours": child_ours, "TRL": child_trl}


def _measure(which: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_prepare", "--child", which, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{which}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _spread(values: list[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Interleaved runs of both; the figures with their spread, printed and returned."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CHILDREN}
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as place:
        folder = Path(place)
        make_data(folder, rows)
        megabytes = (folder / "rows.jsonl").stat().st_size / 1e6
        for turn in range(rounds):
            for name in CHILDREN if turn % 2 == 0 else reversed(CHILDREN):
                result = _measure(name, folder)
                runs[name].append(result)
                print(
                    f"  {name:5} {result['seconds']:7.2f} s"
                    f"  {result['cpu_seconds']:7.2f} s of CPU  {result['memory_mb']:6.0f} MB"
                )
    ours, theirs = runs["ours"], runs["TRL"]
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
    again = [run["again"] for run in ours]
    ratio = statistics.median(ratios)
    rates = {
        name: statistics.median(run["rows"] / run["seconds"] for run in results)
        for name, results in runs.items()
    }
    print(f"\n{rows} rows, {megabytes:.0f} MB, mean {ours[0]['mean']} tokens, {rounds} rounds")
    print(
        f"{'':6}{'rows/s':>9}{'seconds':>16}{'peak MB':>9}{'packs':>8}{'tokens':>11}{'trained':>10}"
    )
    for name, results in runs.items():
        seconds = _spread([run["seconds"] for run in results])
        peak = max(run["memory_mb"] for run in results)
        last = results[-1]
        print(
            f"{name:6}{rates[name]:9.0f}{seconds:>16}{peak:9.0f}"
            f"{last['packs']:8}{last['tokens']:11}{last['trained']:10}"
        )
    print(f"ratio {ratio:.2f} ({_spread(ratios)}), target {TARGET_RATIO:g}")

    last = ours[-1]
    return {
        "name": "prepare",
        "rows": [
            figure("rows prepared", [run["rows"] / run["seconds"] for run in ours], "rows/s"),
            figure("TRL on the same rows", [r["rows"] / r["seconds"] for r in theirs], "rows/s"),
            at_least("speed against TRL", ratios, "times", TARGET_RATIO),
            figure(
                "  by CPU time", [b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs], "times"
            ),
            at_most("peak memory of the process", [r["memory_mb"] for r in ours], "MB", TARGET_MB),
            at_most("second start, from what was prepared", again, "s", TARGET_AGAIN),
            figure("packs filled", [_fill(last)], ""),
            figure("  with TRL's best fit", [_fill(theirs[-1])], ""),
            figure("  at most (Martello and Toth's bound)", [_fill(last, "at_least")], ""),
            *_reference(),
        ],
    }


def _fill(result: dict[str, Any], packs: str = "packs") -> float:
    """The share of the packs that tokens fill."""
    return float(result["tokens"] / (result[packs] * MAX_LENGTH))


def _reference() -> list[Row]:
    """Packing alone, on lengths as the reference file has them: mean 860, 95 % up to 1205, 99 % up
    to 1250, none over 1262."""
    shares, tokens = [0, 0.05, 0.5, 0.95, 0.99, 1], [458, 515, 860, 1205, 1250, 1262]
    drawn = np.random.default_rng(5).random(ROWS)
    lengths = np.interp(drawn, shares, tokens).round().astype(np.int64)
    start = time.perf_counter()
    packs = len(packing.tightest(lengths, MAX_LENGTH)[0]) - 1
    seconds = time.perf_counter() - start
    full = float(lengths.sum() / MAX_LENGTH)
    plain = len(packing.best_fit(lengths, MAX_LENGTH)[0]) - 1
    return [
        at_least(
            f"packs filled, {ROWS} rows of the reference lengths", [full / packs], "", TARGET_FILL
        ),
        figure("  best fit alone", [full / plain], ""),
        figure("  at most (the bound)", [full / packing.at_least(lengths, MAX_LENGTH)], ""),
        figure("  seconds for it", [seconds], "s"),
    ]


def run(quick: bool) -> dict[str, Any]:
    """For `python -m benchmarks`: {name, rows: [{label, value, unit, target, met}]}."""
    return measure(1000, 1) if quick else measure(ROWS, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("WHICH", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        which, folder = options.child
        result = CHILDREN[which](Path(folder))
        result["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return 0
    result = measure(options.rows, options.rounds)
    return 0 if all(row["met"] for row in result["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
