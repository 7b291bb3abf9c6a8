"""The door for COCO files: what is kept, mended and refused, and that evaluation then sees the truth."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_kinds import HEIGHT, KEPT, MENDED, WIDTH, category, each, one, plain, to_rle, write
from coco_refused import REFUSED
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools import mask as rle
from runs import registrations_forgotten

from nl_detectron.data import clean_coco_file, register_coco
from nl_detectron.data.coco_file import write_clean
from nl_detectron.errors import UserError


@pytest.mark.parametrize("kind", KEPT)
def test_right_files_are_not_touched(kind: str, tmp_path: Path) -> None:
    content = plain(tmp_path / "birds")
    KEPT[kind](content, tmp_path / "birds")
    source = write(content, tmp_path / "birds")
    file = clean_coco_file(str(source), str(tmp_path / "birds"))
    assert not str(file.findings)
    assert file.content == content
    assert write_clean(file, str(source)) == str(source)


@pytest.mark.parametrize("kind", MENDED)
def test_one_right_value(kind: str, tmp_path: Path) -> None:
    """The mended file is the plain one, but for ids, and for what the kind itself says of the object."""
    change, said, fields = MENDED[kind]
    truth = plain(tmp_path / "birds")
    content = json.loads(json.dumps(truth))
    change(content, tmp_path / "birds")
    source = write(content, tmp_path / "birds")
    before = source.read_bytes()
    file = clean_coco_file(str(source), str(tmp_path / "birds"))
    assert said in str(file.findings)
    clean = json.loads(Path(write_clean(file, str(source))).read_text())
    assert [image["id"] for image in clean["images"]] == [1, 2, 3, 4, 5, 6]
    assert [category["name"] for category in clean["categories"]] == ["bird"]
    for number, (ours, right) in enumerate(zip(clean["annotations"], truth["annotations"], strict=True)):
        if number == 3 or fields.get("segmentation") is ...:
            right |= fields
        right = {key: value for key, value in right.items() if value is not ...}
        if fields.get("segmentation") is ... and "area" not in ours.keys() & fields.keys():
            ours["area"] = right["area"]
        if "segmentation" in ours and fields.get("segmentation") is ... and number != 3:
            right["segmentation"] = ours["segmentation"]
        assert ours.keys() - {"ignore"} == right.keys()
        for key, value in right.items():
            assert ours[key] == value, key
    assert {(image["width"], image["height"]) for image in clean["images"]} == {(96, 80)}
    assert all((tmp_path / "birds" / image["file_name"]).is_file() for image in clean["images"])
    assert source.read_bytes() == before  # the user's own file stays


def test_boxes_and_areas_of_rle(tmp_path: Path) -> None:
    content = plain(tmp_path / "birds")
    each(segmentation=to_rle, bbox=..., area=...)(content, tmp_path)
    masks = [rle.decode(object_["segmentation"]) for object_ in content["annotations"]]
    source = write(content, tmp_path / "birds")
    mended = clean_coco_file(str(source), str(tmp_path / "birds")).content["annotations"]
    for object_, mask in zip(mended, masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert object_["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert object_["area"] == mask.sum()


def test_boxes_of_the_labelled_keypoints(tmp_path: Path) -> None:
    """COCO writes 0, 0 for the others."""
    content = plain(tmp_path / "birds")
    points = {"keypoints": lambda o: [*o["keypoints"][:6], 0, 0, 0], "num_keypoints": 2}
    each(**points, segmentation=..., bbox=..., area=...)(content, tmp_path / "birds")
    source = write(content, tmp_path / "birds")
    for object_ in clean_coco_file(str(source), str(tmp_path / "birds")).content["annotations"]:
        x, y = object_["keypoints"][:2]  # the beak; the left wing is 18 left of it and 22 below
        assert object_["bbox"] == [x - 18, y, 18, 22]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_one_can_mend(kind: str, tmp_path: Path) -> None:
    change, message = REFUSED[kind]
    content = plain(tmp_path / "birds")
    change(content, tmp_path / "birds")
    source = write(content, tmp_path / "birds")
    with pytest.raises(UserError, match=message) as error:
        clean_coco_file(str(source), str(tmp_path / "birds"))
    assert str(error.value).startswith(f"{source} is refused.")
    assert "\n" not in str(error.value)


def test_all_faults_together(tmp_path: Path) -> None:
    content = plain(tmp_path / "birds")
    for object_ in content["annotations"][:5]:
        object_["image_id"] = 77
    one(iscrowd="maybe", image_id=4)(content, tmp_path)
    (tmp_path / "birds" / "2.png").unlink()
    source = write(content, tmp_path / "birds")
    with pytest.raises(UserError) as error:
        clean_coco_file(str(source), str(tmp_path / "birds"))
    said = str(error.value)
    assert "image_id is not in the file (4: annotation 1 has image_id 77, annotation 2 has" in said
    assert "annotation 3 has image_id 77, ...). Add the image, or remove them." in said
    assert "iscrowd that is not 0 or 1 (1: annotation 4 of 4.png: 'maybe')" in said
    assert "Images whose file is not there (1: 2.png)" in said


def test_as_many_files_may_miss_as_skip_broken_allows(tmp_path: Path) -> None:
    source = write(plain(tmp_path / "birds"), tmp_path / "birds")
    (tmp_path / "birds" / "2.png").unlink()
    assert clean_coco_file(str(source), str(tmp_path / "birds"), may_miss=1).content["images"]
    with pytest.raises(UserError, match="--skip-broken 1"):
        clean_coco_file(str(source), str(tmp_path / "birds"))
    (tmp_path / "birds" / "2.png").write_text("<html>not found</html>")
    assert clean_coco_file(str(source), str(tmp_path / "birds"), may_miss=1).content["images"]
    with pytest.raises(
        UserError, match=r"cannot be read, .*\(1: 2.png\). Replace them, or give --skip-broken 1."
    ):
        clean_coco_file(str(source), str(tmp_path / "birds"))


def test_two_images_never_share_a_file_by_a_guess(tmp_path: Path) -> None:
    content = plain(tmp_path / "birds")
    content["images"][1]["file_name"] = "b/1.png"
    source = write(content, tmp_path / "birds")
    with pytest.raises(UserError, match=r"file is not there \(1: b/1.png\)"):
        clean_coco_file(str(source), str(tmp_path / "birds"))


def test_few_boxes_that_reach_out_by_far_are_corners(tmp_path: Path) -> None:
    content = plain(tmp_path / "birds")
    each(bbox=[1, 1, 90, 70], segmentation=...)(content, tmp_path)
    one(bbox=[1, 1, 99, 78])(content, tmp_path)
    assert clean_coco_file(str(write(content, tmp_path / "birds")), str(tmp_path / "birds")).content
    one(bbox=[50, 50, 60, 60])(content, tmp_path)
    with pytest.raises(UserError, match=r"look like x0, y0, x1, y1 .*1 of 6 \(1: annotation 4 of 4.png"):
        clean_coco_file(str(write(content, tmp_path / "birds")), str(tmp_path / "birds"))


def test_images_without_a_size_accuse_no_object(tmp_path: Path) -> None:
    content = plain(tmp_path / "birds")
    for entry in content["images"]:
        del entry["height"], entry["width"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        clean_coco_file(str(write(content, tmp_path / "birds")), str(tmp_path / "empty"))
    assert "Images without a size whose file cannot be read (6: " in str(error.value)
    assert "annotation" not in str(error.value)


def test_a_crowd_without_a_mask_is_its_box(tmp_path: Path) -> None:
    content = plain(tmp_path / "birds")
    one(segmentation=..., iscrowd=1, bbox=[10, 20, 30, 40])(content, tmp_path)
    source = write(content, tmp_path / "birds")
    file = clean_coco_file(str(source), str(tmp_path / "birds"))
    assert file.content["annotations"][3]["segmentation"] == [[10, 20, 40, 20, 40, 60, 10, 60]]


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for text, message in [
        ('{"images": [', "is not a JSON file: Expecting value: line 1"),
        ("[" * 100_000, "is not a JSON file: "),
        ("[]", "has no list of images"),
        ('{"images": [{}]}', "has no list of categories"),
        ('{"images": [{"id": 1, "file_name": "a"}], "categories": []}', "has no list of categories"),
    ]:
        (tmp_path / "birds.json").write_text(text)
        with pytest.raises(UserError, match=message):
            clean_coco_file(str(tmp_path / "birds.json"), str(tmp_path / "images"))


@pytest.mark.parametrize("encode", [gzip.compress, lambda data: data.decode().encode("utf-16")])
def test_other_encodings(encode: Callable[[bytes], bytes], tmp_path: Path) -> None:
    source = write(plain(tmp_path / "birds"), tmp_path / "birds")
    source.write_bytes(encode(source.read_bytes()))
    with pytest.raises(UserError, match=r"is not a JSON file: .*Save it as UTF-8, not compressed\.$"):
        clean_coco_file(str(source), str(tmp_path / "birds"))


def test_names_that_are_numbers(tmp_path: Path) -> None:
    """As classes of digits are."""
    content = plain(tmp_path / "birds")
    category(name=7)(content, tmp_path)
    file = clean_coco_file(str(write(content, tmp_path / "birds")), str(tmp_path / "birds"))
    assert file.content["categories"][0]["name"] == "7"
    assert "name of categories that is a number: now text" in str(file.findings)


@pytest.mark.parametrize("has_objects", [True, False])
def test_roots(has_objects: bool, tmp_path: Path) -> None:
    """Roboflow's stands above all others and has none above; in a split without objects, too."""
    for others, kept in [
        ([("birds", "none"), ("bird", "birds"), ("cat", "birds")], ["bird", "cat"]),
        ([("bird", "none"), ("bird", "bird")], ["bird"]),
        ([("cat", "bird"), ("bird", "bird")], ["cat", "bird"]),  # one of two birds
    ]:
        content = plain(tmp_path / "birds", keypoints=False)
        names = [{"id": k, "name": name, "supercategory": above} for k, (name, above) in enumerate(others)]
        content["categories"] = names
        each(category_id=names[0]["id"] if others[0][1] == "bird" else 1)(content, tmp_path)
        if not has_objects:
            del content["annotations"]
        file = clean_coco_file(str(write(content, tmp_path / "birds")), str(tmp_path / "birds"))
        assert [category["name"] for category in file.content["categories"]] == kept


