"""Loaders: training batches that follow from the seed and their number, and images for an evaluation.

Detectron2's training loader draws from generators whose state no checkpoint holds, so a resumed training
sees other images, flips and proposals. Here batch k stays the same, and with any number of workers.
"""

import copy
import itertools
import logging
import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList
from detectron2.data.detection_utils import (
    SizeMismatchError,
    build_augmentation,
    check_image_size,
    read_image,
)
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.serialize import PicklableWrapper
from torch.multiprocessing import _prctl_pr_set_pdeathsig
from torch.utils.data import BatchSampler, DataLoader, Dataset

from nl_detectron.compat import train_loader_arguments
from nl_detectron.errors import UserError

from .coco_images import read_header

Record = Mapping[str, object]

logger = logging.getLogger(__name__)

Mapper = Callable[[Record], Record]
Place = Mapping[str, int]  # of an image in the order: its position from 0, its index, width and height

_STEP, _IMAGE, _SUBSTITUTE = range(3)  # what a seed is for


def build_train_loader(cfg: CfgNode, *, mapper: Mapper | None = None, skip_broken: int = 0) -> "TrainLoader":
    """The loader of a config, with the images, sampler and (unless given) mapper of Detectron2's own loader.

    Up to `skip_broken` unreadable images are replaced by others.
    """
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    mapper = mapper or _TrainMapper(cfg)
    arguments = train_loader_arguments(cfg, mapper, seed)
    return TrainLoader(seed=seed, skip_broken=skip_broken, accumulate=cfg.SOLVER.ACCUMULATE, **arguments)


def images_per_batch(total_batch_size: int, processes: int, accumulate: int) -> int:
    """SOLVER.IMS_PER_BATCH over processes and SOLVER.ACCUMULATE; a UserError if they cannot share it."""
    if accumulate < 1:
        raise UserError(f"SOLVER.ACCUMULATE must be 1 or more; got {accumulate}.")
    batches = processes * accumulate
    if total_batch_size < 1 or total_batch_size % batches:
        who = f"{processes} processes" + (f" with SOLVER.ACCUMULATE {accumulate}" if accumulate > 1 else "")
        what = f"SOLVER.IMS_PER_BATCH is {total_batch_size}, which {who} cannot share"
        raise UserError(f"{what}. Set it to a multiple of {batches}.")
    return total_batch_size // batches


class TrainLoader:
    """Endless batches for this process, `accumulate` for each step.

    Before it returns batch k, it seeds the generators of PyTorch, numpy and Python from the seed, k and the
    rank, so that what the training step draws, like the proposals it samples, follows too.

    Attributes:
        start: the number of the first batch, from 0. Set it before the first one is taken.
        images: the files of the last batch.
        broken: what is wrong with each unreadable image, by its file.
    """

    def __init__(
        self,
        *,
        dataset: Sequence[Record],
        sampler: Iterable[int],
        mapper: Mapper,
        total_batch_size: int,
        aspect_ratio_grouping: bool,
        num_workers: int,
        seed: int,
        skip_broken: int = 0,
        accumulate: int = 1,
    ) -> None:
        """The arguments of Detectron2's build_detection_train_loader, and of `build_train_loader`."""
        self.seed, self.skip_broken, self.start, self.accumulate = seed, skip_broken, 0, accumulate
        self.images: list[str] = []
        self.broken: dict[str, str] = {}
        batch_size = images_per_batch(total_batch_size, comm.get_world_size(), accumulate)
        self._places = _Places(dataset, sampler, batch_size, aspect_ratio_grouping, accumulate)
        self._images = _Images(DatasetFromList(dataset, copy=False), mapper, seed, skip_broken)
        self._num_workers = num_workers

    def __iter__(self) -> Iterator[list[Record]]:
        loader = DataLoader(
            self._images,
            batch_size=None,  # an item is a batch already
            sampler=itertools.islice(self._places, self.start, None),
            num_workers=self._num_workers,
            prefetch_factor=1 if self._num_workers else None,  # batches; Detectron2 has 2 images
            collate_fn=trivial_batch_collator,
            worker_init_fn=follow_the_trainer,
        )
        for number, (batch, files, broken) in enumerate(loader, self.start):
            self.images = files
            self.broken |= broken
            check_broken(self.broken.values(), self.skip_broken)
            step, part = divmod(number, self.accumulate)
            _seed(self.seed, _STEP, step, comm.get_rank() + comm.get_world_size() * part)
            yield batch


class _Places:
    """The places of each batch, in the order of the sampler, by Detectron2's own grouping.

    With `accumulate` n, the n batches of a step in process r of P are those that processes r, r + P, ... of
    n P would have.
    """

    def __init__(
        self,
        dataset: Sequence[Record],
        sampler: Iterable[int],
        batch_size: int,
        grouped: bool,
        accumulate: int,
    ) -> None:
        self._sizes = [(image["width"], image["height"]) if grouped else (0, 0) for image in dataset]
        self._sampler, self._grouped = sampler, grouped
        self._batch_size, self._accumulate = batch_size, accumulate

    def __iter__(self) -> Iterator[list[Place]]:
        count = self._accumulate
        shares = itertools.tee(self._all_places(), count)
        batches = [self._batches(itertools.islice(share, k, None, count)) for k, share in enumerate(shares)]
        return itertools.chain.from_iterable(zip(*batches, strict=False))

    def _all_places(self) -> Iterator[Place]:
        positions = itertools.count(comm.get_rank(), comm.get_world_size())
        for position, index in zip(positions, self._sampler, strict=False):
            width, height = self._sizes[index]
            yield {"position": position, "index": index, "width": width, "height": height}

    def _batches(self, places: Iterator[Place]) -> Iterator[list[Place]]:
        if self._grouped:
            return iter(AspectRatioGroupedDataset(places, self._batch_size))
        return iter(BatchSampler(places, self._batch_size, drop_last=True))


