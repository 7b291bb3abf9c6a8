"""The pipelines of docs/pipelines.md: blocks in every kind of model change no key and no output."""

import re
from pathlib import Path

import detectron2.model_zoo
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from nl_detectron import NonLocalBlock, insert_non_local, insert_non_local_keypoint
from nl_detectron.config import baseline_of

MODELS = {  # Detectron2's config, and the builder of its backbone
    "retinanet": ("COCO-Detection/retinanet_R_50_FPN_1x", "build_nl_retinanet_resnet_fpn_backbone"),
    "cascade": ("Misc/cascade_mask_rcnn_R_50_FPN_1x", "build_nl_resnet_fpn_backbone"),
    "panoptic": ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", "build_nl_resnet_fpn_backbone"),
    "c4": ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x", "build_nl_resnet_backbone"),
    "mask": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "build_nl_resnet_fpn_backbone"),
    "keypoint": ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", "build_nl_resnet_fpn_backbone"),
}
LIGHT = (
    "MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.NORM BN "
    "MODEL.BACKBONE.FREEZE_AT 0 MODEL.FPN.OUT_CHANNELS 32 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 "
    "MODEL.RETINANET.SCORE_THRESH_TEST 0.0 MODEL.RPN.POST_NMS_TOPK_TEST 20 TEST.DETECTIONS_PER_IMAGE 5 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16 MODEL.ROI_BOX_HEAD.FC_DIM 32 "
    "MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.SEM_SEG_HEAD.CONVS_DIM 32"
).split()


def light(name: str) -> CfgNode:
    cfg = detectron2.model_zoo.get_config(f"{MODELS[name][0]}.yaml")
    cfg.merge_from_list([*LIGHT, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [32] * 4])
    return cfg


def image(photo: np.ndarray) -> dict[str, object]:
    """A part of a photo with all that a model may want to be told about it."""
    pixels = torch.as_tensor(photo[:96, :128].transpose(2, 0, 1).copy())
    _, height, width = pixels.shape
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 80.0, 80.0]]))
    instances.gt_classes = torch.tensor([0])
    instances.gt_masks = BitMasks(torch.ones(1, height, width, dtype=torch.bool))
    instances.gt_keypoints = Keypoints(torch.tensor([20.0, 30.0, 2.0]).repeat(1, 17, 1))
    sem_seg = torch.zeros(height, width, dtype=torch.long)
    return {"image": pixels, "instances": instances, "sem_seg": sem_seg, "height": height, "width": width}


@torch.no_grad()
def outputs(model: nn.Module, inputs: dict[str, object]) -> dict[str, Tensor]:
    """The features and all detections."""
    model.eval()
    features = model.backbone(model.preprocess_image([inputs]).tensor)
    (output,) = model([inputs])
    tensors = {name: value for name, value in output.items() if isinstance(value, Tensor)}
    fields = output["instances"].get_fields()
    detections = {key: value.tensor if isinstance(value, Boxes) else value for key, value in fields.items()}
    assert len(detections["scores"]) > 0
    return {**features, **tensors, **detections}


QUICK = ("mask", "keypoint")
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]


@pytest.mark.parametrize("name", CASES)
def test_insertion_into_a_built_model(name: str, photo: np.ndarray) -> None:
    """With its weights loaded: no key moves and no output changes, to the bit; then it trains."""
    inputs = image(photo)
    model = build_model(light(name))
    state, expected = dict(model.state_dict()), outputs(model, inputs)

    assert insert_non_local(model, {"res4": [-1]}, pairwise="dot_product") is model
    if name == "keypoint":
        insert_non_local_keypoint(model, every=2)
    blocks = [key for key, module in model.named_modules() if isinstance(module, NonLocalBlock)]
    assert len(blocks) == (3 if name == "keypoint" else 1)
    after = model.state_dict()
    assert [key for key in after if "non_local_" not in key] == list(state)
    assert all(after[key].equal(value) for key, value in state.items())
    results = outputs(model, inputs)
    assert results.keys() == expected.keys()
    assert all(results[key].equal(value) for key, value in expected.items())

    with EventStorage():
        sum(model.train()([inputs]).values()).backward()
    for block in blocks:
        assert model.get_submodule(block).out.norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", CASES)
def test_the_builder_does_what_insertion_does(name: str) -> None:
    cfg = light(name)
    inserted = insert_non_local(build_model(cfg), {"res4": [-1]})
    cfg.MODEL.BACKBONE.NAME = MODELS[name][1]
    built = build_model(cfg)
    assert str(built) == str(inserted)
    assert str(build_model(baseline_of(cfg))) == str(build_model(light(name)))


def test_every_pipeline_of_the_table_has_a_test() -> None:
    page = (Path(__file__).parents[1] / "docs" / "pipelines.md").read_text()
    words = re.findall(r'`pytest tests/test_pipelines.py -k "(\w+)"`', page)
    assert set(words) == set(MODELS) - {"mask"}
