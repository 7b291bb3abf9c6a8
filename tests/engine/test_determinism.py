"""With SEED, two runs on a CPU are the same to the bit; and the log says what there was."""

from pathlib import Path

import pytest
import torch
from runs import KEYPOINT, ROOT, arguments, differences, finish, load, run_here, start

from nl_detectron.engine.run_record import describe_code


@pytest.mark.slow
def test_two_runs_are_the_same(shapes_root: Path, tmp_path: Path) -> None:
    """One in a fresh process, the other in this one, which has drawn numbers before."""
    options = ("SEED", "7", "SOLVER.MAX_ITER", "3")
    train_net = str(ROOT / "train_net.py")
    fresh = start(shapes_root, train_net, *arguments(KEYPOINT, tmp_path / "one", *options))
    printed = finish(fresh)
    assert fresh.returncode == 0, printed
    torch.rand(1000)
    run_here(*arguments(KEYPOINT, tmp_path / "two", *options))
    one, two = (tmp_path / name for name in ("one", "two"))
    assert differences(load(one / "model_final.pth"), load(two / "model_final.pth")) == []
    results = "inference/coco_instances_results.json"
    assert (one / results).read_text() == (two / results).read_text()
    assert (one / results).stat().st_size > 1000


def test_the_log_says_what_there_was(trained: Path) -> None:
    log = (trained / "log.txt").read_text()
    assert f"nl_detectron {describe_code().removeprefix('nl_detectron ')}, Detectron2 " in log
    for text in (torch.__version__, "Running with full config", "SEED: 1"):
        assert text in log
    assert "This model has 1 non-local block:\n  backbone.bottom_up.res4.non_local_1" in log
