"""`train_net.py --dry-run`: a line for each thing that a run needs, in seconds and without running it."""

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data.detection_utils import check_image_size, read_image
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from torch import nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.errors import UserError, reported_as_user_errors
from nl_detectron.modeling import summarize_non_local

from . import preflight
from .processes import count_processes
from .trainer import Trainer

# Detectron2's configs have this learning rate for 16 images a step; RetinaNet's have half of it.
REFERENCE_LR, REFERENCE_IMAGES = 0.02, 16
AP_SCORE_THRESHOLD = 0.05  # Detectron2's: AP counts the unsure detections too

Line = tuple[str, str]  # "ok", "note", "warn" or "FAIL", and what there is to say


class DryRun:
    """The checks of a command line.

    Args:
        cfg, args: as `preflight.check` takes them.
        given: the config keys that the user gave explicitly.
    """

    def __init__(self, cfg: CfgNode, args: argparse.Namespace, given: Iterable[str] = ()) -> None:
        self.cfg, self.args, self.given = cfg, args, given
        self.failed: list[str] = []

    def run(self) -> bool:
        """Print a line a check, as they are done; whether none has failed."""
        failed = self.failed
        for name, check in self._checks():
            for status, text in _lines(check):
                one_line = "; ".join(line.strip() for line in text.splitlines()).replace(":;", ":")
                print(f"{status:<4}  {name}: {one_line}", flush=True)
                if status == "FAIL":
                    failed.append(name)
        count = f"{len(failed)} check{'s' * (len(failed) > 1)} failed; what depends on them was left out."
        print(count if failed else "No check failed: this can run.")
        return not failed

    def _checks(self) -> Iterator[tuple[str, Callable[[], Iterable[Line]]]]:
        yield "config", self._config
        for key, name in preflight.dataset_names(self.cfg, self.args):
            yield f"{key} {name}", lambda key=key, name=name: self._dataset(key, name)
        yield "names", self._names
        if not (self.args.eval_only or self.failed):
            yield "first batch", self._first_batch
        yield "model", self._model
        if "model" not in self.failed:
            yield "weights", self._weights
        if not {"config", "model"}.intersection(self.failed):
            if not self.args.eval_only:
                yield "learning rate", self._learning_rate
        yield "score threshold", self._score_threshold
        yield "output", self._output

    def _config(self) -> Iterator[Line]:
        preflight.check_config(self.cfg, self.args, self.given)
        preflight.check_processes(self.cfg, self.args)
        count = count_processes(self.args)
        processes = f"{count} process{'es' * (count > 1)}"
        yield "ok", f"{self.args.config_file}, on {self.cfg.MODEL.DEVICE}, in {processes}"

    def _dataset(self, key: str, name: str) -> Iterator[Line]:
        preflight.check_dataset(key, name)
        preflight.check_fit(self.cfg, key, name)
        images = preflight.read_dataset(key, name)
        for image in (images[0], images[-1]):
            with reported_as_user_errors(f"{image['file_name']} cannot be decoded"):
                check_image_size(image, read_image(image["file_name"], format=self.cfg.INPUT.FORMAT))
        objects = sum(len(image.get("annotations", ())) for image in images)
        first, last = (Path(images[k]["file_name"]).name for k in (0, -1))
        yield "ok", f"{len(images)} images, {objects} objects; {first} and {last} decoded; counts match"

    def _names(self) -> Iterator[Line]:
        preflight.check_names(self.cfg, self.args)
        yield "ok", "the same classes and keypoints in all data sets"

    def _first_batch(self) -> Iterator[Line]:
        """From the trainer's own loader, which leaves out images without objects to learn from."""
        cfg = self._scaled.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        with reported_as_user_errors("Detectron2 cannot load it"):
            batch = next(iter(Trainer.build_train_loader(cfg)))
        fields = {field for image in batch for field in image["instances"].get_fields()}
        for key, field in (("MASK_ON", "gt_masks"), ("KEYPOINT_ON", "gt_keypoints")):
            if self.cfg.MODEL[key] and field not in fields:
                raise UserError(f"MODEL.{key} must be False for data without {field[3:]}; got True.")
        height, width = batch[0]["image"].shape[1:]
        yield "ok", f"{len(batch)} images; the first, resized, is {height} x {width}"

    @cached_property
    def model(self) -> nn.Module:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        with reported_as_user_errors("Detectron2 cannot build it"):
            return build_model(cfg)

    def _model(self) -> Iterator[Line]:
        yield "ok", f"{self.cfg.MODEL.META_ARCHITECTURE} with {summarize_non_local(self.model)}"

    def _weights(self) -> Iterator[Line]:
        path = preflight.check_weights(self.cfg, self.args)
        if not path:
            frozen = self.cfg.MODEL.RESNETS.NORM == "FrozenBN"
            diverges = ", and random weights with MODEL.RESNETS.NORM 'FrozenBN' diverge: use 'BN' or 'GN'"
            yield "warn" if frozen or self.args.eval_only else "note", f"none{diverges if frozen else ''}"
            return
        checkpointer = Checkpointer(self.model)
        logging.disable()  # Detectron2 has a warning for each tensor that does not fit
        try:
            with reported_as_user_errors(f"{path!r} cannot be loaded"):
                checkpointer.load(path, checkpointables=[])
        finally:
            logging.disable(logging.NOTSET)
        if self.args.eval_only and not self.args.allow_mismatch:
            checkpointer.report.check_whole()
        yield "ok" if checkpointer.report.fits else "warn", str(checkpointer.report)

    @property
    def _scaled(self) -> CfgNode:
        """The config as Detectron2's trainer scales it to the processes there are."""
        if self.args.eval_only:
            return self.cfg
        with reported_as_user_errors("SOLVER cannot be scaled"):
            return DefaultTrainer.auto_scale_workers(self.cfg, count_processes(self.args))

    def _learning_rate(self) -> Iterator[Line]:
        solver = self._scaled.SOLVER
        with reported_as_user_errors("Detectron2 cannot set up this schedule"):
            optimizer = DefaultTrainer.build_optimizer(self.cfg, self.model)
            DefaultTrainer.build_lr_scheduler(self._scaled, optimizer)
        reference = REFERENCE_LR / (2 if self.cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else 1)
        linear = reference * solver.IMS_PER_BATCH / REFERENCE_IMAGES
        text = (
            f"{solver.BASE_LR:g} for {solver.IMS_PER_BATCH} images a step, {solver.MAX_ITER} steps; linear "
            f"scaling of Detectron2's {reference} for {REFERENCE_IMAGES} gives {linear:g}"
        )
        if 0.5 <= solver.BASE_LR / linear <= 2:
            yield "ok", text
        else:
            yield "warn", f"{text}: set SOLVER.BASE_LR to that"

    def _score_threshold(self) -> Iterator[Line]:
        node = "RETINANET" if self.cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
        threshold = self.cfg.MODEL[node].SCORE_THRESH_TEST
        text = f"MODEL.{node}.SCORE_THRESH_TEST is {threshold:g}"
        if threshold <= AP_SCORE_THRESHOLD:
            yield "ok", text
        else:
            yield "warn", f"{text}, which lowers AP: it is computed from unsure detections too. Use 0.05"

    def _output(self) -> Iterator[Line]:
        preflight.check_output(self.cfg.OUTPUT_DIR)
        has_run = (Path(self.cfg.OUTPUT_DIR) / "last_checkpoint").is_file()
        yield "ok", f"{self.cfg.OUTPUT_DIR} {'holds a checkpoint' if has_run else 'can be written'}"


def _lines(check: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    try:
        with reported_as_user_errors("it stops with"):
            yield from check()
    except (UserError, OSError) as error:
        yield "FAIL", str(error)
