"""What demo.py prints at its end. The README's commands run the whole of it, for a step."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from doc_commands import check
from far_context.evaluation import Evaluation
from far_context.matrix import PROJECT
from runs import ROOT


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """tools/demo.py has the same name."""
    spec = importlib.util.spec_from_file_location("far_context_demo", PROJECT / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(metrics: dict[str, float], *tests: str) -> SimpleNamespace:
    config = SimpleNamespace(SOLVER=SimpleNamespace(MAX_ITER=7), DATASETS=SimpleNamespace(TEST=tests))
    return SimpleNamespace(cfg=config, history={6: {}, 7: metrics})


def test_the_table(demo: ModuleType) -> None:
    tests = ("shapes_near_val", "shapes_far_val")
    scores = [{f"{name}/bbox/AP": k + 0.25, f"{name}/segm/AP": k + 1.25} for k, name in enumerate(tests, 10)]
    pair = [trained(scores[0] | scores[1], *tests), trained({f"{tests[1]}/bbox/AP": 90.0}, *tests)]
    seen = [Evaluation(right=[[1], [0]]), Evaluation(right=[[1], [1]])]
    rows = demo.table(pair, seen, trained({"keypoints/AP": 50.04}, "keypoints_shapes_val")).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[2] == ["Mask R-CNN, no block", "disc far", "11.2", "12.2", "-", "50 %"]
    assert cells[3] == ["Mask R-CNN, 1 block in res4", "disc far", "90.0", "-", "-", "100 %"]
    assert cells[4] == ["Mask R-CNN, no block", "disc near", "10.2", "11.2", "-", "-"]
    assert cells[6] == ["Keypoint R-CNN, 4 blocks in the head", "shapes", "-", "-", "50.0", "-"]


def test_the_next_commands(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run where they are printed: paths are relative to that folder, or absolute."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "python"))
    model = tmp_path / "out put" / "nl"
    model.mkdir(parents=True)
    config = PROJECT / "configs" / "mask_rcnn_R_50_FPN_nl_far.yaml"
    (model / "config.yaml").write_text(f"_BASE_: {config}\n")
    printed = demo.next_commands(tmp_path / "out put", model)
    assert printed.count("\n  .venv/bin/python tools/") == 3
    check(printed.replace(".venv/bin/python", "python"))
