"""Data sets: what cannot be read, what would stop or spoil a run, and what is dropped with a warning."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode

from nl_detectron import model_zoo
from nl_detectron.data import check_records
from nl_detectron.engine import main
from nl_detectron.errors import UserError

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
KEYPOINT = "quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
Refused = Callable[..., str]
Change = Callable[[dict], object]

pytestmark = pytest.mark.usefixtures("forget")


def of_object(**fields: object) -> Change:
    """Change fields of the second object of the JSON; None drops one."""

    def change(dataset: dict) -> None:
        object_ = dataset["annotations"][1]
        object_.update(fields)
        for field in [field for field, value in fields.items() if value is None]:
            del object_[field]

    return change


def of_image(field: str) -> Change:
    return lambda dataset: dataset["images"][0].pop(field)


def drop(section: str) -> Change:
    return lambda dataset: dataset.pop(section)


@pytest.fixture
def register(shapes_root: Path, tmp_path: Path) -> Callable[..., Path]:
    """Register a changed copy of a data set as Detectron2's own are: nothing is read; its JSON."""

    def register_changed(change: Change, kind: str = "instances") -> Path:
        source, file = shapes_root / "shapes", tmp_path / "changed.json"
        dataset = json.loads((source / "annotations" / f"{kind}_val.json").read_text())
        change(dataset)
        file.write_text(json.dumps(dataset))
        metadata = MetadataCatalog.get("shapes_val" if kind == "instances" else "keypoints_shapes_val")
        names = {key: metadata.get(key) for key in ("thing_classes", "keypoint_names", "keypoint_flip_map")}
        names = {key: value for key, value in names.items() if value}
        register_coco_instances("changed", names, str(file), str(source / "val"))
        return file

    return register_changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("images"), "must name data sets with images; 'changed' has none"),
        (drop("categories"), "cannot be read from {file}: KeyError: categories"),
        (lambda dataset: dataset["images"].clear(), "must name data sets with images; 'changed' has none"),
        (
            of_object(id=1),
            "cannot be read from {file}: AssertionError: Annotation ids in '{file}' are not unique",
        ),
        (
            of_object(category_id=99),
            "from {file}: KeyError: Encountered category_id=99 but this id does not exist",
        ),
        (of_object(category_id=None), "cannot be read from {file}: KeyError: category_id"),
        (of_object(image_id=None), "cannot be read from {file}: KeyError: image_id"),
        (of_object(ignore=1), 'from {file}: AssertionError: "ignore" in COCO json file is not supported'),
        (
            of_object(bbox=[]),
            "from {file}: ValueError: One annotation of image 0 contains empty 'bbox' value",
        ),
        (of_image("height"), "cannot be read from {file}: KeyError: height"),
        (of_image("file_name"), "cannot be read from {file}: KeyError: file_name"),
        (of_object(bbox=None), "000000000000.jpg, bbox must be 4 finite numbers; got None. Correct it, or"),
        (
            of_object(bbox=[1, 2, 3]),
            "changed: of object 1 of {images}/000000000000.jpg, bbox must be 4 finite",
        ),
        (
            of_object(bbox=[1, 2, 3, float("nan")]),
            "000000000000.jpg, bbox must be 4 finite numbers; got [1, 2, 3, nan]",
        ),
        (
            of_object(bbox=[1, 2, 3, float("inf")]),
            "000000000000.jpg, bbox must be 4 finite numbers; got [1, 2, 3, inf]",
        ),
        (
            of_object(bbox=[1, 2, 3, "4"]),
            "000000000000.jpg, bbox must be 4 finite numbers; got [1, 2, 3, '4']",
        ),
        (
            of_object(segmentation=[[float("nan")] * 6]),
            "000000000000.jpg, segmentation must be polygons, each of 6",
        ),
        (
            of_object(segmentation=[["a"] * 6]),
            "000000000000.jpg, segmentation must be polygons, each of 6 or more",
        ),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--eval-only",)], ids=["train", "evaluate"])
def test_annotations(
    change: Change,
    message: str,
    flags: tuple[str],
    register: Callable[..., Path],
    refused: Refused,
    shapes_root: Path,
) -> None:
    file = register(change)
    said = refused("--config-file", MASK, *flags, "DATASETS.TEST", "('changed',)")
    assert message.format(file=file, images=shapes_root / "shapes" / "val") in said


