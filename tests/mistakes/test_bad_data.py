"""Data sets: what cannot be read, and what would stop or spoil a run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode

from nl_detectron.data import check_records
from nl_detectron.errors import UserError

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
KEYPOINT = "quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
Refused = Callable[..., str]
Change = Callable[[dict], object]
Register = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("forget")


def of_object(**fields: object) -> Change:
    """Change fields of the second object of the JSON; None drops one."""

    def change(dataset: dict) -> None:
        object_ = dataset["annotations"][1]
        object_.update(fields)
        for field in [field for field, value in fields.items() if value is None]:
            del object_[field]

    return change


@pytest.fixture
def register(shapes_root: Path, tmp_path: Path) -> Register:
    """Register a changed copy of a data set as Detectron2's own are, unread; the folder of its images."""

    def register_changed(change: Change, kind: str = "instances") -> Path:
        source, file = shapes_root / "shapes", tmp_path / "changed.json"
        dataset = json.loads((source / "annotations" / f"{kind}_val.json").read_text())
        change(dataset)
        file.write_text(json.dumps(dataset))
        metadata = MetadataCatalog.get("shapes_val" if kind == "instances" else "keypoints_shapes_val")
        names = {key: metadata.get(key) for key in ("thing_classes", "keypoint_names", "keypoint_flip_map")}
        names = {key: value for key, value in names.items() if value}
        register_coco_instances("changed", names, str(file), str(source / "val"))
        return source / "val"

    return register_changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dataset: dataset["images"].clear(), "DATASETS.TEST 'changed' has no images."),
        (of_object(bbox=None), "bbox must be 4 finite numbers with a bbox_mode; got None. Correct it, or"),
        (of_object(bbox=[1, 2, 3]), "changed: object 1 of {images}/000000000000.jpg: bbox must be 4 finite"),
        (
            of_object(bbox=[1, 2, 3, float("nan")]),
            "4 finite numbers with a bbox_mode; got [1, 2, 3, nan]",
        ),
        (of_object(bbox=[1, 2, 3, "4"]), "must be 4 finite numbers with a bbox_mode; got [1, 2, 3, '4']"),
        (of_object(bbox=[9, 9, 9, -3]), "bbox must have sides of 0 or more; got [9, 9, 9, -3]"),
        (of_object(segmentation=[[float("nan")] * 6]), "segmentation must be polygons of 6 or more finite"),
        (of_object(segmentation=[["a"] * 6]), "segmentation must be polygons of 6 or more finite numbers"),
    ],
)
def test_annotations(change: Change, message: str, register: Register, refused: Refused) -> None:
    images = register(change)
    said = refused("--config-file", MASK, "--eval-only", "DATASETS.TEST", "('changed',)")
    assert message.format(images=images) in said


@pytest.mark.parametrize("keypoints", [[1, 2, 2] * 5, [float("nan"), 2, 2] * 17], ids=["few", "nan"])
def test_keypoints(keypoints: list, register: Register, refused: Refused) -> None:
    register(of_object(keypoints=keypoints), "person_keypoints")
    said = refused("--config-file", KEYPOINT, "--eval-only", "DATASETS.TEST", "('changed',)")
    assert "keypoints must be 51 finite numbers; got" in said