def test_a_byte_order_mark(tmp_path: Path) -> None:
    source = write(plain(tmp_path / "birds"), tmp_path / "birds")
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    file = clean_coco_file(str(source), str(tmp_path / "birds"))
    assert "a byte-order mark" in str(file.findings)
    assert json.loads(Path(write_clean(file, str(source))).read_text(encoding="utf-8")) == file.content


@pytest.mark.parametrize("kind", [*KEPT, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MENDED)])
def test_evaluation_sees_the_truth(kind: str, tmp_path: Path) -> None:
    """Through Detectron2's loader and COCO's evaluation: the objects as drawn, as detections, have AP 100."""
    truth = plain(tmp_path / "birds")
    content = json.loads(json.dumps(truth))
    (KEPT[kind] if kind in KEPT else MENDED[kind][0])(content, tmp_path / "birds")
    with registrations_forgotten():
        register_coco("changed", str(write(content, tmp_path / "birds")), str(tmp_path / "birds"))
        tasks = ["bbox"]
        tasks += ["segm"] if MetadataCatalog.get("changed").objects_without_masks == 0 else []
        tasks += ["keypoints"] if "keypoint_names" in MetadataCatalog.get("changed").as_dict() else []
        evaluator = COCOEvaluator("changed", tuple(tasks), False, kpt_oks_sigmas=[0.05] * 3)
        evaluator.reset()
        records = DatasetCatalog.get("changed")
        assert len(records) == len(truth["images"])
        for record, object_ in zip(records, truth["annotations"], strict=True):
            evaluator.process([record], [{"instances": as_detection(object_)}])
        results = evaluator.evaluate()
        if kind == "no annotations":
            assert results == {}
            return
        for task in tasks:
            assert results[task]["AP"] == pytest.approx(100), task


