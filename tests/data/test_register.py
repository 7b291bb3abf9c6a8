"""--register-coco: classes and keypoints from the JSON, and what is inferred."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_FLIP_MAP, COCO_PERSON_KEYPOINT_NAMES
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from pycocotools.cocoeval import Params

from nl_detectron.data import add_register_coco, register_coco, register_from
from nl_detectron.errors import UserError

NAME = "birds"
NAMES = ["beak", "left_wing", "right_wing", "tail"]
Register = Callable[..., object]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for name in (NAME, "others"):
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def content(**bird: object) -> dict[str, list[dict]]:
    """Two images, a cat and a bird, whose category has `bird` beside its name."""
    box = {"bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [[4, 4, 24, 4, 24, 24]]}
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 40, "width": 60} for k in (1, 2)]
    categories = [{"id": 9, "name": "cat"}, {"id": 4, "name": "bird", **bird}]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 9, **box},
        {"id": 2, "image_id": 2, "category_id": 4, **box},
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def with_keypoints(count: int = 4, **bird: object) -> dict[str, list[dict]]:
    dataset = content(**bird)
    dataset["annotations"][1] |= {"keypoints": [10, 10, 2] * count, "num_keypoints": count}
    return dataset


@pytest.fixture
def register(tmp_path: Path) -> Register:
    """Write a JSON and its images, and register them."""

    def write_and_register(dataset: object) -> object:
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        for name in ("1.jpg", "2.jpg"):
            cv2.imwrite(str(images / name), np.zeros((40, 60, 3), np.uint8))
        (tmp_path / "birds.json").write_text(json.dumps(dataset))
        register_coco(NAME, str(tmp_path / "birds.json"), str(images))
        return MetadataCatalog.get(NAME)

    return write_and_register


def test_classes_in_the_order_of_their_ids(register: Register) -> None:
    metadata = register(content())
    assert metadata.thing_classes == ["bird", "cat"]
    assert [d["annotations"][0]["category_id"] for d in DatasetCatalog.get(NAME)] == [1, 0]
    assert metadata.get("keypoint_names") is None
    assert metadata.evaluator_type == "coco"


def test_keypoints_from_the_json(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    pairs, sigmas = [["left_wing", "right_wing"]], [0.1, 0.2, 0.2, 0.3]
    bird = {"keypoints": NAMES, "skeleton": [[1, 2], [1, 3]], "flip_pairs": pairs, "sigmas": sigmas}
    metadata = register(with_keypoints(**bird))
    assert metadata.keypoint_names == NAMES
    assert metadata.keypoint_flip_map == [("left_wing", "right_wing")]
    assert metadata.keypoint_oks_sigmas == sigmas
    assert [rule[:2] for rule in metadata.keypoint_connection_rules] == [
        ("beak", "left_wing"),
        ("beak", "right_wing"),
    ]
    assert list(create_keypoint_hflip_indices([NAME])) == [0, 2, 1, 3]
    assert DatasetCatalog.get(NAME)[1]["annotations"][0]["keypoints"][:3] == [10.5, 10.5, 2]
    assert not [record for record in caplog.records if "birds: " in record.getMessage()]  # all given


def test_inferred_with_a_notice(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    metadata = register(with_keypoints(keypoints=NAMES))
    mean = np.mean(Params("keypoints").kpt_oks_sigmas)
    assert metadata.keypoint_flip_map == [("left_wing", "right_wing")]
    assert metadata.keypoint_oks_sigmas == pytest.approx([mean] * 4)
    messages = [record.getMessage() for record in caplog.records]
    assert any("a horizontal flip swaps left_wing with right_wing" in message for message in messages)
    assert any(f"their mean, {mean:.3f}, for beak, left_wing" in message for message in messages)


def test_cocos_keypoints_get_cocos_sigmas_and_flips(register: Register) -> None:
    metadata = register(with_keypoints(17, keypoints=list(COCO_PERSON_KEYPOINT_NAMES)))
    assert metadata.keypoint_oks_sigmas == Params("keypoints").kpt_oks_sigmas.tolist()
    assert set(metadata.keypoint_flip_map) == set(COCO_PERSON_KEYPOINT_FLIP_MAP)


@pytest.mark.parametrize(("count", "first"), [(17, "nose"), (5, "keypoint_1")])
def test_keypoints_without_names(
    count: int, first: str, register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = register(with_keypoints(count))
    assert (len(metadata.keypoint_names), metadata.keypoint_names[0]) == (count, first)
    assert any("do not name their keypoints" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "pair", ["l_eye r_eye", "eye_l eye_r", "LeftEye RightEye", "LEye REye", "eye.L eye.R", "LEFT RIGHT"]
)
def test_how_sides_are_called(pair: str, register: Register) -> None:
    metadata = register(with_keypoints(3, keypoints=[*pair.split(), "lip"]))
    assert metadata.keypoint_flip_map == [tuple(pair.split())]


def test_what_exporters_write_is_accepted(register: Register) -> None:
    """Null for no skeleton, and an empty list for an object without keypoints."""
    dataset = with_keypoints(keypoints=NAMES, skeleton=None)
    dataset["annotations"][0]["keypoints"] = []
    metadata = register(dataset)
    assert metadata.keypoint_connection_rules == []
    assert DatasetCatalog.get(NAME)[0]["annotations"][0]["keypoints"][2::3] == [0] * 4  # not labelled


def test_a_skeleton_that_counts_from_0(register: Register) -> None:
    metadata = register(with_keypoints(keypoints=NAMES, skeleton=[[0, 1], [0, 3]]))
    assert [rule[:2] for rule in metadata.keypoint_connection_rules] == [
        ("beak", "left_wing"),
        ("beak", "tail"),
    ]
    assert "skeleton" in metadata.mended
    assert json.loads(Path(metadata.json_file).read_text())["categories"][0]["skeleton"] == [[1, 2], [1, 4]]


def test_a_refused_file_is_not_registered(register: Register) -> None:
    dataset = content()
    dataset["annotations"][1]["category_id"] = 77
    with pytest.raises(UserError, match="^birds: .*birds.json is refused"):
        register(dataset)
    assert NAME not in DatasetCatalog.list()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="birds: IMAGE_DIR 'nowhere' is not a folder"):
        register_coco(NAME, "birds.json", "nowhere")
    with pytest.raises(UserError, match=r"birds: .*No such file or directory: 'birds.json'"):
        register_coco(NAME, "birds.json", str(tmp_path))
    (tmp_path / "broken.json").write_text('{"images": [')
    with pytest.raises(UserError, match=r"broken.json is not a JSON file: Expecting value: line 1"):
        register_coco(NAME, str(tmp_path / "broken.json"), str(tmp_path))


def test_a_name_is_taken_once(register: Register, tmp_path: Path) -> None:
    register(content())
    register(content())  # the same one
    with pytest.raises(UserError, match="^birds: another data set has this name"):
        register_coco(NAME, str(tmp_path / "birds.json"), str(tmp_path))


def test_from_the_command_line(register: Register, tmp_path: Path) -> None:
    register(content())
    files = [str(tmp_path / "birds.json"), str(tmp_path / "images")]
    parser = argparse.ArgumentParser()
    add_register_coco(parser)
    args = parser.parse_args(["--register-coco", NAME, *files, "--register-coco", "others", *files])
    register_from(args)
    assert {NAME, "others"} <= set(DatasetCatalog.list())
    assert parser.parse_args([]).register_coco == []


def test_tools_need_no_images(register: Register, tmp_path: Path) -> None:
    """They take names; those with --skip-broken read images."""
    register(content())
    (tmp_path / "images" / "2.jpg").unlink()
    data = ["others", str(tmp_path / "birds.json"), str(tmp_path / "images")]
    args = argparse.Namespace(register_coco=[data], skip_broken=0)
    with pytest.raises(UserError, match="^--register-coco others: .*or give --skip-broken 1"):
        register_from(args)
    del args.skip_broken
    register_from(args)
    assert MetadataCatalog.get("others").thing_classes == ["bird", "cat"]
