"""Every LazyConfig equals its YAML, and trains and evaluates to the same numbers."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.engine import DefaultTrainer, SimpleTrainer, hooks
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig
from test_configs import CONFIGS, TABLE_5, TABLE_6
from torch import nn

from nl_detectron import model_zoo

NAMES = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.py"))
QUICK = (
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x",
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_nl_head_backbone_1x",
)


def test_every_row_of_tables_5_and_6_has_one() -> None:
    assert sorted(name.removesuffix(".yaml") for name in TABLE_5 + TABLE_6) == NAMES


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_is_the_model_and_the_schedule_of_its_yaml(name: str) -> None:
    cfg, lazy = model_zoo.get_config(f"{name}.yaml"), LazyConfig.load(str(CONFIGS / f"{name}.py"))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        ours, theirs = instantiate(lazy.model), build_model(cfg)
    assert str(ours) == str(theirs)
    trained, expected = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert trained.keys() == expected.keys()
    assert all(trained[key].requires_grad == expected[key].requires_grad for key in expected)

    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert lazy.train.max_iter == cfg.SOLVER.MAX_ITER
    assert lazy.optimizer.lr == cfg.SOLVER.BASE_LR
    assert lazy.dataloader.train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert (lazy.dataloader.train.dataset.names,) == cfg.DATASETS.TRAIN
    assert (lazy.dataloader.test.dataset.names,) == cfg.DATASETS.TEST
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    multiplier = build_lr_scheduler(cfg, optimizer)._multiplier
    steps = [*range(0, 1100, 10), *range(1500, cfg.SOLVER.MAX_ITER, 1000)]
    expected = [multiplier(step / cfg.SOLVER.MAX_ITER) for step in steps]
    ours = instantiate(lazy.lr_multiplier)
    assert [ours(step / cfg.SOLVER.MAX_ITER) for step in steps] == pytest.approx(expected)


@pytest.mark.parametrize("name", QUICK)
def test_survives_being_saved(name: str, tmp_path: Path) -> None:
    """As Detectron2 saves the config of a run: a YAML, which names what it calls."""
    lazy = model_zoo.get_config(f"{name}.py")
    LazyConfig.save(lazy, str(tmp_path / "config.yaml"))
    saved = LazyConfig.load(str(tmp_path / "config.yaml"))
    with torch.device("meta"):
        assert str(instantiate(saved.model)) == str(instantiate(lazy.model))


class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        return COCOEvaluator(dataset_name)


def train_yaml(name: str, folder: Path, overrides: list[object]) -> tuple[nn.Module, Mapping]:
    """As Detectron2's tools/train_net.py does."""
    cfg = model_zoo.get_config(f"{name}.yaml")
    cfg.merge_from_list([*overrides, "OUTPUT_DIR", str(folder)])
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.train()
    return trainer.model, trainer.test(cfg, trainer.model)


def train_lazy(name: str, changes: dict[str, object]) -> tuple[nn.Module, Mapping]:
    """As Detectron2's tools/lazyconfig_train_net.py does."""
    cfg: DictConfig = model_zoo.get_config(f"{name}.py")
    cfg = LazyConfig.apply_overrides(cfg, [f"{key}={value}" for key, value in changes.items()])
    seed_all_rng(cfg.train.seed)
    model = instantiate(cfg.model).train()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    trainer.register_hooks([hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier))])
    trainer.train(0, cfg.train.max_iter)
    loader, evaluator = instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    return model, inference_on_dataset(model, loader, evaluator)


YAML = (
    "MODEL.DEVICE cpu MODEL.WEIGHTS '' MODEL.RESNETS.NORM BN INPUT.MIN_SIZE_TRAIN (64,) "
    "INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 DATALOADER.NUM_WORKERS 0 "
    "SOLVER.BASE_LR 0.01 SOLVER.WARMUP_ITERS 1 SOLVER.STEPS () "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 32 TEST.DETECTIONS_PER_IMAGE 5 SEED 1"
).split()
LAZY = {
    "model.backbone.bottom_up.stages.norm": "BN",
    "model.backbone.bottom_up.stem.norm": "BN",
    "model.roi_heads.batch_size_per_image": 32,
    "model.roi_heads.box_predictor.test_topk_per_image": 5,
    "dataloader.train.mapper.augmentations.0.short_edge_length": "[64]",
    "dataloader.test.mapper.augmentations.0.short_edge_length": "64",
    "dataloader.train.total_batch_size": 2,
    "dataloader.train.num_workers": 0,
    "dataloader.test.num_workers": 0,
    "train.max_iter": 2,
    "train.seed": 1,
    "optimizer.lr": 0.01,
    "lr_multiplier.warmup_length": 0.5,  # of the two steps
}


@pytest.mark.slow
def test_trains_and_evaluates_to_the_numbers_of_its_yaml(shapes_root: Path, tmp_path: Path) -> None:
    """A keypoint model, which has blocks in its head and in its backbone."""
    name, data = QUICK[1], "keypoints_shapes"
    overrides = f"DATASETS.TRAIN ('{data}_train',) DATASETS.TEST ('{data}_val',)".split()
    changes = {"dataloader.train.dataset.names": f"{data}_train"}
    changes["dataloader.test.dataset.names"] = f"{data}_val"
    overrides += ["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [64] * 8]  # narrower than stock, for speed
    changes["model.roi_heads.keypoint_head.conv_dims"] = [64] * 8
    expected_model, expected = train_yaml(name, tmp_path, [*YAML, *overrides])
    model, results = train_lazy(name, LAZY | changes)

    state, expected_state = model.state_dict(), expected_model.state_dict()
    assert state.keys() == expected_state.keys()
    assert all(state[key].equal(expected_state[key]) for key in expected_state)
    assert str(results) == str(expected)  # a nan equals no nan
