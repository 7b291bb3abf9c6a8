"""The ids that tools/demo.py --json gives images and categories."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import Metadata

from nl_detectron.errors import UserError
from nl_detectron_cli.detecting.ids import name_categories, name_images, number_images

CLASSES = Metadata(thing_classes=("person", "circle", "square", "triangle"))


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ("000000000139.jpg COCO_val2014_000000000042.jpg", (139, 42)),
        ("0.png 10.png", (0, 10)),
        ("1.png 01.png", (1, 2)),
        ("7.png Größe.png", (1, 2)),
        ("a/0.png b/0.png", (1, 2)),
        ("a/0.png a/b/7.png", (0, 7)),
        (f"{2**53}.png 7.png", (1, 2)),
    ],
)
def test_images_without_truth(names: str, ids: Sequence[int]) -> None:
    """Names are relative to the folder of all of them."""
    folder, found = name_images([Path("images") / name for name in names.split()])
    assert [str(Path(folder, name)) for name in found.values()] == [
        str(Path.cwd() / "images" / name) for name in names.split()
    ]
    assert tuple(number_images(found, None).values()) == ids


def test_images_of_a_truth(tmp_path: Path) -> None:
    """The longest file name that fits."""
    listed = [
        {"id": 10 * k, "file_name": name} for k, name in enumerate(("ü.png", "a\\ü.png", "two\nlines.png"))
    ]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": listed}))
    _, found = name_images([Path(name) for name in ("x/a/ü.png", "x/b/ü.png", "x/b/two\nlines.png")])
    assert number_images(found, truth) == {"a/ü.png": 10, "b/ü.png": 0, "b/two\nlines.png": 20}


def test_categories_of_a_truth(tmp_path: Path) -> None:
    """They need not be in order."""
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"categories": [{"id": 9 - k, "name": str(k)} for k in range(4)]}))
    found = name_categories(CfgNode(), CLASSES, truth)
    assert found == [{"id": 6 + k, "name": str(3 - k)} for k in range(4)]
    truth.write_text('{"categories": [{"id": 1, "name": "a"}]}')
    with pytest.raises(
        UserError, match=r"has 1 categories, \['a'\], and the model \['person', .*the model's own.$"
    ):
        name_categories(CfgNode(), CLASSES, truth)
    truth.write_text(json.dumps({"categories": [{"id": k, "name": name} for k, name in enumerate("abc")]}))
    with pytest.raises(UserError, match=r"has 3 categories, .* and the model \['b', 'c', 'd'\]"):
        name_categories(CfgNode(), Metadata(thing_classes=["b", "c", "d"]), truth)
    for name in (None, ["a"], {}):
        truth.write_text(json.dumps({"categories": [{"id": 1, "name": name}]}))
        with pytest.raises(UserError, match="is not a COCO file: it lacks 'categories'"):
            name_categories(CfgNode(), CLASSES, truth)
    truth.write_text(json.dumps({"categories": [{"id": f"id{k}", "name": str(k)} for k in range(4)]}))
    with pytest.raises(UserError, match="has 4 categories, .* Give the model's own"):
        name_categories(CfgNode(), CLASSES, truth)


def test_categories_of_a_truth_by_name(tmp_path: Path) -> None:
    """In any order, with ids as text, with others between them (Roboflow's root)."""
    truth = tmp_path / "truth.json"
    listed = [
        {"id": f"{k}", "name": name} for k, name in enumerate(("root", *CLASSES.thing_classes[::-1]), 7)
    ]
    truth.write_text(json.dumps({"categories": listed}))
    found = name_categories(CfgNode(), CLASSES, truth)
    assert [(each["id"], each["name"]) for each in found] == [
        ("11", "person"),
        ("10", "circle"),
        ("9", "square"),
        ("8", "triangle"),
    ]


def test_categories_of_the_test_set(mask_cfg: CfgNode, shapes_root: Path) -> None:
    """Its ids are read from its file; a model with other classes counts them."""
    assert [each["id"] for each in name_categories(mask_cfg, CLASSES, None)] == [1, 2, 3, 4]
    mask_cfg.DATASETS.TEST = ("coco_2017_val",)
    names = Metadata(thing_classes=[str(k) for k in range(80)])
    assert name_categories(mask_cfg, names, None)[-1] == {"id": 90, "name": "79"}
    for test in (("coco_2017_val",), ()):
        mask_cfg.DATASETS.TEST = test
        assert [each["id"] for each in name_categories(mask_cfg, CLASSES, None)] == [0, 1, 2, 3]
