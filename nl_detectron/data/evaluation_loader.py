"""The images of an evaluation; those that cannot be read are named, or left out and listed."""

import logging
from collections.abc import Callable, Iterator

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader

from nl_detectron.errors import UserError

from .train_loader import Record, follow_the_trainer, mapped, refuse_more_broken

logger = logging.getLogger(__name__)


class EvaluationLoader:
    """Detectron2's test loader of a data set, in this process.

    COCO's evaluation takes an image that is left out for one without detections.
    """

    def __init__(self, cfg: CfgNode, name: str, skip_broken: int = 0) -> None:
        """
        Args:
            skip_broken: how many images may be left out because they cannot be read.
        """
        mapper = _ReasonForImage(DatasetMapper(cfg, is_train=False), skip_broken)
        self._loader = build_detection_test_loader(cfg, name, mapper=mapper)
        self._loader.worker_init_fn = follow_the_trainer
        self._name, self._skip_broken = name, skip_broken

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Record]]:
        broken: list[str] = []
        for batch in self._loader:
            broken += [image["broken"] for image in batch if "broken" in image]
            refuse_more_broken(broken, self._skip_broken)
            if images := [image for image in batch if "broken" not in image]:
                yield images
        if broken:
            listed = "\n  ".join(broken)
            message = "%d images of %s could not be read, and count as without detections:\n  %s"
            logger.warning(message, len(broken), self._name, listed)


class _ReasonForImage:
    """A mapper that has the reason in the place of an image that cannot be read, if some may be skipped."""

    def __init__(self, mapper: Callable[[Record], Record], skip_broken: int) -> None:
        self._mapper, self._skip_broken = mapper, skip_broken

    def __call__(self, record: Record) -> Record:
        try:
            return mapped(record, self._mapper)
        except (UserError, OSError) as error:
            if not self._skip_broken:
                raise
            return {"broken": str(error)}