@pytest.mark.parametrize(
    "keypoints", [[1, 2, 2] * 5, [float("nan"), 2, 2] * 17, ["a", "b", 2] * 17], ids=["few", "nan", "text"]
)
def test_keypoints(keypoints: list, register: Callable[..., Path], refused: Refused) -> None:
    file = register(of_object(keypoints=keypoints), "person_keypoints")
    said = refused("--config-file", KEYPOINT, "--eval-only", "DATASETS.TEST", "('changed',)")
    assert (
        "keypoints must be 51 finite numbers; got" in said or f"cannot be read from {file}: TypeError" in said
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read from {file}: JSONDecodeError: Expecting value"),
        ('{"images": [', "cannot be read from {file}: JSONDecodeError: Expecting value"),
        ("[]", "cannot be read from {file}: AssertionError: annotation file format <class 'list'> not"),
        (b"\x80", "cannot be read from {file}: UnicodeDecodeError: "),
    ],
)
def test_broken_json(content: str | bytes, message: str, refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    register_coco_instances("changed", {}, str(file), str(tmp_path))
    said = refused("--config-file", MASK, "DATASETS.TEST", "('changed',)")
    assert f"DATASETS.TEST: 'changed' {message.format(file=file)}" in said


@pytest.mark.parametrize("missing", ["json", "images"])
def test_missing_files(missing: str, refused: Refused, tmp_path: Path) -> None:
    file, images = tmp_path / "a.json", tmp_path / "images"
    images.mkdir() if missing == "json" else file.write_text("{}")
    register_coco_instances("changed", {}, str(file), str(images))
    said = refused("--config-file", MASK, "DATASETS.TRAIN", "('changed',)")
    path = file if missing == "json" else images
    assert (
        f"DATASETS.TRAIN must name data sets that are there; 'changed' needs {path}, which does not" in said
    )
    assert "Set DETECTRON2_DATASETS" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "shapes_trian",
            "DATASETS.TRAIN must name registered data sets; got 'shapes_trian'. Did you mean shapes_train",
        ),
        ("qqq", "got 'qqq'. See datasets/README.md, or --register-coco."),
        ("lvis_v1_val", "Set DETECTRON2_DATASETS"),
    ],
)
def test_names(name: str, message: str, refused: Refused) -> None:
    assert message in refused("--config-file", MASK, "DATASETS.TRAIN", f"('{name}',)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda jpeg: jpeg[: len(jpeg) // 2], "{image} cannot be decoded: OSError: "),
        (lambda jpeg: b"", "{image} cannot be decoded: "),
        (lambda jpeg: b"<html>", "cannot identify image file"),
        (None, "No such file or directory"),
        (
            lambda jpeg: cv2.imencode(".jpg", np.zeros((50, 70, 3), np.uint8))[1].tobytes(),
            "got (70, 50), expect",
        ),
    ],
    ids=["truncated", "empty", "a page", "missing", "another size"],
)
@pytest.mark.parametrize("index", [0, 5])
def test_images(
    content: Callable[[bytes], bytes] | None,
    message: str,
    index: int,
    shapes_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first and the last, in a dry run."""
    shutil.copytree(shapes_root / "shapes" / "val", tmp_path / "val")
    annotations = shapes_root / "shapes" / "annotations" / "instances_val.json"
    image = tmp_path / "val" / f"{index:012d}.jpg"
    image.write_bytes(content(image.read_bytes())) if content else image.unlink()
    register_coco_instances("changed", {}, str(annotations), str(tmp_path / "val"))
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", MASK, "--eval-only", "--dry-run", "DATASETS.TEST", "('changed',)"])
    assert stopped.value.code == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert str(image) in line
    assert message.format(image=image) in line


def records(**fields: object) -> list[dict]:
    """Two images with two objects each, the last one of which has these fields; None drops one."""
    object_ = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0}
    object_["segmentation"] = [[10, 10, 30, 10, 30, 30]]
    last = {key: value for key, value in {**object_, **fields}.items() if value is not None}
    images = [{"file_name": f"{name}.jpg", "height": 40, "width": 60} for name in "ab"]
    return [{**images[0], "annotations": [object_, object_]}, {**images[1], "annotations": [object_, last]}]


RLE = {"size": [40, 60], "counts": "a"}


@pytest.mark.parametrize(
    ("fields", "mask_format", "message"),
    [
        ({"bbox_mode": None}, None, "bbox_mode must be a BoxMode; got None"),
        ({"bbox": None}, None, "bbox must be 4 finite numbers; got None"),
        (
            {"bbox": [9, 9, 9, -3]},
            None,
            r"bbox must have sides of 0 or more; got \[9, 9, 9, -3\]. Correct it",
        ),
        ({"bbox": 5}, None, "bbox must be 4 finite numbers; got 5"),
        (
            {"category_id": 2},
            None,
            "category_id must be a whole number from 0 to 1, as thing_classes has; got 2",
        ),
        (
            {"category_id": -1},
            None,
            "category_id must be a whole number from 0 to 1, as thing_classes has; got -1",
        ),
        (
            {"category_id": "a"},
            None,
            "category_id must be a whole number from 0 to 1, as thing_classes has; got 'a'",
        ),
        ({"category_id": None}, None, "category_id must be a whole number from 0 to 1, .*; got None"),
        (
            {"segmentation": [[1, 1, 2, 2]]},
            None,
            "segmentation must be polygons, each of 6 or more finite numbers",
        ),
        (
            {"segmentation": [[1, 1, 2, 2, 3, 3, 4]]},
            None,
            "segmentation must be polygons, each of 6 or more fin",
        ),
        ({"segmentation": None}, "polygon", "segmentation must be polygons .* in every object; got None"),
        (
            {"segmentation": RLE},
            "polygon",
            "segmentation must be polygons .or RLE, with INPUT.MASK_FORMAT 'bitm",
        ),
        ({"segmentation": None}, "bitmask", "segmentation must be polygons .* in every object; got None"),
    ],
)
def test_records(fields: dict, mask_format: str | None, message: str) -> None:
    """Of a data set that Detectron2 did not read from COCO's JSON."""
    MetadataCatalog.get("custom").set(thing_classes=["a", "b"])
    check_records("custom", records(), mask_format)
    with pytest.raises(UserError, match=f"^custom: of object 1 of b.jpg, {message}") as error:
        check_records("custom", records(**fields), mask_format)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file_name": ""}, "custom: every image must have a 'file_name'; image 1 has none."),
        ({"height": 0}, "custom: b.jpg must have a height and a width in pixels; got 0 and 60."),
        ({"width": "60"}, "custom: b.jpg must have a height and a width in pixels; got 40 and '60'."),
        ({"width": float("nan")}, "custom: b.jpg must have a height and a width in pixels; got 40 and nan."),
    ],
)
def test_images_of_records(fields: dict, message: str) -> None:
    images = records()
    images[1].update(fields)
    with pytest.raises(UserError, match=message):
        check_records("custom", images)


