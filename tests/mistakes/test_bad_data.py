"""Data sets that are registered without --register-coco come through the same door."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from pycocotools import mask as rle
from runs import KEYPOINT, MASK

from nl_detectron.engine import read_dataset

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
    """Register a changed copy of a data set as Detectron2's own are, unread; its JSON."""

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
        (lambda dataset: dataset["images"].clear(), "{file} has no list of images"),
        (of_object(bbox=[1, 2, 3], segmentation=None), "{file} is refused. bbox that is no box"),
        (of_object(bbox=[9, 9, 9, -3], segmentation=None), "annotation 2 of 000000000000.jpg: [9, 9, 9, -3]"),
        (of_object(segmentation=[["a"] * 6]), "segmentation that is neither polygons nor RLE"),
        (of_object(segmentation=None), "1 objects without a mask (segmentation), as annotation 2 of"),
    ],
)
@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
def test_annotations(change: Change, message: str, key: str, register: Register, refused: Refused) -> None:
    file = register(change)
    said = refused("--config-file", MASK, f"DATASETS.{key}", "('changed',)")
    assert message.format(file=file) in said


@pytest.mark.parametrize("keypoints", [[1, 2, 2] * 5, [float("nan"), 2, 2] * 17], ids=["few", "nan"])
def test_keypoints(keypoints: list, register: Register, refused: Refused) -> None:
    register(of_object(keypoints=keypoints), "person_keypoints")
    said = refused("--config-file", KEYPOINT, "--eval-only", "DATASETS.TEST", "('changed',)")
    assert "keypoints that are not 3 finite numbers each for the 17 names (1: " in said


def test_what_is_mended_is_read(register: Register, tmp_path: Path) -> None:
    """By the loader and by the evaluation, under the same name, also if the user's own function loads it."""
    file = register(of_object(iscrowd="1", ignore=0))
    before, images = file.read_bytes(), MetadataCatalog.get("changed").image_root
    for own in (False, True):
        if own:
            DatasetCatalog.remove("changed"), MetadataCatalog.remove("changed")
            DatasetCatalog.register("changed", lambda: [{"file_name": "a.jpg", "own": True}])
            MetadataCatalog.get("changed").set(json_file=file, image_root=Path(images), evaluator_type="coco")
            MetadataCatalog.get("changed").thing_dataset_id_to_contiguous_id = {1: 0, 7: 1}
        records = read_dataset("DATASETS.TEST", "changed")
        metadata = MetadataCatalog.get("changed")
        assert metadata.json_file != str(file)
        assert json.loads(Path(metadata.json_file).read_text())["annotations"][1]["iscrowd"] == 1
        assert records == [{"file_name": "a.jpg", "own": True}] if own else len(records) > 1
        assert (metadata.thing_dataset_id_to_contiguous_id == {1: 0, 7: 1}) == own  # what the loader says
        assert "iscrowd" in metadata.mended
        assert read_dataset("DATASETS.TEST", "changed") == records  # once is enough
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("INPUT.MASK_FORMAT polygon", "has masks in RLE. Set INPUT.MASK_FORMAT to bitmask."),
        ("INPUT.MASK_FORMAT bitmask MODEL.ROI_HEADS.NUM_CLASSES 7", "NUM_CLASSES is 7, but 'changed' has 4"),
    ],
)
def test_what_the_config_cannot_learn(
    options: str, message: str, register: Register, refused: Refused
) -> None:
    def to_rle(dataset: dict) -> None:
        for image in dataset["images"]:
            size = [image["height"], image["width"]]
            for object_ in dataset["annotations"]:
                if object_["image_id"] == image["id"]:
                    mask = rle.merge(rle.frPyObjects(object_["segmentation"], *size))
                    object_["segmentation"] = {"size": size, "counts": mask["counts"].decode()}

    register(to_rle)
    said = refused("--config-file", MASK, "DATASETS.TRAIN", "('changed',)", *options.split())
    assert message in said


def test_no_objects(register: Register, refused: Refused) -> None:
    register(lambda dataset: dataset.pop("annotations"))
    said = refused("--config-file", MASK, "DATASETS.TRAIN", "('changed',)")
    assert "'changed' has no objects to learn from." in said


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
