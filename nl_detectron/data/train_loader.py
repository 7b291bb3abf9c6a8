"""The batches of a training, each of which follows from the seed and from its number.

Detectron2's loader draws from generators whose state no checkpoint holds, so that a resumed training sees
other images, other flips and other proposals than the one that was interrupted. Here nothing has a state:
batch k of a seed is the same in whichever way a run comes to it, and with however many workers.
"""

import itertools
import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.serialize import PicklableWrapper
from torch.multiprocessing import _prctl_pr_set_pdeathsig
from torch.utils.data import BatchSampler, DataLoader, Dataset

from nl_detectron.compat import train_loader_arguments
from nl_detectron.errors import UserError, reported_as_user_errors

from .checks import Record, check_records

# Of an image in the order: its `position` from 0, its `index`, `width` and `height`
Place = Mapping[str, int]

_STEP, _IMAGE, _SUBSTITUTE = range(3)  # what a seed is for


def build_train_loader(
    cfg: CfgNode, *, mapper: Callable[[Record], Record] | None = None, skip_broken: int = 0
) -> "TrainLoader":
    """The loader of a config: the images, sampler and mapper are those of Detectron2's own loader.

    Args:
        mapper: another one.
        skip_broken: how many images may be replaced because they cannot be read.

    Raises:
        UserError: naming the image and the object that cannot be learned from.
    """
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    arguments = train_loader_arguments(cfg, mapper, seed)
    mask_format = cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None
    check_records(cfg.DATASETS.TRAIN[0], arguments["dataset"], mask_format)
    return TrainLoader(seed=seed, skip_broken=skip_broken, **arguments)


class TrainLoader:
    """Endless batches for this process.

    Just before it hands out batch k, it seeds the generators of PyTorch, numpy and Python from the seed, k
    and the number of the process: what the training step draws, like the proposals it samples, follows too.

    Attributes:
        start: the number of the first batch, from 0; to be set before the first one is taken.
        images: the files of the batch that was handed out last.
        broken: what is wrong with each image that could not be read, by its file.
    """

    def __init__(
        self,
        *,
        dataset: Sequence[Record],
        sampler: Iterable[int],
        mapper: Callable[[Record], Record],
        total_batch_size: int,
        aspect_ratio_grouping: bool,
        num_workers: int,
        seed: int,
        skip_broken: int = 0,
    ) -> None:
        """
        Args:
            dataset, sampler, mapper, total_batch_size, aspect_ratio_grouping, num_workers: as those of
                Detectron2's build_detection_train_loader.
            seed: 0 or more, the same in all processes.
            skip_broken: how many images may be replaced because they cannot be read.
        """
        self.seed, self.skip_broken, self.start = seed, skip_broken, 0
        self.images: list[str] = []
        self.broken: dict[str, str] = {}
        self._places = _Places(dataset, sampler, total_batch_size, aspect_ratio_grouping)
        self._images = _Images(DatasetFromList(dataset, copy=False), mapper, seed, skip_broken)
        self._num_workers = num_workers

    def __iter__(self) -> Iterator[list[Record]]:
        loader = DataLoader(
            self._images,
            batch_size=None,  # an item is a batch already
            sampler=itertools.islice(self._places, self.start, None),
            num_workers=self._num_workers,
            # Of batches. Detectron2 has 2 of images: as many, for 2 images a process
            prefetch_factor=1 if self._num_workers else None,
            collate_fn=trivial_batch_collator,
            worker_init_fn=follow_the_trainer,
        )
        for number, (batch, files, broken) in enumerate(loader, self.start):
            self.images = files
            self.broken |= broken
            refuse_more_broken(self.broken.values(), self.skip_broken)
            _seed(self.seed, _STEP, number, comm.get_rank())
            yield batch


class _Places:
    """The places of each batch, in the order of the sampler, by Detectron2's own grouping."""

    def __init__(
        self, dataset: Sequence[Record], sampler: Iterable[int], total_batch_size: int, grouped: bool
    ) -> None:
        # Without grouping the sizes are not needed, and not every data set has them.
        for image in dataset if grouped else ():
            if "width" not in image or "height" not in image:
                raise UserError(
                    "DATALOADER.ASPECT_RATIO_GROUPING must be False for images whose width and height the "
                    f"data set does not have, as those of {image['file_name']}; got True."
                )
        self._sizes = [(image["width"], image["height"]) if grouped else (0, 0) for image in dataset]
        self._sampler, self._grouped = sampler, grouped
        self._batch_size = total_batch_size // comm.get_world_size()

    def __iter__(self) -> Iterator[list[Place]]:
        positions = itertools.count(comm.get_rank(), comm.get_world_size())
        places = (
            {"position": position, "index": index, "width": width, "height": height}
            for position, index in zip(positions, self._sampler, strict=False)
            for width, height in [self._sizes[index]]
        )
        if self._grouped:
            return iter(AspectRatioGroupedDataset(places, self._batch_size))
        return iter(BatchSampler(places, self._batch_size, drop_last=True))


class _Images(Dataset):
    """The images of a batch by their places, as the mapper makes them, and what is wrong with others."""

    def __init__(
        self, dataset: Dataset, mapper: Callable[[Record], Record], seed: int, skip_broken: int
    ) -> None:
        self._dataset, self._mapper = dataset, PicklableWrapper(mapper)  # for workers that are not forked
        self._seed, self._skip_broken = seed, skip_broken

    def __getitem__(self, places: Sequence[Place]) -> tuple[list[Record], list[str], dict[str, str]]:
        """The images, their files, and what is wrong with broken ones."""
        broken: dict[str, str] = {}
        images = [self._image(place["position"], place["index"], broken) for place in places]
        batch, files = zip(*images, strict=True)
        return list(batch), list(files), broken

    def _image(self, position: int, index: int, broken: dict[str, str]) -> tuple[Record, str]:
        """The image and its file, or another one's if it cannot be read and some may be skipped, or if the
        mapper makes None of it, as Detectron2's mappers may."""
        for attempt in itertools.count():
            record = self._dataset[index]
            _seed(self._seed, _IMAGE, position)
            try:
                image = mapped(record, self._mapper)
                if image is not None:
                    return image, record["file_name"]
            except (UserError, OSError) as error:
                is_one_too_many = record["file_name"] not in broken and len(broken) == self._skip_broken
                if is_one_too_many or attempt > len(self._dataset):
                    raise
                broken[record["file_name"]] = str(error)
            numbers = np.random.default_rng((self._seed, _SUBSTITUTE, position, attempt))
            index = int(numbers.integers(len(self._dataset)))


def mapped(record: Record, mapper: Callable[[Record], Record]) -> Record:
    """What a mapper makes of an image.

    Raises:
        UserError, OSError: naming the file, for what is wrong with it.
    """
    with reported_as_user_errors(f"{record['file_name']} cannot be used"):
        return mapper(record)


def refuse_more_broken(reasons: Collection[str], most: int) -> None:
    """Refuse to go on after more than `most` images that could not be read."""
    if len(reasons) > most:
        raise UserError(f"--skip-broken must be {len(reasons)} or more; got {most}. {'; '.join(reasons)}")


def _seed(*numbers: int) -> None:
    seed_all_rng(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def follow_the_trainer(worker: int) -> None:
    """Let a worker live exactly as long as its trainer.

    A terminal's Ctrl-C and torchrun's SIGTERM are for the whole group of processes, and the trainer, which
    wants to finish its step, would fail without its workers. A trainer that is killed would leave workers
    behind that wait for it for ever.
    """
    os.setsid()
    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # PyTorch's own; Linux only
