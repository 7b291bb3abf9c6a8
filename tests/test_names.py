"""Names of classes and keypoints: where they come from, and what a training stores."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from nl_detectron_shapes import CATEGORIES

from nl_detectron.errors import UserError
from nl_detectron.names import check_names, complete_metadata, store_names, training_metadata

DATA = "named"
BONES = [("beak", "wing", (255, 128, 0))]
BIRDS = {"thing_classes": ["bird"], "keypoint_names": ("beak", "wing"), "keypoint_flip_map": ()}
BIRDS |= {"keypoint_connection_rules": BONES}


@pytest.fixture
def birds_cfg(keypoint_cfg: CfgNode) -> Iterator[CfgNode]:
    """A config for a data set of birds with two keypoints."""
    MetadataCatalog.get(DATA).set(**BIRDS)
    keypoint_cfg.DATASETS.TRAIN = keypoint_cfg.DATASETS.TEST = (DATA,)
    keypoint_cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 2
    yield keypoint_cfg
    MetadataCatalog.remove(DATA)


def save(path: Path, **content: object) -> str:
    torch.save({"model": {}, **content}, path)
    return str(path)


def names_in(cfg: CfgNode) -> tuple[list[str], list[str]]:
    metadata = complete_metadata(cfg)
    return list(metadata.thing_classes), list(metadata.keypoint_names)


def test_the_order_of_the_sources(birds_cfg: CfgNode, tmp_path: Path) -> None:
    """The config's, the checkpoint's, the data's, and numbers."""
    stored = {"thing_classes": ["gull"], "keypoint_names": ["tip", "end"]}
    stored["keypoint_connection_rules"] = [["tip", "end", [0, 0, 255]]]
    birds_cfg.MODEL.WEIGHTS = save(tmp_path / "model.pth", metadata=stored)
    birds_cfg.MODEL.CLASS_NAMES, birds_cfg.MODEL.KEYPOINT_NAMES = ["Vogel"], ["Schnabel", "Feder"]
    assert names_in(birds_cfg) == (["Vogel"], ["Schnabel", "Feder"])
    birds_cfg.MODEL.CLASS_NAMES, birds_cfg.MODEL.KEYPOINT_NAMES = [], []
    assert names_in(birds_cfg) == (["gull"], ["tip", "end"])
    assert complete_metadata(birds_cfg).keypoint_connection_rules == [["tip", "end", [0, 0, 255]]]
    birds_cfg.MODEL.WEIGHTS = ""
    assert names_in(birds_cfg) == (["bird"], ["beak", "wing"])
    assert complete_metadata(birds_cfg).keypoint_connection_rules == BONES
    birds_cfg.DATASETS.TEST = ()
    assert names_in(birds_cfg) == (["0"], ["0", "1"])


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        5,
        "a peer's",
        {"epoch": 3},
        {"thing_classes": None},
        {"thing_classes": ["a", "b"]},
        {"thing_classes": [1]},
        {"keypoint_names": 5},
        [1],
    ],
)
def test_other_checkpoints(metadata: object, birds_cfg: CfgNode, tmp_path: Path) -> None:
    """Those of peers, which may have the key for something else, and of another number of classes."""
    birds_cfg.MODEL.WEIGHTS = save(tmp_path / "model.pth", metadata=metadata)
    assert names_in(birds_cfg) == (["bird"], ["beak", "wing"])


def test_files_that_hold_no_names(birds_cfg: CfgNode, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name in ("old.pth", "list.pth", "none.pth"):
        birds_cfg.MODEL.WEIGHTS = str(tmp_path / name)
        assert names_in(birds_cfg)[0] == ["bird"]


def test_what_a_training_stores(birds_cfg: CfgNode) -> None:
    """Plain lists, which Detectron2 reads too. What the user gave stays."""
    store_names(birds_cfg)
    assert birds_cfg.MODEL.CLASS_NAMES == ["bird"]
    assert birds_cfg.MODEL.KEYPOINT_NAMES == ["beak", "wing"]
    assert training_metadata(birds_cfg) == {
        "thing_classes": ["bird"],
        "keypoint_names": ["beak", "wing"],
        "keypoint_flip_map": [],
        "keypoint_connection_rules": [["beak", "wing", [255, 128, 0]]],
    }
    birds_cfg.MODEL.KEYPOINT_NAMES = ["Schnabel", "Feder"]
    store_names(birds_cfg)
    assert birds_cfg.MODEL.KEYPOINT_NAMES == ["Schnabel", "Feder"]
    assert "keypoint_connection_rules" not in training_metadata(birds_cfg)


def test_other_names_than_the_data(birds_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    """A config.yaml of another training is told."""
    birds_cfg.MODEL.CLASS_NAMES = ["cat"]
    assert training_metadata(birds_cfg)["thing_classes"] == ["cat"]
    assert "MODEL.CLASS_NAMES has other names than named. Set it to [] to take those." in caplog.text


def test_data_without_names(mask_cfg: CfgNode) -> None:
    """Of a registration of one's own; numbers are not stored. A model without keypoints stores none."""
    for names in (("nobodys",), ()):
        mask_cfg.DATASETS.TRAIN = names
        store_names(mask_cfg)
        assert mask_cfg.MODEL.CLASS_NAMES == mask_cfg.MODEL.KEYPOINT_NAMES == []
        assert training_metadata(mask_cfg) == {}
    mask_cfg.DATASETS.TRAIN = ("keypoints_coco_2017_train",)  # with one class, not four
    store_names(mask_cfg)
    assert mask_cfg.MODEL.CLASS_NAMES == mask_cfg.MODEL.KEYPOINT_NAMES == []
    mask_cfg.DATASETS.TRAIN = ("shapes_train",)
    store_names(mask_cfg)
    assert list(CATEGORIES) == mask_cfg.MODEL.CLASS_NAMES
    assert mask_cfg.MODEL.KEYPOINT_NAMES == []
    assert "nobodys" not in DatasetCatalog.list()


def test_the_key_of_retinanet(mask_cfg: CfgNode) -> None:
    mask_cfg.MODEL.META_ARCHITECTURE, mask_cfg.MODEL.CLASS_NAMES = "RetinaNet", ["a"]
    with pytest.raises(UserError, match="1 names, but MODEL.RETINANET.NUM_CLASSES is 80"):
        check_names(mask_cfg)


def test_names_that_do_not_fit(keypoint_cfg: CfgNode) -> None:
    keypoint_cfg.MODEL.KEYPOINT_NAMES = ["a", "b"]
    message = (
        r"MODEL.KEYPOINT_NAMES has 2 names, but MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is 17. "
        r"Correct one of them, or set MODEL.KEYPOINT_NAMES to \[\] for the names of the data."
    )
    for check in (check_names, complete_metadata):
        with pytest.raises(UserError, match=message):
            check(keypoint_cfg)
    keypoint_cfg.MODEL.KEYPOINT_ON = False
    check_names(keypoint_cfg)
    keypoint_cfg.MODEL.CLASS_NAMES = [5]
    with pytest.raises(UserError, match=r"CLASS_NAMES must be a list of names in quotes; got \[5\]"):
        check_names(keypoint_cfg)
