"""Checks of a command line: done before a run starts, and printed by `--dry-run`.

A check returns what it found or raises a UserError. Detectron2 checks the values of its own keys.
"""

import difflib
import json
import logging
import os
import reprlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import filter_images_with_few_keypoints
from detectron2.modeling import build_model
from torch import nn
from tqdm import tqdm

from nl_detectron.checkpoint import check_weights_file, last_intact_checkpoint, load_weights
from nl_detectron.config import check_non_local_keys
from nl_detectron.data import Record, check_broken, clean_registered, why_unreadable
from nl_detectron.errors import UserError, is_user_error
from nl_detectron.modeling import summarize_non_local
from nl_detectron.names import check_names, model_counts
from nl_detectron_cli.arguments import as_typed

from .accumulate import check_batches
from .best import check_best_metric
from .distributed import check_processes, count_processes
from .precision import check_precision
from .resume import check_resume, saved_setting
from .run_record import checkpoints_in

Found = tuple[str, str]  # "ok" or "warn", and what was found

_REMEDIES = {
    "thing_classes": "Give their files the same categories, those without objects too.",
    "keypoint_names": "Give their categories the same keypoints.",
}
COCO_KEYPOINTS = 17  # whose sigmas COCO's evaluation knows


class Checks:
    """The checks of one command line; `given` are the config keys that the user gave explicitly."""

    def __init__(self, cfg: CfgNode, args: Namespace, given: set[str]) -> None:
        self.cfg, self.args, self.given = cfg, args, given
        self.images: dict[str, int] = {}  # of each data set, once it is checked
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
        print(f"{failed} of the checks failed." if failed else "All checks passed.")
        return not failed

    def _checks(self) -> Iterator[tuple[str, Callable[[], Found]]]:
        yield "config", self._check_config
        names = [] if self.args.eval_only else [("DATASETS.TRAIN", name) for name in self.cfg.DATASETS.TRAIN]
        names += [("DATASETS.TEST", name) for name in self.cfg.DATASETS.TEST]
        for key, name in names:
            yield f"{key} {name}", lambda key=key, name=name: self._check_dataset(key, name)
        if self.cfg.TEST.BEST_METRIC and not self.args.eval_only:
            yield "TEST.BEST_METRIC", self._check_best_metric
        yield "model", self._check_model
        yield "weights", self._check_weights
        yield "output", self._check_output

    def _check_config(self) -> Found:
        cfg, args = self.cfg, self.args
        check_non_local_keys(cfg, self.given)
        check_names(cfg)
        check_precision(cfg, trains=not args.eval_only)
        check_processes(cfg, args)
        if not args.eval_only:
            check_batches(cfg, count_processes(args))
        for key, value in (
            ("SOLVER.CHECKPOINTS_KEPT", cfg.SOLVER.CHECKPOINTS_KEPT),
            ("TEST.LOSS_IMAGES", cfg.TEST.LOSS_IMAGES),
            ("--skip-broken", args.skip_broken),
            ("--draw-training", args.draw_training),
        ):
            if value < 0:
                raise UserError(f"{key} must be 0 or more; got {value}.")
        if args.overwrite and (args.resume or args.eval_only):
            raise UserError("--overwrite starts a new training. Leave out --resume and --eval-only.")
        if args.draw_training and args.eval_only:
            raise UserError("--draw-training is a number of training images. Leave out --eval-only.")
        key = "TEST" if args.eval_only else "TRAIN"
        if not cfg.DATASETS[key]:
            raise UserError(f"DATASETS.{key} is empty. Name a data set.")
        is_rcnn = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
        if cfg.TEST.AUG.ENABLED and (cfg.MODEL.KEYPOINT_ON or not is_rcnn):
            kinds = "the boxes and masks of GeneralizedRCNN"
            raise UserError(f"TEST.AUG is for {kinds} only, in Detectron2. Set TEST.AUG.ENABLED to False.")
        return "ok", f"{args.config_file}, on {cfg.MODEL.DEVICE}; processes: {count_processes(args)}"

    def _check_dataset(self, key: str, name: str) -> Found:
        cfg, images = self.cfg, read_dataset(key, name, self.args.skip_broken)
        self.images[name] = len(images)
        self._check_alike(name)
        _check_counts(cfg, name)
        if cfg.MODEL.KEYPOINT_ON:
            _check_keypoints(cfg, key, name, images)
        if key == "DATASETS.TEST":
            _check_evaluator(name)
        _check_truth(cfg, key, name)
        read = self._read_images(images)
        objects = sum(len(image.get("annotations", ())) for image in images)
        mended = MetadataCatalog.get(name).get("mended")
        found = f"{len(images)} images, {objects} objects; {read} can be read"
        return "ok", f"{found}; mended in a copy:\n{mended}" if mended else found

    def _check_alike(self, name: str) -> None:
        """Compare a data set with those checked before: the order of their names numbers the classes."""
        for attribute, remedy in _REMEDIES.items():
            for other in self.images:
                ours, theirs = (MetadataCatalog.get(each).get(attribute) for each in (name, other))
                if ours and theirs and list(ours) != list(theirs):
                    lists = f"{other!r} has {reprlib.repr(theirs)} and {name!r} {reprlib.repr(ours)}"
                    rule = f"All data sets need the same {attribute} in the same order; {lists}"
                    raise UserError(f"{rule}. {remedy}")

    def _check_best_metric(self) -> Found:
        metric, names = self.cfg.TEST.BEST_METRIC, self.cfg.DATASETS.TEST
        if not set(names) <= self.images.keys():
            return "warn", f"{metric}: the test sets could not be read"
        check_best_metric(self.cfg)
        return "ok", f"{metric}, every {self.cfg.TEST.EVAL_PERIOD} steps"

    def _read_images(self, images: Sequence[Record]) -> str:
        """Decode the first and the last image, or all of them; which ones."""
        every = self.args.decode_all
        chosen = tqdm(images, "decoding", unit="image") if every else (images[0], images[-1])
        reasons = dict.fromkeys(reason for image in chosen if (reason := why_unreadable(image)))
        check_broken(reasons, self.args.skip_broken)
        return "all" if every else "the first and the last image"

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
            if not self.args.eval_only:
                processes = count_processes(self.args)
                check_resume(saved_setting(last), self.cfg, self.args.new_schedule, processes)
        if not path:
            if self.args.eval_only:
                raise UserError("--eval-only needs a checkpoint. Set MODEL.WEIGHTS, or give --resume.")
            return "ok", "none: random initialisation"
        check_weights_file(path)
        if self._model is None:
            return "warn", f"{path} exists, but was not loaded: the model could not be built"
        logging.disable()  # Detectron2 warns of each tensor that does not fit
        try:
            report = load_weights(self._model, path, self.args.allow_mismatch or not self.args.eval_only)
        finally:
            logging.disable(logging.NOTSET)
        return ("ok" if report.fits else "warn"), str(report)

    def _check_output(self) -> Found:
        if not self.cfg.OUTPUT_DIR:
            raise UserError("OUTPUT_DIR is empty. Name a folder.")
        folder, args = Path(self.cfg.OUTPUT_DIR).absolute(), self.args
        existing = checkpoints_in(folder)
        weights = Path(self.cfg.MODEL.WEIGHTS.partition("?")[0]).resolve()  # may have a query, on main
        if args.overwrite and weights in [each.resolve() for each in existing]:
            raise UserError(f"--overwrite would delete MODEL.WEIGHTS {self.cfg.MODEL.WEIGHTS}. Move that.")
        if existing and not (args.eval_only or args.resume or args.overwrite):
            remedy = "Give --resume to continue it, --overwrite to delete it, or another OUTPUT_DIR."
            raise UserError(f"OUTPUT_DIR {self.cfg.OUTPUT_DIR!r} holds a training. {remedy}")
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            with TemporaryFile(dir=nearest) as file:
                file.write(bytes(2**20))  # room for a log
        except OSError as error:
            reason = f"{nearest}: {error.strerror}"
            raise UserError(f"OUTPUT_DIR {self.cfg.OUTPUT_DIR!r} cannot be written to: {reason}.") from None
        has_run = (folder / "last_checkpoint").is_file()
        return "ok", f"{self.cfg.OUTPUT_DIR} {'holds a checkpoint' if has_run else 'can be written'}"