def as_detection(object_: dict) -> Instances:
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes([BoxMode.convert(object_["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)])
    instances.scores, instances.pred_classes = torch.ones(1), torch.zeros(1, dtype=torch.long)
    masks = rle.decode(rle.frPyObjects(object_["segmentation"], HEIGHT, WIDTH))
    instances.pred_masks = torch.tensor(masks).permute(2, 0, 1) > 0
    points = torch.tensor([object_["keypoints"]], dtype=torch.float).view(1, 3, 3)
    instances.pred_keypoints = points + torch.tensor([0.8, 0.5, 0])  # Detectron2 takes 0.5 off again
    return instances


JUNK = [
    None,
    "",
    "x",
    -1,
    0,
    1e308,
    float("nan"),
    True,
    [],
    {},
    [[]],
    ["x"],
    [None],
    {"size": [1, 1], "counts": "x"},
    10**400,
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_junk_anywhere_is_mended_or_refused(junk: object, tmp_path: Path) -> None:
    """Never another error; and what passes can be loaded and evaluated."""
    content = plain(tmp_path / "birds", 2)
    for path in [*places(content)]:
        changed = json.loads(json.dumps(content))
        entry = changed
        for step in path[:-1]:
            entry = entry[step]
        entry[path[-1]] = junk
        source = write(changed, tmp_path / "birds")
        with registrations_forgotten():
            try:
                register_coco("changed", str(source), str(tmp_path / "birds"), is_quiet=True)
            except UserError:
                continue
            records = DatasetCatalog.get("changed")
            assert len(records) == 2, path
            if MetadataCatalog.get("changed").has_truth:
                evaluator = COCOEvaluator("changed", ("bbox",), False)
                evaluator.reset()
                for record, object_ in zip(records, content["annotations"], strict=True):
                    evaluator.process([record], [{"instances": as_detection(object_)}])
                assert evaluator.evaluate()["bbox"]["AP"] > 0, path


def places(entry: object, path: tuple = ()) -> Iterator[tuple]:
    """The path to every value."""
    items = entry.items() if isinstance(entry, dict) else enumerate(entry) if isinstance(entry, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))
