"""With SEED, two runs on a CPU are the same to the bit; and the log says what there was."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from runs import KEYPOINT, MASK, ROOT, arguments, differences, finish, load, run_here, start

import nl_detectron
from nl_detectron.engine.resume import describe_code


@pytest.mark.parametrize("config", [MASK, KEYPOINT], ids=["mask", "keypoint"])
def test_two_runs_are_the_same(config: str, shapes_root: Path, tmp_path: Path) -> None:
    """One in a fresh process, the other in this one, which has drawn numbers before."""
    options = ("SEED", "7", "SOLVER.MAX_ITER", "3")
    train_net = str(ROOT / "train_net.py")
    fresh = start(shapes_root, train_net, *arguments(config, tmp_path / "one", *options))
    printed = finish(fresh)
    assert fresh.returncode == 0, printed
    torch.rand(1000)
    run_here(*arguments(config, tmp_path / "two", *options))
    one, two = (tmp_path / name for name in ("one", "two"))
    assert differences(load(one / "model_final.pth"), load(two / "model_final.pth")) == []
    results = "inference/coco_instances_results.json"
    assert (one / results).read_text() == (two / results).read_text()
    assert (one / results).stat().st_size > 1000


def test_the_log_says_what_there_was(shapes_root: Path, tmp_path: Path) -> None:
    run_here(*arguments(MASK, tmp_path, "SEED", "7", "SOLVER.MAX_ITER", "1"))
    log = re.sub("\x1b\\[[0-9;]*m", "", (tmp_path / "log.txt").read_text())  # colours
    assert f"{describe_code()}, SEED 7, 1 process" in log
    for version in (nl_detectron.__version__, torch.__version__):
        assert version in log
    assert "detectron2 " in log
    assert "SEED: 7" in log  # in the full config
    assert "Running with full config" in log


def test_the_revision_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    expected = f"git revision {revision}" if revision else "not a git checkout"
    assert describe_code().startswith(f"nl_detectron {nl_detectron.__version__} ({expected}")

    # Installed below a repository of the user's, which is not its own
    installed = tmp_path / "site-packages" / "nl_detectron" / "__init__.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(nl_detectron, "__file__", str(installed))
    assert describe_code() == f"nl_detectron {nl_detectron.__version__} (not a git checkout)"
