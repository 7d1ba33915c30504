"""`make bench-gpu` without a card: it says so; and each line of it runs, with a tiny shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import __main__ as bench  # noqa: E402
from benchmarks.gpu.ballast import leaving  # noqa: E402
from benchmarks.gpu.modes import CLAIMS, MODES, TINY, Case, Claim  # noqa: E402
from benchmarks.gpu.shapes import SHAPES  # noqa: E402


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([]) == 2
    said = capsys.readouterr().out
    assert "no NVIDIA card" in said and said.count("\n") == 1


def test_the_shapes_have_the_parameters_of_their_names() -> None:
    counts = {name: shape.parameters / 1e9 for name, shape in SHAPES.items() if name != "tiny"}
    assert counts["qwen3-0.6b"] == pytest.approx(0.596, abs=0.001)
    assert counts["qwen3-1.7b"] == pytest.approx(1.72, abs=0.01)
    assert counts["qwen3-4b"] == pytest.approx(4.022, abs=0.001)
    assert counts["qwen3-8b"] == pytest.approx(8.19, abs=0.01)


def test_every_claim_is_about_a_case_that_is_run() -> None:
    assert {claim.shape for claim in CLAIMS} <= {*SHAPES}
    assert {claim.mode for claim in CLAIMS} <= {*MODES}


def test_a_claim_is_judged_by_what_the_card_says() -> None:
    done = dict.fromkeys(("allocated", "reserved", "card", "predicted", "took"))
    done |= {"tokens_per_second": 1.0, "share_of_peak": 0.5, "host": 1, "card": 20_000_000_000}
    case, claim = Case("qwen3-4b", "adamw"), Claim("qwen3-4b", "adamw", 19e9, "in 19 GB")
    (row,) = [row for row in bench.rows_of_case(case, done, [claim]) if "in 19 GB" in row["label"]]
    assert not row["met"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_card_made_small_refuses_what_does_not_fit() -> None:
    free, _ = torch.cuda.mem_get_info("cuda:0")
    with leaving("cuda:0", 2_000_000_000):
        left, _ = torch.cuda.mem_get_info("cuda:0")
        assert left == pytest.approx(2e9, rel=0.02)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2_500_000_000, dtype=torch.uint8, device="cuda:0")
    assert torch.cuda.mem_get_info("cuda:0")[0] > 0.95 * free


def test_a_claim_is_run_on_a_card_of_its_size(tmp_path: Path) -> None:
    asked: list[Case] = []

    def run(case: Case, folder: Path) -> dict[str, Any]:
        asked.append(case)
        raise RuntimeError("exit code 1, see above")

    words = ["--device", "cpu", "--shape", "qwen3-4b", "--results", str(tmp_path), "--mode"]
    assert bench.main([*words, "least, paged", "in backward, paged"], run) == 1
    assert [case.cap for case in asked] == [11_000_000_000, 0]
    assert bench.main([*words, "least, paged", "in backward, paged", "--cap", "24"], run) == 1
    assert [case.cap for case in asked[2:]] == [11_000_000_000, 24_000_000_000]


def test_each_mode_and_trls_run_with_a_tiny_shape_on_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--device", "cpu", "--shape", "tiny", "--results", str(tmp_path)]
    assert bench.main(words, bench.carry_out) in (0, 1)  # a speed on a busy CPU says nothing
    (page,) = tmp_path.glob("*.json")
    report = json.loads(page.read_text())
    assert report["card"]["name"] == "no card (CPU)" and "no-card-cpu" in page.name
    ((labels, rows),) = [
        ([row["label"] for row in one["rows"]], one["rows"]) for one in report["benches"]
    ]
    for name in TINY:
        assert f"tiny, {name}: speed" in labels
    assert any("over TRL's" in label for label in labels)
    assert not [row for row in rows if "broke down" in row.get("skipped", "")]
