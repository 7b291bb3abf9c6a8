"""What is evaluated, what a checkpoint holds, and in what order the hooks run."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import hooks
from detectron2.structures import Boxes, Instances

from nl_detectron import get_cfg
from nl_detectron.compat import complete_checkpoints
from nl_detectron.data import register_coco
from nl_detectron.engine import Trainer, evaluation_tasks


@pytest.fixture
def trainer(mask_cfg: CfgNode, shapes_root: Path, tmp_path: Path) -> Trainer:
    mask_cfg.OUTPUT_DIR = str(tmp_path)
    mask_cfg.SOLVER.MAX_ITER, mask_cfg.SOLVER.STEPS = 4, ()
    return Trainer(mask_cfg)


@pytest.mark.parametrize(
    ("dataset", "mask_tasks", "keypoint_tasks"),
    [
        ("shapes_val", ("bbox", "segm"), ("bbox",)),
        ("keypoints_shapes_val", ("bbox", "segm"), ("bbox", "keypoints")),
    ],
)
def test_tasks_are_those_of_model_and_data_set(
    dataset: str,
    mask_tasks: tuple[str, ...],
    keypoint_tasks: tuple[str, ...],
    mask_cfg: CfgNode,
    keypoint_cfg: CfgNode,
    shapes_root: Path,
) -> None:
    assert evaluation_tasks(mask_cfg, dataset) == mask_tasks
    assert evaluation_tasks(keypoint_cfg, dataset) == keypoint_tasks


def test_no_detection_at_all_is_reported_for_every_task(
    mask_cfg: CfgNode, shapes_root: Path, tmp_path: Path
) -> None:
    mask_cfg.OUTPUT_DIR = str(tmp_path)
    mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.1
    results = Trainer.test(mask_cfg, Trainer.build_model(mask_cfg))
    assert set(results) == {"bbox", "segm"}


def test_other_metrics_than_cocos_are_refused(mask_cfg: CfgNode) -> None:
    MetadataCatalog.get("has_other_metrics").evaluator_type = "lvis"
    with pytest.raises(ValueError, match="DATASETS.TEST must have .*'has_other_metrics'.*'lvis'"):
        Trainer.build_evaluator(mask_cfg, "has_other_metrics")


def test_sigmas_of_a_data_set_reach_its_evaluation(
    keypoint_cfg: CfgNode, shapes_root: Path, tmp_path: Path
) -> None:
    """An OKS of 17 keypoints that only sigma decides: AP from 0 to 1 for boxes and keypoints that are off."""
    keypoint_cfg.OUTPUT_DIR = str(tmp_path)
    images, json_file = shapes_root / "shapes" / "val", "annotations/person_keypoints_val.json"
    dataset = json.loads((shapes_root / "shapes" / json_file).read_text())
    aps = []
    for name, sigma in (("strict", 0.001), ("lenient", 10.0)):
        (person,) = dataset["categories"]
        person["sigmas"] = [sigma] * 17
        (tmp_path / f"{name}.json").write_text(json.dumps(dataset))
        register_coco(name, str(tmp_path / f"{name}.json"), str(images))
        evaluator = Trainer.build_evaluator(keypoint_cfg, name)
        evaluator.reset()
        for image in DatasetCatalog.get(name):
            evaluator.process([image], [{"instances": shifted_truth(image)}])
        aps.append(evaluator.evaluate()["keypoints"]["AP"])
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert aps == [0.0, 100.0]


def shifted_truth(image: dict[str, object]) -> Instances:
    """What is annotated, as detections, with all keypoints 3 pixels to the right."""
    objects = image["annotations"]
    keypoints = torch.tensor([o["keypoints"] for o in objects]).float().reshape(len(objects), 17, 3)
    boxes = torch.tensor([o["bbox"] for o in objects]).float().reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances = Instances((image["height"], image["width"]))
    instances.pred_boxes, instances.scores = Boxes(boxes), torch.ones(len(objects))
    instances.pred_classes = torch.zeros(len(objects), dtype=torch.int64)
    instances.pred_keypoints = keypoints + torch.tensor([3.0, 0.0, 0.0])
    return instances


def test_what_detectron2_cannot_build_is_one_error(mask_cfg: CfgNode) -> None:
    mask_cfg.MODEL.RESNETS.DEPTH = 51
    with pytest.raises(ValueError, match="Detectron2 cannot build this model: KeyError: 51"):
        Trainer.build_model(mask_cfg)


def test_checkpoints_hold_the_momentum(trainer: Trainer, mask_cfg: CfgNode) -> None:
    """Detectron2 0.5 by itself would start with none after a resume."""
    trainer.train()
    resumed = Trainer(mask_cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
    saved, loaded = trainer.optimizer.state_dict()["state"], resumed.optimizer.state_dict()["state"]
    assert len(saved) == len(loaded) > 50
    for index, state in saved.items():
        assert state["momentum_buffer"].equal(loaded[index]["momentum_buffer"])
        assert state["momentum_buffer"].any() or state["momentum_buffer"].numel() < 1000


def test_tta_runs_after_the_evaluation_and_before_the_writers(
    mask_cfg: CfgNode, shapes_root: Path, tmp_path: Path
) -> None:
    mask_cfg.OUTPUT_DIR = str(tmp_path)
    mask_cfg.TEST.AUG.ENABLED = True
    kinds = [type(hook) for hook in Trainer(mask_cfg).build_hooks()]
    assert kinds[-3:] == [hooks.EvalHook, hooks.EvalHook, hooks.PeriodicWriter]


def test_tta(mask_cfg: CfgNode, shapes_root: Path, tmp_path: Path) -> None:
    mask_cfg.OUTPUT_DIR = str(tmp_path)
    mask_cfg.TEST.AUG.MIN_SIZES = (64, 96)
    with torch.no_grad():
        results = Trainer.test_with_tta(mask_cfg, Trainer.build_model(mask_cfg))
    assert set(results) == {"bbox_TTA", "segm_TTA"}
    assert (tmp_path / "inference_TTA" / "coco_instances_results.json").is_file()


def test_precise_bn_is_detectron2s(mask_cfg: CfgNode, shapes_root: Path, tmp_path: Path) -> None:
    """Exact statistics for the block's BN too, at the end of training."""
    mask_cfg.OUTPUT_DIR = str(tmp_path)
    mask_cfg.SOLVER.MAX_ITER, mask_cfg.SOLVER.STEPS = 1, ()
    mask_cfg.TEST.PRECISE_BN.ENABLED, mask_cfg.TEST.PRECISE_BN.NUM_ITER = True, 2
    mask_cfg.TEST.EVAL_PERIOD = 1
    trainer = Trainer(mask_cfg)
    seen = []
    norm = trainer.model.backbone.bottom_up.res4.non_local_1.out.norm
    norm.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    trainer.train()
    assert sum(seen) == 3


