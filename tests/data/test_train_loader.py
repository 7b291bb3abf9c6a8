"""Batches that follow from the seed and their number; and images that cannot be read."""

import itertools
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.samplers import TrainingSampler
from runs import MASK, STEPS, arguments, refusal, registrations_forgotten, run_here

from nl_detectron.data import register_coco
from nl_detectron.data.loaders import EvaluationLoader, TrainLoader, build_train_loader
from nl_detectron.errors import UserError

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
    cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(batches(cfg, 20), expected)
    assert_same(batches(cfg, 13, first=7), expected[7:])
    files = [[image["file_name"] for image in batch] for batch in expected]
    assert files[:6] != files[6:12]  # another order in another epoch
    cfg.SEED = 2
    assert [[image["file_name"] for image in batch] for batch in batches(cfg, 20)] != files


def test_an_image_is_augmented_anew_in_each_epoch(cfg: CfgNode) -> None:
    """Of three sizes and a flip."""
    seen = defaultdict(set)
    for image in itertools.chain(*batches(cfg, 60)):
        seen[image["file_name"]].add(image["image"].numpy().tobytes())
    assert max(map(len, seen.values())) > 2


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


@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "in order"])
def test_accumulated_batches_are_those_of_more_processes(
    cfg: CfgNode, grouped: bool, broken_images: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with three batches a step each have the batches, and draw the numbers, of six."""

    def of_process(rank: int, processes: int, accumulate: int) -> list[tuple[Batch, float]]:
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE = 12, accumulate
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: processes)
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: rank)
        loader = build_train_loader(cfg)
        return [(batch, torch.rand(()).item()) for batch in itertools.islice(loader, 5 * accumulate)]

    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda drawn: [drawn])
    cfg.DATASETS.TRAIN, cfg.DATALOADER.ASPECT_RATIO_GROUPING = (broken_images(wide=range(0, 12, 2)),), grouped
    six = [of_process(rank, 6, 1) for rank in range(6)]
    two = [of_process(rank, 2, 3) for rank in range(2)]
    for step, rank in itertools.product(range(5), range(6)):
        batch, drawn = two[rank % 2][3 * step + rank // 2]
        expected, number = six[rank][step]
        assert_same([batch], [expected])
        assert drawn == number
    assert len({number for draws in six for _, number in draws}) == 30  # each its own


def test_grouping_is_by_shape(cfg: CfgNode, broken_images: Callable[..., str]) -> None:
    """The images of a batch are all wide, or all not."""
    cfg.DATASETS.TRAIN = (broken_images(wide=range(0, 12, 2)),)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    shapes = [{image["width"] > image["height"] for image in batch} for batch in batches(cfg, 12)]
    assert all(len(shape) == 1 for shape in shapes)
    assert {True} in shapes
    assert {False} in shapes
    assert_same(batches(cfg, 5, first=7), batches(cfg, 12)[7:])


@pytest.mark.parametrize("images", [0, 1, 3])
def test_a_batch_that_the_processes_cannot_share(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    rest = {"aspect_ratio_grouping": False, "num_workers": 0, "seed": 1}
    with pytest.raises(UserError, match=f"IMS_PER_BATCH is {images}, which 2 processes cannot share"):
        TrainLoader(dataset=[], sampler=[], mapper=dict, total_batch_size=images, **rest)


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


@pytest.fixture
def broken_images(shapes_root: Path, tmp_path: Path) -> Callable[..., str]:
    """Registers a copy of the shapes with some of its images broken; returns its name."""
    names = []

    def make(
        truncated: Collection[int] = (),
        missing: Collection[int] = (),
        smaller: Collection[int] = (),
        wide: Collection[int] = (),
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
        crowds = [each for each in content["annotations"] if isinstance(each["segmentation"], dict)]
        content["annotations"] = [each for each in content["annotations"] if not wide or each not in crowds]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        register_coco(name, str(tmp_path / f"{name}.json"), str(folder), may_miss=99)
        names.append(name)
        return name

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "000000000000.jpg cannot be read: image file is truncated"),
        ("missing", "000000000000.jpg cannot be read: No such file or directory"),
        ("smaller", "000000000000.jpg has another size than the data set says"),
    ],
)
def test_a_broken_image_is_named(
    what: str, message: str, workers: int, broken_images: Callable[..., str], cfg: CfgNode
) -> None:
    cfg.DATASETS.TRAIN, cfg.DATALOADER.NUM_WORKERS = (broken_images(**{what: (0,)}),), workers
    with pytest.raises(UserError, match=rf"/{message}.* To go on without .* --skip-broken 1 or more\.$"):
        batches(cfg, 12)


def test_a_training_with_a_broken_image_ends_in_one_line(
    broken_images: Callable[..., str], tmp_path: Path
) -> None:
    name = broken_images(truncated=range(1, 11))  # not the first and the last, which are checked before
    data = ("DATASETS.TRAIN", f"('{name}',)", "DATALOADER.NUM_WORKERS", "1")
    message = refusal(run_here, *arguments(MASK, tmp_path / "run", *STEPS, *data))
    assert message.startswith("error: ")
    assert f"{name}/0000000000" in message
    assert "To go on without such images, give --skip-broken" in message


@pytest.mark.slow
def test_broken_images_are_skipped_and_listed(broken_images: Callable[..., str], tmp_path: Path) -> None:
    """In training others are taken, in evaluation they have no detections."""
    name = broken_images(truncated=(1, 5), missing=(3,))
    data = ("DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)", "SEED", "1")
    run_here(*arguments(MASK, tmp_path / "run", "--skip-broken", "3", *data, "SOLVER.MAX_ITER", "6"))
    log = (tmp_path / "run" / "log.txt").read_text()
    for beginning in (
        "Replaced 3 images that",
        f"3 images of {name} could not be read, and count as without",
    ):
        (following,) = log.split(beginning)[1:]
        listed = following.splitlines()[1:4]
        assert sorted(line.split("/")[-1][:16] for line in listed) == [f"{k:012d}.jpg" for k in (1, 3, 5)]


class Faulty(T.Augmentation):
    """An augmentation of a user's, with a bug in it."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        raise KeyError("a bug")


def faulty_mapper(record: dict[str, object]) -> dict[str, object]:
    raise ValueError("a bug")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("what", ["mapper", "augmentation"])
def test_a_bug_in_a_users_code_is_no_broken_image(what: str, workers: int, cfg: CfgNode) -> None:
    """It keeps its type and traceback, although images may be skipped."""
    cfg.DATALOADER.NUM_WORKERS = workers
    augmented = DatasetMapper(cfg, is_train=True, augmentations=[Faulty()])
    mapper, kind = (faulty_mapper, ValueError) if what == "mapper" else (augmented, KeyError)
    with pytest.raises(kind, match="a bug") as raised:
        batches(cfg, 1, mapper=mapper, skip_broken=100)
    assert raised.type is kind  # no UserError, which is a ValueError
    where = f"{raised.value}" if workers else "".join(map(str, raised.traceback))
    assert ("faulty_mapper" if what == "mapper" else "get_transform") in where


def test_a_bug_in_an_evaluation_is_no_broken_image(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nl_detectron.data.loaders.DatasetMapper", lambda *args, **options: faulty_mapper)
    with pytest.raises(ValueError, match="a bug") as raised:
        list(EvaluationLoader(cfg, "shapes_val", skip_broken=100))
    assert raised.type is ValueError


def test_nothing_but_broken_images(broken_images: Callable[..., str], cfg: CfgNode) -> None:
    cfg.DATASETS.TRAIN = (broken_images(missing=tuple(range(12))),)
    with pytest.raises(UserError, match=r"None of \d+ images can be used; the last was .*\.jpg"):
        batches(cfg, 1, skip_broken=100)


def test_one_broken_image_too_many(broken_images: Callable[..., str], cfg: CfgNode) -> None:
    cfg.DATASETS.TRAIN = (broken_images(truncated=(1, 5), missing=(3,)),)
    with pytest.raises(UserError, match=r".*jpg.*; .*jpg.*; .*jpg.* give --skip-broken 3 or more"):
        batches(cfg, 20, skip_broken=2)


def test_substitutes_follow_from_the_seed(broken_images: Callable[..., str], cfg: CfgNode) -> None:
    name = broken_images(truncated=(1, 5, 7), missing=(3,))
    cfg.DATASETS.TRAIN = (name,)
    expected = batches(cfg, 20, skip_broken=4)
    cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(batches(cfg, 10, first=10, skip_broken=4), expected[10:])
    files = {Path(image["file_name"]).name for batch in expected for image in batch}
    assert not files & {f"{k:012d}.jpg" for k in (1, 3, 5, 7)}


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_crops_and_images_without_objects(mask_format: str, cfg: CfgNode) -> None:
    """Boxes are taken from the cropped masks only where there are masks."""
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.MASK_FORMAT = True, mask_format
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    for record in (records := DatasetCatalog.get(cfg.DATASETS.TRAIN[0])):
        if record["image_id"] % 2:
            record["annotations"] = []
    assert {bool(record["annotations"]) for record in records} == {True, False}
    with registrations_forgotten():
        DatasetCatalog.register("some_empty", lambda: records)
        cfg.DATASETS.TRAIN = ("some_empty",)
        counts = [len(image["instances"]) for batch in batches(cfg, 8) for image in batch]
    assert min(counts) == 0 < max(counts)
