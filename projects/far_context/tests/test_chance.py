"""What guessing gives, against what can be said without COCO's evaluation."""

from pathlib import Path

import numpy as np
import pytest
from far_context import chance
from far_context.chance import average_precision, chance_table, side_of_each_point, side_of_figure
from far_context.pictures import write_pictures
from pycocotools.coco import COCO


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chance")
    write_pictures(folder, "far", train=2, val=40, size=96)
    return folder


def truth(datasets: Path, kind: str) -> COCO:
    return COCO(str(datasets / "shapes_far" / "annotations" / f"{kind}_val.json"))


def test_knowing_gives_all(datasets: Path) -> None:
    def know(_: np.random.Generator, annotation: dict) -> list[dict]:
        return [{key: annotation[key] for key in ("bbox", "category_id")}]

    assert average_precision(truth(datasets, "instances"), "bbox", know, 0) == pytest.approx(100)


def test_whole_figures_are_right_in_one_picture_of_a_pair(datasets: Path) -> None:
    """And wrong in the other, or the reverse, whatever is guessed."""
    keypoints = truth(datasets, "person_keypoints")
    for image in range(0, 40, 2):
        right = []
        for each in (image, image + 1):
            rng = np.random.default_rng(image)
            for annotation in keypoints.loadAnns(keypoints.getAnnIds(each)):
                (guess,) = side_of_figure(rng, annotation)
                right.append(guess["keypoints"] == annotation["keypoints"])
        assert sum(right) * 2 == len(right)


def test_each_point_is_at_one_of_its_places(datasets: Path) -> None:
    """In both pictures of a pair at the same one."""
    keypoints = truth(datasets, "person_keypoints")
    first, second = (keypoints.loadAnns(keypoints.getAnnIds(image)) for image in (0, 1))
    for one, other in zip(first, second, strict=True):
        places = [np.array(each["keypoints"]).reshape(-1, 3) for each in (one, other)]
        guesses = [side_of_each_point(np.random.default_rng(3), each)[0] for each in (one, other)]
        assert guesses[0]["keypoints"] == guesses[1]["keypoints"]
        guessed = np.array(guesses[0]["keypoints"]).reshape(-1, 3)
        at = [(guessed == place).all(1) for place in places]
        assert (at[0] | at[1]).all()
        assert not at[0].all()
        assert not at[1].all()


def test_table(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure is found, and half of what is found is wrong, in random order: with both categories AP is
    about a half. Less is found with one, and less of the points is right if each is guessed."""
    monkeypatch.setattr(chance, "_REPETITIONS", 4)
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in chance_table(datasets).splitlines()[2:]
    ]
    assert [row[1] for row in rows] == ["box AP", "box AP", "keypoint AP", "keypoint AP"]
    one, both, figures, points = (float(row[2].split(" ± ")[0]) for row in rows)
    assert 45 < both < 65
    assert one < both
    assert points < figures < both
