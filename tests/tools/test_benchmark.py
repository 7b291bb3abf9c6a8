"""The benchmark at sizes that take no time: what it measures, prints and writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark
import pytest
import torch
from benchmarking import models, operation
from benchmarking.measure import Ceilings, ceilings, peak_memory
from detectron2.config import CfgNode

from nl_detectron import get_cfg, model_zoo

TOOL = Path(benchmark.__file__)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operation.SHAPES, "small", (2, 12, 6, 8))
    monkeypatch.setattr(benchmark, "SHAPES", {"small": operation.SHAPES["small"]})
    monkeypatch.setattr(operation, "GROWTH", (16, 64))
    monkeypatch.setattr(benchmark, "MODELS", ["R_50"])
    monkeypatch.setitem(models.MODELS, "R_50", (1, 0))
    monkeypatch.setattr(benchmark, "ceilings", lambda device, dtype: Ceilings(1e9, 1e9))
    monkeypatch.setattr(models, "HEIGHT", 64)
    monkeypatch.setattr(models, "WIDTH", 96)
    monkeypatch.setattr(models.model_zoo, "get_config", light_config)


def light_config(name: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(name))
    cfg.merge_from_list(["MODEL.RPN.POST_NMS_TOPK_TEST", 20, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16])
    cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1])
    return cfg


def test_tables_json_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--output", str(tmp_path), "--seconds", "0"])
    benchmark.main()
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "benchmark.json").read_text())
    assert results["machine"] in printed
    assert {case["function"] for case in results["operation"]} == set(operation.OPERATIONS)
    assert all(case["errors"]["ours"] < 1e-5 for case in results["operation"])
    assert set(results["growth"]) == {"embedded_gaussian", "dot_product", "concatenation"}
    (model,) = results["models"]
    assert "(once, cold)" in printed
    added = model["parameters"]["+1 NL"] - model["parameters"]["baseline"]
    assert added == 4 * 1024 * 512 + 3 * 512 + 2 * 1024  # four convolutions, three biases, a norm
    assert list(model["multiply_adds"]) == ["no detection", "100 detections"]
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.json", "benchmark.png"]


def test_peak_memory_counts_what_is_there_at_once() -> None:
    def run() -> None:
        for _ in range(3):
            first = torch.empty(1000, 250)
            second = torch.empty_like(first)
            del first, second

    assert peak_memory(run, CPU) == 2 * 4 * 250_000


def test_ceilings_are_plausible() -> None:
    limits = ceilings(CPU, torch.float32, side=256, seconds=0)
    assert 1e8 < limits.multiply_adds < 1e15
    assert 1e8 < limits.bytes < 1e14


def test_exponent_of_a_power_law() -> None:
    assert operation.exponent({n: 3.0 * n**1.5 for n in (10, 100, 1000)}) == pytest.approx(1.5)


def test_usual_sequences_are_the_equations() -> None:
    """The contestants differ in how, not in what: in float64 they agree to its rounding."""
    inputs = operation.make_inputs(operation.cost.Sizes(2, 9, 5, 4, 4), CPU, torch.float64)
    for contestants in operation.OPERATIONS.values():
        results = [call(*inputs) for call in contestants.values()]
        assert all((result - results[0]).abs().max() < 1e-12 for result in results)


def test_half_precision() -> None:
    """Its inputs are bfloat16; ours sums in float32, and is at least as close to float64 as the usual."""
    limits = Ceilings(1e9, 1e9)
    for function in operation.OPERATIONS:
        cases = list(operation.run_case(function, "small", CPU, torch.bfloat16, limits, seconds=0))
        assert [case.backward for case in cases] == [False, True]
        assert all(case.errors["ours"] <= case.errors["usual"] for case in cases)


def test_no_gpu_is_one_line() -> None:
    command = [sys.executable, str(TOOL), "--device", "cuda"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "error: --device must be cpu where there is no GPU; got 'cuda'." in result.stderr
    assert "Traceback" not in result.stderr
