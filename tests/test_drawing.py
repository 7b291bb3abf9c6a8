"""What is drawn for each kind of output, in images and in videos."""

import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances

from nl_detectron.drawing import draw, draw_frames
from nl_detectron.errors import UserError

HEIGHT, WIDTH = 120, 200
METADATA = Metadata(thing_classes=["cat", "dog"], stuff_classes=["sky"], keypoint_names=["0", "1"])
Output = dict[str, object]


class FixedOutput:
    """A predictor that finds the same in every image, and keeps no image."""

    metadata = METADATA

    def __init__(self, output: Output) -> None:
        self.output = output
        self.seen: list[weakref.ref] = []
        self.most_alive = 0

    def __call__(self, image: np.ndarray) -> Output:
        self.seen.append(weakref.ref(image))
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self.seen))
        return self.output


def instances(count: int, **fields: torch.Tensor) -> Output:
    """Objects in the middle of the image."""
    found = Instances((HEIGHT, WIDTH))
    found.pred_boxes = Boxes(torch.tensor([[80.0, 30.0, 140.0, 90.0]] * count).reshape(-1, 4))
    found.scores = torch.full((count,), 0.9)
    found.pred_classes = torch.ones(count, dtype=torch.int64)
    for name, value in fields.items():
        found.set(name, value)
    return {"instances": found}


def region(count: int | None = None) -> torch.Tensor:
    """A mask of the middle of the image, or `count` of it."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[40:80, 90:130] = True
    return mask if count is None else mask.expand(count, -1, -1)


def panoptic(is_thing: bool, category: int = 0) -> Output:
    segments = [{"id": 1, "isthing": is_thing, "category_id": category, "score": 0.9}]
    return {"panoptic_seg": (region().int(), segments), "instances": instances(1)["instances"]}


KEYPOINTS = torch.tensor([[[90.0, 40.0, 1.0], [130.0, 80.0, 1.0]]])
SKY = torch.stack([region().float(), 0.5 * torch.ones(HEIGHT, WIDTH)])  # the second class has no name
DRAWN = {
    "boxes": instances(2),
    "masks": instances(2, pred_masks=region(2)),
    "keypoints": instances(1, pred_keypoints=KEYPOINTS),
    "an empty mask": instances(2, pred_masks=torch.stack([region(), torch.zeros_like(region())])),
    "semantic": {"sem_seg": SKY},
    "semantic and boxes": {"sem_seg": SKY, **instances(1)},
    "things": panoptic(True, 1),
    "stuff": panoptic(False),
}
NOT_DRAWN = {
    "no boxes": instances(0),
    "no masks": instances(0, pred_masks=region(0)),
    "no keypoints": instances(0, pred_keypoints=KEYPOINTS[:0]),
    "no segments": {"panoptic_seg": (torch.zeros(HEIGHT, WIDTH, dtype=torch.int32), [])},
    "proposals": {"proposals": None},
}
Draw = Callable[[np.ndarray, Output], np.ndarray]


def draw_last_frame(image: np.ndarray, output: Output) -> np.ndarray:
    return list(draw_frames(FixedOutput(output), [image] * 3))[-1]


@pytest.fixture(params=["image", "video"])
def picture(request: pytest.FixtureRequest) -> Draw:
    if request.param == "video":
        return draw_last_frame
    return lambda image, output: draw(image, output, METADATA)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("output", DRAWN.values(), ids=DRAWN)
def test_what_is_drawn(output: Output, picture: Draw, image: np.ndarray) -> None:
    drawn = picture(image, output)
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    changed = (drawn != image).any(axis=2)
    assert changed[30:90, 80:140].any()
    assert not changed[:20].any()
    assert not changed[:, :40].any()


@pytest.mark.parametrize("output", NOT_DRAWN.values(), ids=NOT_DRAWN)
def test_nothing_found_leaves_the_image_as_it_is(output: Output, picture: Draw, image: np.ndarray) -> None:
    assert (picture(image, output) == image).all()


def test_colours_stay_those_of_blue_green_and_red(picture: Draw) -> None:
    """A keypoint is red in Detectron2; the image beside it is blue."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :, 0] = 255
    drawn = picture(image, instances(1, pred_keypoints=KEYPOINTS))
    assert drawn[80, 130].tolist() == [0, 0, 255]
    assert drawn[0, 0].tolist() == [255, 0, 0]


def test_an_object_keeps_its_colour(image: np.ndarray) -> None:
    frames = list(draw_frames(FixedOutput(instances(1)), [image] * 5))
    assert all((frame == frames[0]).all() for frame in frames)


def test_frames_are_not_kept(image: np.ndarray) -> None:
    """The memory for a video of any length is that of a few frames."""
    predictor = FixedOutput(instances(1, pred_masks=region(1)))

    def frames() -> Iterator[np.ndarray]:
        yield from (image.copy() for _ in range(20))

    assert sum(1 for _ in draw_frames(predictor, frames())) == 20
    assert len(predictor.seen) == 20
    assert predictor.most_alive <= 2


@pytest.mark.parametrize("size", [(9, 2), (2, 9), (9, 65536), (65536, 9)])
def test_sizes_that_cannot_be_drawn(size: tuple[int, int]) -> None:
    message = f"--input must be images of 3 to 65535 pixels a side; got {size[1]} x {size[0]}."
    with pytest.raises(UserError, match=f"^{message}$"):
        draw(np.zeros((*size, 3), np.uint8), instances(0), METADATA)


@pytest.mark.parametrize("size", [(9, 3), (3, 9), (9, 65535), (65535, 9)])
def test_sizes_that_can(size: tuple[int, int]) -> None:
    found = Instances(size)
    found.pred_masks = torch.ones(1, *size, dtype=torch.bool)
    assert draw(np.zeros((*size, 3), np.uint8), {"instances": found}, METADATA).shape == (*size, 3)
