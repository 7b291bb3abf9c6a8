"""Batches that follow from the seed and their number; and images that cannot be read."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import TrainingSampler
from nl_detectron.data.train_loader import build_train_loader
from runs import MASK, arguments, run_here

from nl_detectron.data import register_coco

Batch = list[dict[str, object]]


@pytest.fixture
def cfg(mask_cfg: CfgNode, shapes_root: Path) -> CfgNode:
    mask_cfg.INPUT.MIN_SIZE_TRAIN = (64, 72, 80)
    return mask_cfg


def batches(cfg: CfgNode, count: int, first: int = 0, **options: object) -> list[Batch]:
    loader = build_train_loader(cfg, **options)
    loader.start = first
    return list(itertools.islice(loader, count))


def assert_same(ones: list[Batch], others: list[Batch]) -> None:
    """Files, flips and sizes: pixels and boxes to the bit."""
    assert len(ones) == len(others)
    for one, other in zip(itertools.chain(*ones), itertools.chain(*others), strict=True):
        assert one["file_name"] == other["file_name"]
        assert one["image"].equal(other["image"])
        assert one["instances"].gt_boxes.tensor.equal(other["instances"].gt_boxes.tensor)


@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "in order"])
def test_a_batch_follows_from_its_number(cfg: CfgNode, grouped: bool) -> None:
    """However many workers there are, and wherever the training began."""
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouped
    expected = batches(cfg, 20)
    assert_same(batches(cfg, 5, first=15), expected[15:])
    cfg.DATALOADER.NUM_WORKERS = 3
    assert_same(batches(cfg, 20), expected)
    assert_same(batches(cfg, 13, first=7), expected[7:])
    files = [[image["file_name"] for image in batch] for batch in expected]
    assert files[:6] != files[6:12]  # another order in another epoch
    cfg.SEED = 2
    assert [[image["file_name"] for image in batch] for batch in batches(cfg, 20)] != files


def test_what_a_step_draws_follows_too(cfg: CfgNode) -> None:
    def draws(first: int) -> list[tuple[float, float]]:
        loader = build_train_loader(cfg)
        loader.start = first
        return [(torch.rand(()).item(), np.random.rand()) for batch in itertools.islice(loader, 10 - first)]

    assert draws(4) == draws(0)[4:]
    assert len(set(draws(0))) == 10


def test_the_order_is_detectron2s(cfg: CfgNode) -> None:
    """That of its TrainingSampler with this seed: all images once an epoch."""
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    records = [record for record in DatasetCatalog.get("shapes_train") if record["annotations"]]
    files = [image["file_name"] for batch in batches(cfg, len(records)) for image in batch]
    assert sorted(files[: len(records)]) == sorted(record["file_name"] for record in records)
    np.random.seed(cfg.SEED)
    seeds = {cfg.SEED, int(np.random.randint(2**31))}  # main's; 0.5 draws it
    orders = [TrainingSampler(len(records), seed=seed) for seed in seeds]
    expected = [[records[k]["file_name"] for k in itertools.islice(order, len(files))] for order in orders]
    assert files in expected


def test_grouping_is_by_shape(cfg: CfgNode, broken_images: Callable[..., str]) -> None:
    """The images of a batch are all wide, or all not."""
    cfg.DATASETS.TRAIN = (broken_images(wide=range(0, 12, 2)),)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    shapes = [{image["width"] > image["height"] for image in batch} for batch in batches(cfg, 12)]
    assert all(len(shape) == 1 for shape in shapes)
    assert {True} in shapes
    assert {False} in shapes
    assert_same(batches(cfg, 5, first=7), batches(cfg, 12)[7:])


def test_a_mapper_of_ones_own(cfg: CfgNode) -> None:
    loader = build_train_loader(cfg, mapper=lambda record: {"file_name": record["file_name"], "mine": True})
    assert all(image["mine"] for image in next(iter(loader)))


def test_a_mapper_may_leave_images_out(cfg: CfgNode) -> None:
    """By None, as in Detectron2: others are taken, and none of it is broken."""
    left_out = DatasetCatalog.get("shapes_train")[0]["file_name"]

    def mapper(record: dict[str, object]) -> dict[str, object] | None:
        return None if record["file_name"] == left_out else {"image_id": record["image_id"]}

    loader = build_train_loader(cfg, mapper=mapper)
    files = []
    for batch in itertools.islice(loader, 20):
        assert len(batch) == 2
        files += loader.images
    assert left_out not in files
    assert len(set(files)) > 5
    assert not loader.broken


def test_images_without_sizes_are_not_grouped(cfg: CfgNode, request: pytest.FixtureRequest) -> None:
    records = [{"file_name": r["file_name"]} for r in DatasetCatalog.get("shapes_train")]
    DatasetCatalog.register("without_sizes", lambda: records)
    request.addfinalizer(lambda: DatasetCatalog.remove("without_sizes"))
    cfg.DATASETS.TRAIN, cfg.MODEL.MASK_ON = ("without_sizes",), False
    with pytest.raises(ValueError, match=r"ASPECT_RATIO_GROUPING must be False .*0000\.jpg; got True"):
        build_train_loader(cfg)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    assert len(batches(cfg, 3)) == 3


@pytest.fixture
def broken_images(shapes_root: Path, tmp_path: Path) -> Callable[..., str]:
    """Registers a copy of the shapes with some of its images broken; returns its name."""
    names = []

    def make(
        truncated: tuple[int, ...] = (),
        missing: tuple[int, ...] = (),
        smaller: tuple[int, ...] = (),
        wide: range = range(0),
    ) -> str:
        name = f"broken_shapes_{len(names)}"
        folder, source = tmp_path / name, shapes_root / "shapes"
        shutil.copytree(source / "train", folder)
        content = json.loads((source / "annotations" / "instances_train.json").read_text())
        for index, image in enumerate(content["images"]):
            path = folder / image["file_name"]
            if index in truncated:
                path.write_bytes(path.read_bytes()[:-500])
            if index in missing:
                path.unlink()
            if index in smaller:
                cv2.imwrite(str(path), cv2.imread(str(path))[:-8])
            if index in wide:
                cv2.imwrite(str(path), cv2.imread(str(path))[:-8])
                image["height"] -= 8
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        register_coco(name, str(tmp_path / f"{name}.json"), str(folder))
        names.append(name)
        return name

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "0000.jpg cannot be used: OSError: image file is truncated"),
        ("missing", "No such file or directory: '"),
        ("smaller", "0000.jpg cannot be used: SizeMismatchError: Mismatched image shape"),
    ],
)
def test_a_broken_image_is_named(
    what: str, message: str, workers: str, broken_images: Callable[..., str], tmp_path: Path
) -> None:
    name = broken_images(**{what: (0,)})
    data = ("DATASETS.TRAIN", f"('{name}',)", "DATALOADER.NUM_WORKERS", workers, "SEED", "1")
    with pytest.raises(SystemExit) as stopped:
        run_here(*arguments(MASK, tmp_path / "run", *data, "SOLVER.MAX_ITER", "12"))
    assert stopped.value.code.startswith("error: ")
    assert message in stopped.value.code
    assert f"{name}/000000000000.jpg" in stopped.value.code
    assert "\n" not in stopped.value.code


def test_broken_images_are_skipped_and_listed(
    broken_images: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In training others are taken, in evaluation they have no detections."""
    name = broken_images(truncated=(1, 5), missing=(3,))
    data = ("DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)", "SEED", "1")
    run_here(*arguments(MASK, tmp_path / "run", "--skip-broken", "3", *data, "SOLVER.MAX_ITER", "12"))
    trained = [record.getMessage() for record in caplog.records if "others were taken" in record.getMessage()]
    evaluated = [
        record.getMessage() for record in caplog.records if "without detections" in record.getMessage()
    ]
    for (message,) in (trained, evaluated):
        assert message.startswith("3 images ")
        for index in (1, 3, 5):
            assert f"{name}/{index:012d}.jpg" in message
        assert message.count("\n") == 3


