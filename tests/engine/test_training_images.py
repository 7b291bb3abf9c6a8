"""--draw-training: pictures of what a training sees, which do not change it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from runs import KEYPOINT, MASK, STEPS, arguments, differences, load, refusal, run_here

from nl_detectron.data.loaders import build_train_loader
from nl_detectron.engine import main
from nl_detectron.engine.training_images import draw_training_images, draw_truth

FOLDER = "training_images"


def pictures_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: cv2.imread(str(path)) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("config", [MASK, KEYPOINT])
def test_a_dry_run(
    config: str, shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command draws the same pictures, and removes those of another."""
    argv = arguments(config, tmp_path / "run", "--dry-run", "--draw-training")
    for count in ("3", "2"):
        argv[argv.index("--draw-training") + 1 :] = [count, *arguments(config, tmp_path / "run")[2:]]
        with pytest.raises(SystemExit) as stopped:
            main([*argv, "SEED", "1"])
        assert stopped.value.code == 0
        assert f"Drew {count} training images into {tmp_path / 'run' / FOLDER}." in capsys.readouterr().out
        pictures = pictures_in(tmp_path / "run" / FOLDER)
        assert [name[:5] for name in pictures] == [f"000{k}_" for k in range(int(count))]
        assert all(max(picture.shape) >= 600 for picture in pictures.values())
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FOLDER]


def test_the_training_stays_the_same(trained: Path, tmp_path: Path) -> None:
    """To the bit, and its log too: `trained` is the same command without the flag."""
    run_here(*arguments(MASK, tmp_path / "run", "--draw-training", "2", *STEPS))
    assert len(pictures_in(tmp_path / "run" / FOLDER)) == 2
    for name in ("model_0000001.pth", "model_final.pth"):
        assert differences(load(trained / name), load(tmp_path / "run" / name)) == []


def test_they_are_what_the_training_loads(small_cfg: CfgNode) -> None:
    """The images of the first steps with their flips, here in batches of two."""
    batches = iter(build_train_loader(small_cfg))
    records = [*next(batches), *next(batches)]
    pictures = pictures_in(draw_training_images(small_cfg, 4))
    for record, (name, picture) in zip(records, pictures.items(), strict=True):
        assert name[5:] == f"{Path(record['file_name']).stem}.jpg"
        image = record["image"].permute(1, 2, 0).numpy()
        assert picture.shape == (640, 640, 3)
        same, flipped = (
            np.median(np.abs(cv2.resize(each, (640, 640)).astype(int) - picture))
            for each in (image, np.ascontiguousarray(image[:, ::-1]))
        )
        assert same < 8
        assert same < flipped


def test_random_numbers(small_cfg: CfgNode) -> None:
    """Those of the process that trains are left alone, without a SEED too."""
    small_cfg.SEED = -1
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), np.random.get_state()[2]
    draw_training_images(small_cfg, 1)
    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert np.random.get_state()[2] == before[2]


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
def test_what_is_drawn(image_format: str) -> None:
    """The image in its colours, a box, and nothing where there is no object."""
    channels = 1 if image_format == "L" else 3
    image = torch.full((channels, 480, 640), 40, dtype=torch.uint8)
    image[0] = 90
    truth = Instances((480, 640))
    truth.gt_boxes = Boxes(torch.tensor([[100.0, 100.0, 300.0, 200.0]]))
    truth.gt_classes = torch.tensor([0])
    metadata = Metadata(thing_classes=["bird"])
    expected = {"BGR": [90, 40, 40], "RGB": [40, 40, 90], "L": [90, 90, 90]}[image_format]
    drawn = draw_truth({"image": image, "instances": truth}, image_format, metadata)
    assert drawn.shape == (480, 640, 3)
    changed = (drawn != expected).any(axis=2)
    assert changed[100:200, 100].all()
    assert changed[100:110, 102:130].any()  # the label
    assert not changed[:95].any()
    assert not changed[205:].any()
    empty = draw_truth({"image": image, "instances": truth[:0]}, image_format, metadata)
    assert (empty == expected).all()


def test_an_evaluation_has_none(shapes_root: Path, tmp_path: Path) -> None:
    message = "error: --draw-training is a number of training images. Leave out --eval-only."
    assert refusal(main, arguments(MASK, tmp_path, "--draw-training", "1", "--eval-only")) == message
