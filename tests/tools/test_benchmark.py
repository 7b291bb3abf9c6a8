"""The benchmark at sizes that take no time: what it measures, prints, writes and demands."""

import sys
from pathlib import Path

import benchmark
import pytest
import torch
from benchmarking import models, operation
from benchmarking.measure import Result, measure_memory
from runs import load_config

from nl_detectron.layers import kernels

FLOAT32 = torch.empty(0)
SHAPE = (2, 12, 6, 8)
LIGHT = "MODEL.RPN.POST_NMS_TOPK_TEST 20 MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.NUM_CONV 1".split()


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """Its exit code."""
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--seconds", "0", *arguments])
    with pytest.raises(SystemExit) as end:
        benchmark.main()
    return end.value.code


def make_case(seconds: float = 1.0, largest: int = 10, positions: str = "res3") -> operation.Case:
    """A case in which the usual sequence takes a second, and our tensors may have 10 bytes."""
    ours, usual = Result(seconds, 1, largest), Result(1.0, 1, 1)
    return operation.Case("dot_product", positions, SHAPE, "matrix", True, ours, usual, budget=10)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (make_case(1.05), ""),
        (make_case(1.051), "time ratio <= 1.05 at every size; the worst is 1.051 (dot_product, res3"),
        (make_case(largest=11), "no tensor above the budget; the largest has 1.10 of it (dot_product, res3"),
    ],
)
def test_verdict(case: operation.Case, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails a requirement is named, and the exit code is 1."""
    monkeypatch.setattr(benchmark, "_run_operation", lambda *_: [make_case(0.5, 10, "res4"), case])
    code = run_tool(monkeypatch, "--output", str(tmp_path), "--parts", "operation")
    text = (tmp_path / "benchmark.md").read_text()
    assert code == text.count("NOT met: ") == (1 if message else 0)
    assert text.count("met: ") == 2
    assert not message or f"NOT met: {message}" in text


def test_a_matrix_above_the_budget_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual sequence in the place of ours, which has no matrix in either pass.

    Large enough that the fused kernel's buffers, which grow with the threads, don't count.
    """
    monkeypatch.setattr(kernels, "MATRIX_BYTES", 4 * 999 * 999)
    for ours, is_small in ((operation.our_softmax, True), (operation.usual_softmax, False)):
        monkeypatch.setitem(operation.OPERATIONS, "embedded_gaussian", (ours, operation.usual_softmax))
        cases = list(operation.run_case("embedded_gaussian", "1000", (1, 1000, 1000, 8), seconds=0))
        assert [case.kernel for case in cases] == ["fused", "fused"]
        assert [case.used <= 1 for case in cases] == [is_small, is_small]


def test_a_time_above_the_bar_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compare(runs: object, device: object, seconds: float, rounds: int = 3) -> list[Result]:
        asked.append(rounds)
        return [Result(6.0 / rounds, 1, 1), Result(1.0, 1, 1)]

    monkeypatch.setattr(operation, "compare", compare)
    cases = list(operation.run_case("dot_product", "small", SHAPE, seconds=0))
    assert [case.ratio for case in cases] == [6 / 9, 6 / 9]
    assert asked == [3, 9, 3, 9]


def test_peak_memory_counts_what_is_there_at_once() -> None:
    def run() -> None:
        for _ in range(3):
            first = torch.empty(1000, 250)
            second = torch.empty(1000, 500)
            del first, second

    assert measure_memory(run, FLOAT32.device) == (3 * 4 * 250_000, 2 * 4 * 250_000)


@pytest.mark.parametrize("function", operation.OPERATIONS)
def test_contestants_compute_the_same(function: str) -> None:
    inputs = operation.make_inputs(2, 9, 5, 4, 4, torch.empty(0, dtype=torch.float64))
    ours, usual = (call(*inputs) for call in operation.OPERATIONS[function])
    assert (ours - usual).abs().max() < 1e-12


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(operation, "SHAPES", {"small": SHAPE})
    monkeypatch.setattr(operation, "BAR", 1e9)
    output = tmp_path / "new" / "output"
    flags = ("--output", str(output), "--parts", "operation")
    assert run_tool(monkeypatch, *flags) == 0
    text = (output / "benchmark.md").read_text()
    assert text in capsys.readouterr().out
    assert ", PyTorch" in text.splitlines()[0]
    assert text.count("| 12 x 6 ") == 2 * len(operation.OPERATIONS)
    assert [path.name for path in output.iterdir()] == ["benchmark.md"]


@pytest.mark.long
@pytest.mark.slow
def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MODELS", ["R_50"])
    monkeypatch.setattr(models, "SIZE", (64, 96))
    monkeypatch.setattr(
        models.model_zoo, "get_config", lambda name: load_config("--config-file", name, *LIGHT)
    )
    assert run_tool(monkeypatch, "--output", str(tmp_path), "--parts", "models") == 0
    text = (tmp_path / "benchmark.md").read_text()
    assert [text.count(f"| R_50    | {part}") for part in ("inference", "training")] == [1, 1]