def read_dataset(key: str, name: str, may_miss: int = 0) -> list[Record]:
    """The images of a data set that a key names, as Detectron2 reads them behind the door.

    Raises:
        UserError: if it is not there, is refused, or lacks images, or the files of more than `may_miss`.
    """
    if name not in DatasetCatalog.list():
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "See datasets/README.md, --register-coco."
        raise UserError(f"{key} names {name!r}, which is not registered. {remedy}")
    metadata = MetadataCatalog.get(name)
    for path in (metadata.get("json_file"), metadata.get("image_root")):
        if path and "://" not in str(path) and not Path(path).exists():
            root = os.environ.get("DETECTRON2_DATASETS", "not set, so ./datasets")
            command = as_typed("python datasets/generate_shapes.py")
            draw = f"Draw it: {command}. Or set" if "shapes" in name else "Set"
            raise UserError(
                f"{key} {name!r} needs {path}, which does not exist. {draw} DETECTRON2_DATASETS ({root}) to "
                "the folder that holds it: see datasets/README.md."
            )
    clean_registered(name, may_miss)
    try:
        images = DatasetCatalog.get(name)
    except json.JSONDecodeError as error:
        raise UserError(f"{metadata.get('json_file')} is not a JSON file: {error}") from None
    if not images:
        raise UserError(f"{key} {name!r} has no images.")
    return images