def test_mixed_precision_checkpoints_hold_the_scale() -> None:
    """What only a GPU runs: a trainer of 0.5 saves neither the momentum nor the scale by itself."""
    saved = {}
    cfg = get_cfg()
    cfg.SOLVER.AMP.ENABLED = True
    trainer = SimpleNamespace(
        state_dict=dict,
        cfg=cfg,
        optimizer="optimizer",
        _trainer=SimpleNamespace(grad_scaler="scale"),
        checkpointer=SimpleNamespace(add_checkpointable=saved.__setitem__),
    )
    complete_checkpoints(trainer)
    assert saved == {"optimizer": "optimizer", "grad_scaler": "scale"}
    saved.clear()
    trainer.state_dict = lambda: {"_trainer": {}}
    complete_checkpoints(trainer)
    assert saved == {}


def test_one_process_of_a_schedule_for_two(
    mask_cfg: CfgNode, shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SOLVER.REFERENCE_WORLD_SIZE, as the README has it for one GPU: Detectron2 scales the rest."""
    caplog.set_level(logging.INFO, logger="nl_detectron")
    mask_cfg.OUTPUT_DIR = str(tmp_path)
    mask_cfg.SOLVER.REFERENCE_WORLD_SIZE, mask_cfg.SOLVER.IMS_PER_BATCH = 2, 2
    scaled, solver = Trainer(mask_cfg).cfg.SOLVER, mask_cfg.SOLVER
    assert (scaled.IMS_PER_BATCH, scaled.BASE_LR) == (1, solver.BASE_LR / 2)
    assert (scaled.MAX_ITER, scaled.STEPS[0]) == (2 * solver.MAX_ITER, 2 * solver.STEPS[0])
    assert "in training, for 1 image of" in caplog.text