@pytest.mark.parametrize("content", ["", '{"images": ['])
def test_broken_json(content: str, refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(content)
    register_coco_instances("changed", {}, str(file), str(tmp_path))
    said = refused("--config-file", MASK, "DATASETS.TEST", "('changed',)")
    assert said.startswith(f"{file} is not a JSON file: Expecting value")


@pytest.mark.parametrize("missing", ["json", "images"])
def test_missing_files(missing: str, refused: Refused, tmp_path: Path) -> None:
    file, images = tmp_path / "a.json", tmp_path / "images"
    images.mkdir() if missing == "json" else file.write_text("{}")
    register_coco_instances("changed", {}, str(file), str(images))
    said = refused("--config-file", MASK, "DATASETS.TRAIN", "('changed',)")
    path = file if missing == "json" else images
    assert said.startswith(f"DATASETS.TRAIN 'changed' needs {path}, which does not exist.")
    assert "Set DETECTRON2_DATASETS" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shapes_trian", "'shapes_trian', which is not registered. Did you mean shapes_train"),
        ("qqq", "'qqq', which is not registered. See datasets/README.md, --register-coco."),
    ],
)
def test_names(name: str, message: str, refused: Refused) -> None:
    said = refused("--config-file", MASK, "DATASETS.TRAIN", f"('{name}',)")
    assert said.startswith(f"DATASETS.TRAIN names {message}")


def records(**fields: object) -> list[dict]:
    """Two images with two objects each, the last one of which has these fields; None drops one."""
    object_ = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0}
    object_["segmentation"] = [[10, 10, 30, 10, 30, 30]]
    last = {key: value for key, value in {**object_, **fields}.items() if value is not None}
    images = [{"file_name": f"{name}.jpg", "height": 40, "width": 60} for name in "ab"]
    return [{**images[0], "annotations": [object_, object_]}, {**images[1], "annotations": [object_, last]}]


RLE = {"size": [40, 60], "counts": "a"}
CATEGORIES = "category_id must be from 0 to 1, as in thing_classes; got"
POLYGONS = "segmentation must be polygons of 6 or more finite numbers"


@pytest.mark.parametrize(
    ("fields", "mask_format", "message"),
    [
        ({"bbox_mode": None}, None, "bbox must be 4 finite numbers with a bbox_mode"),
        ({"bbox": None}, None, "bbox must be 4 finite numbers with a bbox_mode; got None"),
        ({"bbox": 5}, None, "bbox must be 4 finite numbers with a bbox_mode; got 5"),
        ({"bbox": [9, 9, 3, 12], "bbox_mode": BoxMode.XYXY_ABS}, None, "bbox must have sides of 0 or more"),
        ({"category_id": 2}, None, f"{CATEGORIES} 2"),
        ({"category_id": -1}, None, f"{CATEGORIES} -1"),
        ({"category_id": "a"}, None, f"{CATEGORIES} 'a'"),
        ({"category_id": None}, None, f"{CATEGORIES} None"),
        ({"segmentation": [[1, 1, 2, 2]]}, None, POLYGONS),
        ({"segmentation": [[1, 1, 2, 2, 3, 3, 4]]}, None, POLYGONS),
        ({"segmentation": None}, "polygon", "segmentation must be polygons .*; got None"),
        (
            {"segmentation": RLE},
            "polygon",
            "segmentation must be polygons .or RLE, with INPUT.MASK",
        ),
        ({"segmentation": None}, "bitmask", "segmentation must be polygons or RLE; got None"),
    ],
)
def test_records(fields: dict, mask_format: str | None, message: str) -> None:
    """Of a data set that Detectron2 did not read from COCO's JSON."""
    MetadataCatalog.get("custom").set(thing_classes=["a", "b"])
    check_records("custom", records(), mask_format)
    with pytest.raises(UserError, match=f"^custom: object 1 of b.jpg: {message}") as error:
        check_records("custom", records(**fields), mask_format)
    assert "\n" not in str(error.value)


def test_other_right_records() -> None:
    """Without objects, without sizes, of RLE, and of rotated boxes, which are not looked into."""
    check_records("custom", [{"file_name": "a.jpg"}])
    without_sizes = [{**record} for record in records()]
    del without_sizes[0]["height"], without_sizes[0]["width"]
    check_records("custom", without_sizes, "polygon")
    check_records("custom", records(segmentation=RLE), "bitmask")
    check_records("custom", records(bbox=[1, 2, 3, 4, 90], bbox_mode=BoxMode.XYWHA_ABS))
