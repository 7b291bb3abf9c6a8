"""What only nl_detectron can know about a command line: checked before a run, and printed by `--dry-run`.

A check returns what it found, or raises a UserError. Values of Detectron2's own keys are Detectron2's to check.
"""

import argparse
import difflib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

from nl_detectron.checkpoint import Checkpointer, check_weights_file, last_intact_checkpoint
from nl_detectron.config import check_non_local_keys
from nl_detectron.data.loaders import why_unreadable
from nl_detectron.data.records import Record, check_records
from nl_detectron.errors import UserError, is_user_error
from nl_detectron.modeling import summarize_non_local

from .distributed import check_launcher, count_processes
from .precision import check_precision

Found = tuple[str, str]  # "ok" or "warn", and what was found

COCO_KEYPOINTS = 17  # whose sigmas COCO's evaluation knows
_NEEDED = 2**20  # bytes in OUTPUT_DIR, for a log


class Checks:
    """The checks of one command line.

    Attributes:
        images: the number of images of each data set, once they are checked.
    """

    def __init__(self, cfg: CfgNode, args: argparse.Namespace, given: set[str]) -> None:
        """
        Args:
            given: the config keys that the user gave explicitly.
        """
        self.cfg, self.args, self.given = cfg, args, given
        self.images: dict[str, int] = {}
        self._model: nn.Module | None = None

    def run(self) -> None:
        """Raise the first error, if there is one."""
        for _, check in self._checks():
            check()

    def print_all(self) -> bool:
        """Print a line for each check as it is done; whether none has failed."""
        failed = 0
        for name, check in self._checks():
            try:
                status, text = check()
            except (UserError, OSError) as error:
                if not is_user_error(error):
                    raise
                status, text = "FAIL", str(error)
                failed += 1
            one_line = "; ".join(line.strip() for line in text.splitlines()).replace(":;", ":")
            print(f"{status:<4}  {name}: {one_line}", flush=True)
        print(f"{failed} check{'s' * (failed > 1)} failed." if failed else "All checks passed.")
        return not failed

    def _checks(self) -> Iterator[tuple[str, Callable[[], Found]]]:
        yield "config", self._check_config
        names = [("DATASETS.TEST", name) for name in self.cfg.DATASETS.TEST]
        if not self.args.eval_only:
            names = [("DATASETS.TRAIN", name) for name in self.cfg.DATASETS.TRAIN] + names
        for key, name in names:
            yield f"{key} {name}", lambda key=key, name=name: self._check_dataset(key, name)
        if len(names) > 1:
            yield "classes", lambda: self._check_names([name for _, name in names])
        yield "model", self._check_model
        yield "weights", self._check_weights
        yield "output", self._check_output

    def _check_config(self) -> Found:
        cfg, args = self.cfg, self.args
        check_non_local_keys(cfg, self.given)
        check_precision(cfg)
        check_launcher(cfg, args)
        key = "TEST" if args.eval_only else "TRAIN"
        if not cfg.DATASETS[key]:
            raise UserError(f"DATASETS.{key} is empty. Name a data set.")
        is_rcnn = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
        if cfg.TEST.AUG.ENABLED and (cfg.MODEL.KEYPOINT_ON or not is_rcnn):
            raise UserError(
                "Detectron2 has test-time augmentation for the boxes and masks of GeneralizedRCNN only. Set "
                "TEST.AUG.ENABLED to False."
            )
        count = count_processes(args)
        processes = f"{count} process{'es' * (count > 1)}"
        return "ok", f"{args.config_file}, on {cfg.MODEL.DEVICE}, in {processes}"

    def _check_dataset(self, key: str, name: str) -> Found:
        cfg = self.cfg
        images = _read_dataset(key, name)
        self.images[name] = len(images)
        _check_counts(cfg, name)
        if cfg.MODEL.KEYPOINT_ON:
            _check_keypoints(cfg, key, name)
        if key == "DATASETS.TEST":
            check_evaluator(name)
        is_for_masks = cfg.MODEL.MASK_ON and key == "DATASETS.TRAIN"
        check_records(name, images, cfg.INPUT.MASK_FORMAT if is_for_masks else None)
        for image in (images[0], images[-1]):
            if reason := why_unreadable(image, cfg.INPUT.FORMAT):
                raise UserError(reason)
        objects = sum(len(image.get("annotations", ())) for image in images)
        return "ok", f"{len(images)} images, {objects} objects; the first and the last image can be read"

    def _check_names(self, names: list[str]) -> Found:
        """Data sets of one run must count classes and keypoints alike, or AP would be of others."""
        for attribute in ("thing_classes", "keypoint_names"):
            known = [(name, MetadataCatalog.get(name).get(attribute)) for name in names]
            known = [(name, list(values)) for name, values in known if values is not None]
            for name, values in known[1:]:
                first, others = known[0]
                if values != others:
                    raise UserError(
                        f"The data sets of a run need the same {attribute} in the same order; {first!r} has "
                        f"{_listed(others)} and {name!r} {_listed(values)}."
                    )
        return "ok", "the same classes and keypoints in all data sets"

    def _check_model(self) -> Found:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        self._model = build_model(cfg)
        size = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        return "ok", f"{cfg.MODEL.META_ARCHITECTURE} with {summarize_non_local(self._model, size)}"

    def _check_weights(self) -> Found:
        path = self.cfg.MODEL.WEIGHTS
        if self.args.resume and (last := last_intact_checkpoint(Path(self.cfg.OUTPUT_DIR))):
            path = str(last)
        elif path:
            check_weights_file(path)
        if not path:
            return ("warn" if self.args.eval_only else "ok"), "none: random initialisation"
        if self._model is None:
            return "warn", f"{path} is there; not loaded, as there is no model"
        checkpointer = Checkpointer(self._model)
        logging.disable()  # Detectron2 warns of each tensor that does not fit
        try:
            checkpointer.load(path, checkpointables=[])
        finally:
            logging.disable(logging.NOTSET)
        if self.args.eval_only and not self.args.allow_mismatch:
            checkpointer.report.check_complete()
        return ("ok" if checkpointer.report.fits else "warn"), str(checkpointer.report)

    def _check_output(self) -> Found:
        folder = Path(self.cfg.OUTPUT_DIR).absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            with TemporaryFile(dir=existing) as file:
                file.write(bytes(_NEEDED))
        except OSError as error:
            reason = f"{existing}: {error.strerror}"
            raise UserError(f"OUTPUT_DIR {self.cfg.OUTPUT_DIR!r} cannot be written to: {reason}.") from None
        has_run = (folder / "last_checkpoint").is_file()
        return "ok", f"{self.cfg.OUTPUT_DIR} {'holds a checkpoint' if has_run else 'can be written'}"