def test_other_right_records(caplog: pytest.LogCaptureFixture) -> None:
    """Without objects, without sizes, of RLE, and of rotated boxes, which are not looked into."""
    check_records("custom", [{"file_name": "a.jpg"}])
    without_sizes = [{**record} for record in records()]
    del without_sizes[0]["height"], without_sizes[0]["width"]
    check_records("custom", without_sizes, "polygon")
    check_records("custom", records(segmentation=RLE), "bitmask")
    check_records("custom", records(bbox=[1, 2, 3, 4, 90], bbox_mode=BoxMode.XYWHA_ABS))
    assert not caplog.records


@pytest.mark.parametrize(
    ("fields", "what", "kept"),
    [
        ({"bbox": [10, 10, 0, 20]}, "have boxes without area, which Detectron2 drops in training", 1),
        ({"bbox": [50, 10, 20, 20]}, "reach outside of their images, where Detectron2 clips them", 2),
        ({"bbox": [-9, 10, 20, 20]}, "reach outside of their images, where Detectron2 clips them", 2),
        (
            {"segmentation": [[10, 10, 30, 10, 30, 90]]},
            "reach outside of their images, where Detectron2 clips",
            2,
        ),
    ],
)
def test_what_is_warned_of(
    fields: dict, what: str, kept: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line with a count and the first file; and what Detectron2 makes of it."""
    images = records(**fields)
    check_records("custom", images, "polygon")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"custom: 1 of 4 objects {what}")
    assert record.getMessage().endswith(": in b.jpg first")

    images[1]["file_name"] = str(tmp_path / "b.jpg")
    cv2.imwrite(images[1]["file_name"], np.zeros((40, 60, 3), np.uint8))
    cfg = model_zoo.get_config(MASK)
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.MIN_SIZE_TRAIN = "none", (0,)
    instances = DatasetMapper(cfg, is_train=True)(images[1])["instances"]
    assert len(instances) == kept
    assert (instances.gt_boxes.tensor >= 0).all()
    assert (instances.gt_boxes.tensor <= 60).all()


def test_a_warning_in_a_run(
    register: Callable[..., Path], refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    register(of_object(bbox=[1, 1, 0, 0]))
    refused("--config-file", MASK, "DATASETS.TEST", "('changed',)", "MODEL.WEIGHTS", "no.pth")
    assert "changed: 1 of" in caplog.text
    assert DatasetCatalog.get("changed")