def _check_counts(cfg: CfgNode, name: str) -> None:
    """Classes and keypoints of a data set, as far as its metadata has them, against the config's."""
    has_classes = cfg.MODEL.META_ARCHITECTURE in ("GeneralizedRCNN", "RetinaNet", "PanopticFPN")
    for attribute, (key, count) in model_counts(cfg).items():
        names = MetadataCatalog.get(name).get(attribute)
        if names is not None and len(names) != count and (has_classes or attribute != "thing_classes"):
            theirs = f"{name!r} has {len(names)} {attribute}: {reprlib.repr(list(names))}"
            raise UserError(f"{key} is {count}, but {theirs}. Set it to {len(names)}.")


def _check_truth(cfg: CfgNode, key: str, name: str) -> None:
    """Objects and masks against what the config learns; of data sets that came through the door."""
    metadata = MetadataCatalog.get(name)
    is_training = key == "DATASETS.TRAIN"
    if is_training and not metadata.get("has_truth", True):
        raise UserError(f"{key} {name!r} has no objects to learn from.")
    if not cfg.MODEL.MASK_ON or not metadata.get("has_truth"):
        return
    if not metadata.has_masks:
        if is_training:
            raise UserError(f"{key} {name!r} has no masks. Set MODEL.MASK_ON to False.")
    elif count := metadata.objects_without_masks:
        lacking = f"{count} objects without a mask (segmentation), as {metadata.first_without_mask}"
        remedy = "Add their masks, remove the objects, or set MODEL.MASK_ON to False."
        raise UserError(f"{key} {name!r} has {lacking}. {remedy}")
    if is_training and metadata.has_rle and cfg.INPUT.MASK_FORMAT == "polygon":
        raise UserError(f"{key} {name!r} has masks in RLE. Set INPUT.MASK_FORMAT to bitmask.")


def _check_keypoints(cfg: CfgNode, key: str, name: str, images: list[Record]) -> None:
    metadata, count = MetadataCatalog.get(name), cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    names = metadata.get("keypoint_names")
    if key == "DATASETS.TRAIN" and not names:
        raise UserError(f"{key} {name!r} has no keypoints, but MODEL.KEYPOINT_ON is True.")
    least = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    is_only_one = key == "DATASETS.TRAIN" and len(cfg.DATASETS.TRAIN) == 1
    if is_only_one and not filter_images_with_few_keypoints(images, least):
        rule = f"{least} labelled keypoints (MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE)"
        raise UserError(f"{key} {name!r} has no image with {rule}, so that there is nothing to learn from.")
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS or metadata.get("keypoint_oks_sigmas", ())
    if key == "DATASETS.TEST" and names and (len(sigmas) or COCO_KEYPOINTS) != count:
        rule = f"a number for each of the {count} keypoints of {name!r}"
        raise UserError(f"TEST.KEYPOINT_OKS_SIGMAS needs {rule}; got {list(sigmas)}.")


def _check_evaluator(name: str) -> None:
    """Refuse a test set with other metrics than COCO's."""
    kind = MetadataCatalog.get(name).get("evaluator_type", "coco")
    if kind != "coco":
        remedy = "Evaluate it with Detectron2's own tools/train_net.py."
        raise UserError(f"{name!r} has the metrics of {kind!r}, not COCO's. {remedy}")
