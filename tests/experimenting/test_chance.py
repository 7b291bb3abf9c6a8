"""What guessing gives, against what can be said without COCO's evaluation."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from experimenting import chance
from experimenting.chance import average_precision, chance_table
from pycocotools.coco import COCO

from nl_detectron.data import write_shapes


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chance")
    write_shapes(folder / "shapes_far", train=2, val=40, size=96, mode="far")
    return folder


def truth(datasets: Path, kind: str) -> COCO:
    return COCO(str(datasets / "shapes_far" / "annotations" / f"{kind}_val.json"))


def test_who_knows_is_always_right(datasets: Path) -> None:
    def know(_: np.random.Generator, annotation: dict) -> Iterator[dict]:
        yield {key: annotation[key] for key in ("bbox", "category_id")}

    assert average_precision(truth(datasets, "instances"), "bbox", know, 0) == pytest.approx(100)


def test_who_is_always_wrong(datasets: Path) -> None:
    """Left is right, but where a figure is so narrow that it is nearly the same."""
    always = type("Always", (), {"random": lambda _: 0.5, "integers": lambda *_: 1})()

    def mistake(_: np.random.Generator, annotation: dict) -> Iterator[dict]:
        return chance._left_and_right(always, annotation)

    assert average_precision(truth(datasets, "person_keypoints"), "keypoints", mistake, 0) < 10


def test_both_are_right_in_every_second(datasets: Path) -> None:
    """Every object is found, and half of what is found is wrong, in random order: AP is about a half."""
    table = chance_table(datasets)
    one, both, keypoints = ([cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:])
    mean, spread = map(float, both[2].split(" ± "))
    assert both[:2] == ["both categories for each figure", "box AP"]
    assert 50 - spread < mean < 65
    assert float(one[2].split(" ± ")[0]) < mean
    assert keypoints[1] == "keypoint AP"