def check_evaluator(name: str) -> None:
    """Refuse a test set that COCO's evaluation cannot read."""
    metadata = MetadataCatalog.get(name)
    if missing := metadata.get("missing_for_evaluation"):
        raise UserError(
            f"The annotations of {name!r} have no {' and no '.join(missing)}, which COCO's evaluation reads. "
            "Add them to its JSON."
        )
    kind = metadata.get("evaluator_type", "coco")
    if kind != "coco":
        raise UserError(
            f"{name!r} has the metrics of {kind!r}, not COCO's. Evaluate it with Detectron2's own "
            "tools/train_net.py."
        )


def check_dataset_files(key: str, name: str) -> None:
    """Whether a data set is registered and there."""
    if name not in DatasetCatalog.list():
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        remedy = (
            f"Did you mean {' or '.join(near)}?" if near else "See datasets/README.md, or --register-coco."
        )
        raise UserError(f"{key} names {name!r}, which is not registered. {remedy}")
    metadata = MetadataCatalog.get(name)
    for path in (metadata.get("json_file"), metadata.get("image_root")):
        if path and "://" not in path and not Path(path).exists():
            root = os.environ.get("DETECTRON2_DATASETS", "not set, so ./datasets")
            raise UserError(
                f"{key} {name!r} needs {path}, which does not exist. Set DETECTRON2_DATASETS ({root}) to the "
                "folder that holds it: see datasets/README.md."
            )


def _read_dataset(key: str, name: str) -> list[Record]:
    """The images of a data set, as Detectron2 reads them; at least one."""
    check_dataset_files(key, name)
    try:
        images = DatasetCatalog.get(name)
    except json.JSONDecodeError as error:
        raise UserError(f"{MetadataCatalog.get(name).get('json_file')} is not a JSON file: {error}") from None
    if not images:
        raise UserError(f"{key} {name!r} has no images.")
    return images


def _check_counts(cfg: CfgNode, name: str) -> None:
    """Classes and keypoints of a data set, as far as its metadata has them, against the config's."""
    model, metadata = cfg.MODEL, MetadataCatalog.get(name)
    counts = []
    if model.KEYPOINT_ON:
        head = model.ROI_KEYPOINT_HEAD
        counts.append(("keypoint_names", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", head.NUM_KEYPOINTS))
    if model.META_ARCHITECTURE == "GeneralizedRCNN":
        counts.append(("thing_classes", "MODEL.ROI_HEADS.NUM_CLASSES", model.ROI_HEADS.NUM_CLASSES))
    elif model.META_ARCHITECTURE == "RetinaNet":
        counts.append(("thing_classes", "MODEL.RETINANET.NUM_CLASSES", model.RETINANET.NUM_CLASSES))
    for attribute, key, count in counts:
        names = metadata.get(attribute)
        if names is not None and len(names) != count:
            raise UserError(
                f"{key} is {count}, but {name!r} has {len(names)} {attribute}: {_listed(names)}. Set it to "
                f"{len(names)}."
            )


def _check_keypoints(cfg: CfgNode, key: str, name: str) -> None:
    metadata, count = MetadataCatalog.get(name), cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    names = metadata.get("keypoint_names")
    if key == "DATASETS.TRAIN" and not names:
        raise UserError(f"{key} {name!r} has no keypoints, but MODEL.KEYPOINT_ON is True.")
    if without := metadata.get("objects_without_keypoints", 0):
        raise UserError(
            f"{key} {name!r} has {without} objects without keypoints, which Detectron2 cannot use beside "
            "objects with keypoints. Leave them out."
        )
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS or metadata.get("keypoint_oks_sigmas", ())
    if key == "DATASETS.TEST" and names and (len(sigmas) or COCO_KEYPOINTS) != count:
        raise UserError(
            f"TEST.KEYPOINT_OKS_SIGMAS needs a number for each of the {count} keypoints of {name!r}; got "
            f"{list(sigmas)}."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
