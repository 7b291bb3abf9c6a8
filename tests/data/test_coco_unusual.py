"""Files that look wrong and are right: nothing of them is refused or changed."""

from pathlib import Path

import pytest
from coco_kinds import HEIGHT, WIDTH, Change, Content, each, one, plain, write
from PIL import Image

from nl_detectron.data import clean_coco_file


def rectangle(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def small(content: Content, _: Path) -> None:
    """OpenCV finds contours through the centers of pixels: they are a pixel narrower than the box."""
    sizes = [(2, 2), (3, 3), (2, 40), (1, 40), (40, 1), (6, 2)]
    for object_, (width, height) in zip(content["annotations"], sizes, strict=True):
        object_ |= {"bbox": [20, 30, width, height], "area": 0.5 * width * height}
        object_["segmentation"] = rectangle(20, 30, width - 1, height - 1)


def faces(content: Content, _: Path) -> None:
    """With the keypoints of bodies."""
    for object_ in content["annotations"]:
        x, y = object_["keypoints"][:2]
        object_ |= {"bbox": [x - 4, y - 4, 8, 8]}
        del object_["segmentation"]


WITHOUT_KEYPOINTS: dict[str, Change] = {
    "small or thin": small,
    "nearly the whole image": each(bbox=[1, 1, 91, 75], segmentation=rectangle(1, 1, 90, 74), area=6600),
    "a crowd outside": lambda c, _: (
        each(segmentation=...)(c, _),
        one(bbox=[-40, 10, 20, 20], area=300, iscrowd=1)(c, _),
    ),
    "a box at the edge": one(bbox=[WIDTH, 10, 1, 20], area=20, segmentation=...),
    "one amodal object": lambda c, _: (
        each(segmentation=...)(c, _),
        one(segmentation=rectangle(20, 30, 3, 3))(c, _),
    ),
    "as many amodal objects as others": lambda c, _: [
        object_.update(bbox=[0, 0, WIDTH, HEIGHT], area=396.0) for object_ in c["annotations"][::2]
    ],
    "two of one box": lambda c, _: c["annotations"].append({**c["annotations"][3], "id": 7, "color": "red"}),
}
WITH_KEYPOINTS: dict[str, Change] = {
    "faces": faces,
    "hidden as -1": each(keypoints=lambda o: [*o["keypoints"][:6], -1, -1, -1], num_keypoints=2),
    "all hidden as -1": one(keypoints=[-1] * 9, num_keypoints=0),
}


@pytest.mark.parametrize("kind", [*WITHOUT_KEYPOINTS, *WITH_KEYPOINTS])
def test_unusual_files(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    content = plain(folder, keypoints=kind in WITH_KEYPOINTS)
    {**WITHOUT_KEYPOINTS, **WITH_KEYPOINTS}[kind](content, folder)
    file = clean_coco_file(str(write(content, folder)), str(folder))
    assert not str(file.findings)
    assert file.content == content


def test_corrupt_exif(tmp_path: Path) -> None:
    """Detectron2 reads such an image, and does not rotate it."""
    content = plain(tmp_path / "birds")
    source, path = write(content, tmp_path / "birds"), tmp_path / "birds" / "4.png"
    with Image.open(path) as image:
        image.save(path, exif=b"junk")
    with Image.open(path) as image, pytest.raises(SyntaxError, match="not a TIFF file"):
        image.getexif()
    assert not str(clean_coco_file(str(source), str(tmp_path / "birds")).findings)
