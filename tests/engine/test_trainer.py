"""What is evaluated, what a checkpoint holds, and in what order the hooks run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import hooks
from detectron2.structures import Boxes, Instances
from runs import registrations_forgotten

from nl_detectron import get_cfg
from nl_detectron.compat import complete_checkpoints
from nl_detectron.data import register_coco
from nl_detectron.engine import Trainer, evaluation_tasks


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


def test_no_detection_at_all_is_reported_for_every_task(small_cfg: CfgNode) -> None:
    small_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.1
    results = Trainer.test(small_cfg, Trainer.build_model(small_cfg))
    assert set(results) == {"bbox", "segm"}


def test_sigmas_of_a_data_set_reach_its_evaluation(
    keypoint_cfg: CfgNode, shapes_root: Path, tmp_path: Path
) -> None:
    """An OKS of 17 keypoints that only sigma decides: AP from 0 to 1 for boxes and keypoints that are off."""
    keypoint_cfg.OUTPUT_DIR = str(tmp_path)
    images, json_file = shapes_root / "shapes" / "val", "annotations/person_keypoints_val.json"
    dataset = json.loads((shapes_root / "shapes" / json_file).read_text())
    aps = []
    with registrations_forgotten():
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
        keypoint_cfg.TEST.KEYPOINT_OKS_SIGMAS = [10.0] * 17  # what the config says goes before
        assert Trainer.build_evaluator(keypoint_cfg, "strict")._kpt_oks_sigmas == [10.0] * 17
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


def test_several_test_sets_keep_their_results_apart(small_cfg: CfgNode) -> None:
    small_cfg.DATASETS.TEST = ("shapes_val", "shapes_train")
    folders = [Trainer.build_evaluator(small_cfg, name)._output_dir for name in small_cfg.DATASETS.TEST]
    assert len(set(folders)) == 2


def test_tta_runs_after_the_evaluation_and_before_the_writers(small_cfg: CfgNode) -> None:
    small_cfg.TEST.AUG.ENABLED = True
    kinds = [type(hook) for hook in Trainer(small_cfg).build_hooks()]
    assert kinds[-3:] == [hooks.EvalHook, hooks.EvalHook, hooks.PeriodicWriter]


@pytest.mark.slow
def test_precise_bn_is_detectron2s(small_cfg: CfgNode) -> None:
    """Exact statistics for the block's BN too, at the end of training."""
    small_cfg.SOLVER.MAX_ITER, small_cfg.TEST.EVAL_PERIOD, small_cfg.DATASETS.TEST = 1, 1, ()
    small_cfg.TEST.PRECISE_BN.ENABLED, small_cfg.TEST.PRECISE_BN.NUM_ITER = True, 2
    trainer = Trainer(small_cfg)
    trainer.checkpointer.save_to_disk = False
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
