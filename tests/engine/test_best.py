"""model_best.pth, and which other checkpoints stay."""

import json
import logging
import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.utils.events import get_event_storage
from runs import MASK, arguments, load, refusal, run_here

from nl_detectron import get_cfg
from nl_detectron.checkpoint import Checkpointer, last_intact_checkpoint
from nl_detectron.engine import Trainer, main, read_run
from nl_detectron.engine.best import BestCheckpoint

STEPS = "SEED 1 SOLVER.MAX_ITER 5 SOLVER.CHECKPOINT_PERIOD 1 TEST.EVAL_PERIOD 1 TEST.LOSS_IMAGES 0".split()
BEST = ("TEST.BEST_METRIC", "bbox/AP", *STEPS)


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations with a box AP that is best after the second of five steps."""
    scores = [10.0, 30.0, math.nan, 20.0, 30.0]

    def test(cls: type[Trainer], cfg: CfgNode, model: torch.nn.Module) -> OrderedDict:
        return OrderedDict(bbox={"AP": scores[min(get_event_storage().iter, 4)]})

    monkeypatch.setattr(Trainer, "test", classmethod(test))


def assert_is_second(folder: Path) -> None:
    best = load(folder / "model_best.pth")
    assert best["best"] == {
        "metric": "bbox/AP",
        "datasets": ["shapes_val"],
        "value": 30.0,
        "iteration": 1,
    }
    expected = load(folder / "model_0000001.pth")
    assert best.keys() == {"model", "non_local", "metadata", "best"}
    assert all(value.equal(best["model"][name]) for name, value in expected["model"].items())


def test_the_weights_of_the_best_evaluation(scored: None, shapes_root: Path, tmp_path: Path) -> None:
    """The first one of equals; an AP of nan is none. The best value is among the metrics."""
    run_here(*arguments(MASK, tmp_path, *BEST))
    assert_is_second(tmp_path)
    assert read_run(tmp_path).history[5]["best/bbox/AP"] == 30.0
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    (tmp_path / "model_final.pth").unlink()
    assert last_intact_checkpoint(tmp_path) == tmp_path / "model_0000004.pth"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["in a step", "in the best evaluation"])
def test_goes_on_after_a_resume(
    moment: str, scored: None, shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a training that ends in its fourth step, after which 20 would be the best without the figure; or in
    its second evaluation, which is repeated."""
    run_step, evaluate = Trainer.run_step, Trainer.test
    monkeypatch.setattr(hooks.PeriodicWriter, "after_step", lambda hook: [w.write() for w in hook._writers])

    def lost_step(trainer: Trainer) -> None:
        if trainer.iter == 3:
            raise MemoryError
        run_step(trainer)

    def lost_evaluation(cls: type[Trainer], cfg: CfgNode, model: torch.nn.Module) -> OrderedDict:
        if get_event_storage().iter == 1:
            raise KeyboardInterrupt
        return evaluate(cfg, model)

    if moment == "in a step":
        monkeypatch.setattr(Trainer, "run_step", lost_step)
    else:
        monkeypatch.setattr(Trainer, "test", classmethod(lost_evaluation))
    with pytest.raises((MemoryError, SystemExit)):
        run_here(*arguments(MASK, tmp_path, *BEST))
    monkeypatch.setattr(Trainer, "run_step", run_step)
    monkeypatch.setattr(Trainer, "test", evaluate)
    run_here(*arguments(MASK, tmp_path, "--resume", *BEST))
    assert_is_second(tmp_path)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert metrics[-1]["best/bbox/AP"] == 30.0
    evaluated = [line["iteration"] for line in metrics if "bbox/AP" in line]
    assert [*dict.fromkeys(evaluated)] == [0, 1, 2, 3, 5]


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.TEST.BEST_METRIC, cfg.DATASETS.TEST = "segm/AP", ("a",)
    return cfg