class _Images(Dataset):
    """The images of a batch by their places, as the mapper makes them."""

    def __init__(self, dataset: Dataset, mapper: Mapper, seed: int, skip_broken: int) -> None:
        self._dataset = dataset
        self._mapper = PicklableWrapper(_MapperOrReason(mapper))  # also for workers that are not forked
        self._seed, self._skip_broken = seed, skip_broken

    def __getitem__(self, places: Sequence[Place]) -> tuple[list[Record], list[str], dict[str, str]]:
        """The images, their files, and what is wrong with broken ones."""
        broken: dict[str, str] = {}
        images = [self._image(place["position"], place["index"], broken) for place in places]
        batch, files = zip(*images, strict=True)
        return list(batch), list(files), broken

    def _image(self, position: int, index: int, broken: dict[str, str]) -> tuple[Record, str]:
        """The image and its file. Another replaces one that is skipped, or that the mapper rejects."""
        for attempt in itertools.count():
            record = self._dataset[index]
            file = record["file_name"]
            _seed(self._seed, _IMAGE, position)
            image = self._mapper(record)
            if image is not None and "broken" in image:
                image, broken[file] = None, image["broken"]
            if image is not None or len(broken) > self._skip_broken:  # refused by the trainer's process
                return image, file
            if attempt > len(self._dataset):
                raise UserError(f"None of {attempt} images can be used; the last was {file}.")
            numbers = np.random.default_rng((self._seed, _SUBSTITUTE, position, attempt))
            index = int(numbers.integers(len(self._dataset)))


class EvaluationLoader:
    """Detectron2's test loader. COCO's evaluation counts skipped images as images without detections."""

    def __init__(self, cfg: CfgNode, name: str, skip_broken: int = 0) -> None:
        mapper = _MapperOrReason(DatasetMapper(cfg, is_train=False))
        self._loader = build_detection_test_loader(cfg, name, mapper=mapper)
        self._loader.worker_init_fn = follow_the_trainer
        self._name, self._skip_broken = name, skip_broken

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Record]]:
        broken: list[str] = []
        for batch in self._loader:
            broken += [image["broken"] for image in batch if "broken" in image]
            check_broken(broken, self._skip_broken)
            if images := [image for image in batch if "broken" not in image]:
                yield images
        if broken:
            message = "%d images of %s could not be read, and count as without detections:\n  %s"
            logger.warning(message, len(broken), self._name, "\n  ".join(broken))


def build_validation_loader(cfg: CfgNode, records: Sequence[Record]) -> Iterator[list[Record]]:
    """This process's share of some images with their objects, one by one and not augmented.

    Unreadable ones are left out: the evaluation has told or refused them.
    """
    mapper = DatasetMapper(
        cfg,
        is_train=True,
        augmentations=build_augmentation(cfg, is_train=False),
        recompute_boxes=False,
        instance_mask_format="bitmask",  # for polygons and RLE
    )
    loader = build_detection_test_loader(
        list(records), mapper=_MapperOrReason(mapper), num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    loader.worker_init_fn = follow_the_trainer
    return (batch for batch in loader if "broken" not in batch[0])


class _TrainMapper:
    """Detectron2's mapper, which after a crop takes boxes from masks: not where there are no objects."""

    def __init__(self, cfg: CfgNode) -> None:
        self._mapper = DatasetMapper(cfg, is_train=True)
        self._for_no_objects = copy.copy(self._mapper)
        self._for_no_objects.recompute_boxes = False

    def __call__(self, record: Record) -> Record:
        has_objects = any(not each.get("iscrowd", 0) for each in record.get("annotations", ()))
        return (self._mapper if has_objects else self._for_no_objects)(record)


class _MapperOrReason:
    """A mapper that returns {"broken": reason} for an unreadable image. Its own errors stay as they are."""

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper

    def __call__(self, record: Record) -> Record:
        try:
            return self._mapper(record)
        except Exception:
            if not (reason := why_unreadable(record)):
                raise
            return {"broken": reason}


def why_unreadable(record: Record) -> str:
    """Why the image of a record cannot be read; "" if it can, so that a mapper that failed is at fault."""
    file = record["file_name"]
    if read_header(file)[0]:
        return f"{file} has 16 bits or more a value, which would be clipped at 255. Convert it to 8 bits."
    try:
        check_image_size(dict(record), read_image(file, format="BGR"))
    except SizeMismatchError as error:
        return f"{file} has another size than the data set says. {' '.join(str(error).split())}"
    except Exception as error:  # Pillow's decoders raise errors of many types
        return (
            f"{file} cannot be read: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
        )
    return ""


def check_broken(reasons: Collection[str], most: int) -> None:
    """Refuse to go on after more than `most` images that could not be read."""
    if len(reasons) > most:
        listed = "; ".join(reasons)
        raise UserError(f"{listed}. To go on without such images, give --skip-broken {len(reasons)} or more.")


def _seed(*numbers: int) -> None:
    seed_all_rng(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def follow_the_trainer(worker: int) -> None:
    """Let a worker live exactly as long as its trainer."""
    os.setsid()  # Ctrl-C and torchrun's SIGTERM go to the group, but the trainer needs it to finish its step
    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # PyTorch's own; Linux only
