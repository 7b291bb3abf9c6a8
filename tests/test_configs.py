"""Every shipped YAML: that it is there, loads, builds, places its blocks, and differs from its baseline in
nothing but the non-local keys."""

from pathlib import Path

import detectron2.model_zoo
import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from omegaconf import OmegaConf

from nl_detectron import NonLocalBlock, get_cfg, model_zoo
from nl_detectron.engine import flat_pairs

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
MODELS = [name for name in NAMES if "Base-" not in name]
NON_LOCAL = [name for name in MODELS if "_nl_" in name]
KEYS = {"MODEL.BACKBONE.NAME", "MODEL.ROI_KEYPOINT_HEAD.NAME"}

TABLE_5 = [
    f"COCO-InstanceSegmentation/mask_rcnn_{backbone}_FPN{nl}_{schedule}.yaml"
    for backbone in ("R_50", "R_101", "X_152_32x8d")
    for nl in ("", "_nl")
    for schedule in ("1x", "3x")
]
TABLE_6 = [
    f"COCO-Keypoints/keypoint_rcnn_{backbone}_FPN{nl}_{schedule}.yaml"
    for backbone in ("R_50", "R_101")
    for nl in ("", "_nl_head", "_nl_head_backbone")
    for schedule in ("1x", "3x")
]
BLOCKS = {  # in how many places a block stands: backbone, head
    "_nl_head_backbone_": (1, 4),
    "_nl_head_": (0, 4),
    "_nl_5_blocks_": (5, 0),
    "_nl_10_blocks_": (10, 0),
    "_nl_": (1, 0),
    "": (0, 0),
}


def difference(cfg: CfgNode, other: CfgNode) -> set[str]:
    ours, theirs = dict(flat_pairs(cfg)), dict(flat_pairs(other))
    return {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}


def baseline_of(name: str) -> str:
    """The nearest config without blocks that `name` is based on."""
    while "_nl_" in name:
        base = yaml.safe_load((CONFIGS / name).read_text())["_BASE_"]
        name = str(((CONFIGS / name).parent / base).resolve().relative_to(CONFIGS.resolve()))
    return name


def test_the_tables_are_complete() -> None:
    assert set(TABLE_5) | set(TABLE_6) <= set(MODELS)
    rows = "gaussian embedded_gaussian dot_product concatenation res2 res3 res4 res5 1_block 5_blocks"
    rows += " 10_blocks no_subsample no_scale"
    ablations = {f"Ablations/mask_rcnn_R_50_FPN_nl_{row}_1x.yaml" for row in rows.split()}
    assert ablations <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_places_its_blocks(name: str) -> None:
    """Built on the meta device, where even X152 takes no memory."""
    cfg = model_zoo.get_config(name)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    counts = [
        sum(isinstance(module, NonLocalBlock) for module in part.modules())
        for part in (model.backbone, model.roi_heads)
    ]
    expected = next(counts for tag, counts in BLOCKS.items() if tag in name)
    assert tuple(counts) == expected
    assert model.roi_heads.keypoint_on == ("keypoint" in name)
    assert model.roi_heads.mask_on == ("mask" in name)


@pytest.mark.parametrize("name", NON_LOCAL)
def test_differs_from_its_baseline_in_the_non_local_keys_only(name: str) -> None:
    baseline = model_zoo.get_config(baseline_of(name))
    changed = difference(model_zoo.get_config(name), baseline)
    assert "MODEL.BACKBONE.NAME" in changed or "MODEL.ROI_KEYPOINT_HEAD.NAME" in changed
    assert not [key for key in changed if key not in KEYS and not key.startswith("MODEL.NON_LOCAL.")]
    assert baseline.MODEL.NON_LOCAL == get_cfg().MODEL.NON_LOCAL


@pytest.mark.parametrize("name", [name for name in TABLE_5 + TABLE_6 if "_nl" not in name])
def test_baselines_are_detectron2s(name: str) -> None:
    """As far as Detectron2 ships them; its 3x configs stand in for 1x, but for the schedule."""
    schedule = {"SOLVER.STEPS", "SOLVER.MAX_ITER"}
    ours, allowed = model_zoo.get_config(name), set()
    if "X_152" in name:
        allowed = {"MODEL.WEIGHTS", "MODEL.RESNETS.DEPTH", "MODEL.PIXEL_STD"}
        theirs = detectron2.model_zoo.get_config(
            "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x.yaml"
        )
    else:
        theirs = detectron2.model_zoo.get_config(name.replace("_1x", "_3x"))
    assert difference(ours, theirs) == allowed | (schedule if "_1x" in name else set())


def test_x152_takes_its_weights_as_detectron2_does() -> None:
    """Pixel statistics, stride and weights of Detectron2's one config with this backbone."""
    ours = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_1x.yaml")
    theirs = detectron2.model_zoo.get_config("Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv.yaml")
    for key in ("WEIGHTS", "PIXEL_MEAN", "PIXEL_STD"):
        assert ours.MODEL[key] == theirs.MODEL[key]
    assert difference(ours.MODEL.RESNETS, theirs.MODEL.RESNETS) == {"DEFORM_ON_PER_STAGE"}


@pytest.mark.parametrize("name", [name for name in MODELS if "R_18" in name or "_far" in name])
def test_light_ones_build_and_run(name: str) -> None:
    cfg = model_zoo.get_config(name)
    cfg.MODEL.DEVICE = "cpu"
    (output,) = build_model(cfg).eval()([{"image": torch.zeros(3, 96, 96, dtype=torch.uint8)}])
    assert output["instances"].image_size == (96, 96)


def test_models_come_with_the_weights_of_their_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = model_zoo.get_config("quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", str(tmp_path / "mask.pth")
    state = build_model(cfg).state_dict()
    torch.save({"model": state}, cfg.MODEL.WEIGHTS)
    monkeypatch.setattr(model_zoo, "get_config", lambda *_: cfg)
    assert model_zoo.get("any.yaml").backbone.fpn_lateral2.weight.equal(state["backbone.fpn_lateral2.weight"])
    lazy = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    train = {"device": "cpu", "init_checkpoint": str(tmp_path / "linear.pth")}
    torch.save({"model": {"weight": torch.ones(3, 2), "bias": torch.ones(3)}}, train["init_checkpoint"])
    monkeypatch.setattr(model_zoo, "get_config", lambda *_: OmegaConf.create({"model": lazy, "train": train}))
    assert model_zoo.get("any.py").weight.eq(1).all()


def test_model_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in MODELS:
        assert Path(model_zoo.get_config_file(name)).is_file()
    model = model_zoo.get("quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml", device="cpu")
    assert model.training
    with pytest.raises(RuntimeError, match="no_such.yaml not available"):
        model_zoo.get_config_file("no_such.yaml")
    with pytest.raises(RuntimeError, match="Pretrained model .* is not available"):
        model_zoo.get_config(MODELS[0], trained=True)
