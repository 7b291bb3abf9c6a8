"""From a record to clips for the network, as Section 4.1 trains and tests."""

import logging
import multiprocessing
from collections.abc import Sequence

import numpy as np
import torch
from torchvision.transforms import v2

from nl_detectron.errors import UserError

from .reading import UnreadableVideoError, even_starts, random_start, read_clips

logger = logging.getLogger(__name__)

_TRIES = 20


class ReadableClips(torch.utils.data.Dataset):
    """The records to train on, mapped; another one at random for each that cannot be read.

    Detectron2 0.5's own fallback fails on Python 3.11.
    """

    def __init__(self, records: Sequence[dict], mapper: "ClipMapper") -> None:
        self.records, self.mapper = records, mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        for _ in range(_TRIES):
            if (mapped := self.mapper(self.records[index])) is not None:
                return mapped
            index = int(torch.randint(len(self.records), ()))
        raise UserError(f"{_TRIES} videos in a row cannot be read: see the warnings.")


class ClipMapper:
    """Reads the clips of a record, for Detectron2's loaders.

    A video that cannot be read gives None in training and, in a test, a record without clips. `unreadable`
    counts them over all workers.
    """

    def __init__(
        self,
        *,
        is_train: bool,
        frames: int = 32,
        step: int = 2,
        clips: int = 10,
        short_side: Sequence[int] = (256, 320),
        crop: int = 224,
        flip: bool = True,
    ) -> None:
        """
        Args:
            frames, step: of a clip. 32 of 64 consecutive frames: 32 and 2.
            clips: evenly over a video that is tested. In training there is one, anywhere.
            short_side: the smallest and largest one in training. Tests have the smallest, without a crop.
            crop: the side of the squares in training.
            flip: half of the clips, in training. Not where left and right are part of a class.
        """
        self.is_train, self.frames, self.step, self.clips = is_train, frames, step, clips
        sides = [*range(short_side[0], short_side[-1] + 1)]
        steps = [v2.RandomShortestSize(sides, antialias=True), v2.RandomCrop(crop)]
        self.augment = v2.Compose([*steps, v2.RandomHorizontalFlip(0.5 if flip else 0)])
        self.resize = v2.Resize(sides[0], antialias=True)
        self.unreadable = multiprocessing.Value("i")

    def __call__(self, record: dict) -> dict | None:
        """The record with `clips` (K, 3, frames, H, W) uint8."""
        span = self.frames * self.step
        video = record["file_name"]
        try:
            if self.is_train:  # PyTorch's generator is seeded for each worker and epoch, numpy's is not
                starts = random_start(np.random.default_rng(int(torch.randint(2**31, ()))), span)
                clip = torch.from_numpy(read_clips(video, starts, self.frames, self.step)[0])
                clips = self.augment(clip.permute(0, 3, 1, 2)).transpose(0, 1)[None]
            else:
                starts = even_starts(self.clips, span)
                clips = torch.from_numpy(read_clips(video, starts, self.frames, self.step, self._resized))
                clips = clips.permute(0, 4, 1, 2, 3)
        except UnreadableVideoError as error:
            with self.unreadable:
                self.unreadable.value += 1
                count = self.unreadable.value
            logger.warning("A video is skipped, as it cannot be read (the %d. time): %s", count, error)
            return None if self.is_train else record
        return record | {"clips": clips}

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        """A frame (H, W, 3) of a test."""
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
        return self.resize(pixels).permute(1, 2, 0).numpy()