@pytest.fixture
def checkpointer(tmp_path: Path) -> Checkpointer:
    return Checkpointer(torch.nn.Linear(1, 1), str(tmp_path))


def test_a_full_disk_leaves_the_best_one_before(
    cfg: CfgNode, checkpointer: Checkpointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = BestCheckpoint(cfg, checkpointer)
    assert best.update({"segm": {"AP": math.nan}}, 0) == {}
    assert best.update({"segm": {"AP": 1.0}}, 0) == {"segm/AP": 1.0}
    content = (tmp_path / "model_best.pth").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match="No space left"):
        best.update({"segm": {"AP": 2.0}}, 1)
    assert (tmp_path / "model_best.pth").read_bytes() == content
    assert saved(tmp_path) == ["model_best.pth"]


@pytest.mark.parametrize(("metric", "sets"), [("bbox/AP", ("a",)), ("segm/AP", ("b",))])
def test_another_metric_or_test_set_begins_anew(
    metric: str,
    sets: tuple[str, ...],
    cfg: CfgNode,
    checkpointer: Checkpointer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    results = {"segm": {"AP": 40.0}, "bbox": {"AP": 40.0}}
    BestCheckpoint(cfg, checkpointer).update({"segm": {"AP": 50.0}}, 7)
    same = BestCheckpoint(cfg, checkpointer)
    same.resume()
    assert same.update(results, 8) == {"segm/AP": 50.0}
    cfg.TEST.BEST_METRIC, cfg.DATASETS.TEST = metric, sets
    other = BestCheckpoint(cfg, checkpointer)
    other.resume()
    assert other.update(results, 8) == {metric: 40.0}
    with caplog.at_level(logging.WARNING):
        other.update({"keypoints": {"AP": 3.0}}, 10)
    assert f"TEST.BEST_METRIC {metric} is not among keypoints/AP" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("segm/AP", "TEST.EVAL_PERIOD is 0"),
        ("segm/AP TEST.EVAL_PERIOD 1 DATASETS.TEST ()", "DATASETS.TEST is (). Set that, too."),
        ("AP TEST.EVAL_PERIOD 1", "'AP' is not a metric of the evaluation. Set it to bbox/AP or segm/AP."),
        ("segm/ap TEST.EVAL_PERIOD 1", "bbox/AP or segm/AP"),
        ("bbox/AP-nothing TEST.EVAL_PERIOD 1", "bbox/AP or segm/AP"),
        ("keypoints/AP TEST.EVAL_PERIOD 1", "bbox/AP or segm/AP"),
        (
            "bbox/AP TEST.EVAL_PERIOD 1 DATASETS.TEST ('shapes_val','shapes_train')",
            "shapes_val/bbox/AP or shapes_val/segm/AP or shapes_train/",
        ),
    ],
)
def test_a_metric_that_is_not_evaluated(
    options: str, message: str, shapes_root: Path, tmp_path: Path
) -> None:
    words = [*arguments(MASK, tmp_path), "TEST.BEST_METRIC", *options.split()]
    assert message in refusal(main, words)


@pytest.mark.slow
def test_the_newest_checkpoints_stay(scored: None, shapes_root: Path, tmp_path: Path) -> None:
    """Also of those from before a resume, which may keep fewer; and what others have put there."""
    first = ("SOLVER.CHECKPOINTS_KEPT", "3", *STEPS, "SOLVER.MAX_ITER", "4")
    run_here(*arguments(MASK, tmp_path, *first))
    assert saved(tmp_path) == [*(f"model_000000{k}.pth" for k in (1, 2, 3)), "model_final.pth"]
    (tmp_path / "model_0_mine.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    run_here(*arguments(MASK, tmp_path, "--resume", "SOLVER.CHECKPOINTS_KEPT", "2", *STEPS))
    kept = ["model_0000003.pth", "model_0000004.pth"]
    assert saved(tmp_path) == [*kept, "model_0_mine.pth", "model_final.pth"]