def test_nothing_but_broken_images(broken_images: Callable[..., str], cfg: CfgNode) -> None:
    cfg.DATASETS.TRAIN = (broken_images(missing=tuple(range(12))),)
    with pytest.raises((ValueError, OSError), match="No such file"):
        batches(cfg, 1, skip_broken=100)


def test_one_broken_image_too_many(broken_images: Callable[..., str], cfg: CfgNode, tmp_path: Path) -> None:
    cfg.DATASETS.TRAIN = (broken_images(truncated=(1, 5), missing=(3,)),)
    with pytest.raises(ValueError, match=r"--skip-broken must be 3 or more; got 2\. .*jpg.*; .*jpg.*; .*jpg"):
        batches(cfg, 20, skip_broken=2)


def test_substitutes_follow_from_the_seed(broken_images: Callable[..., str], cfg: CfgNode) -> None:
    name = broken_images(truncated=(1, 5, 7), missing=(3,))
    cfg.DATASETS.TRAIN = (name,)
    expected = batches(cfg, 20, skip_broken=4)
    cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(batches(cfg, 10, first=10, skip_broken=4), expected[10:])
    files = {Path(image["file_name"]).name for batch in expected for image in batch}
    assert not files & {f"{k:012d}.jpg" for k in (1, 3, 5, 7)}
