"""Checks of a command line before anything is built: one clear line instead of Detectron2's depths."""

import argparse
import difflib
import os
from collections.abc import Iterable, Iterator
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from nl_detectron.checkpoint import check_weights_file, last_whole_checkpoint
from nl_detectron.config import check_placement_is_used, get_cfg
from nl_detectron.data import check_records
from nl_detectron.errors import UserError, reported_as_user_errors

from .precision import check_precision
from .processes import check_torchrun, count_processes, under_torchrun
from .values import check_values

_NEEDED = 2**20  # bytes in OUTPUT_DIR, for a log
COCO_KEYPOINTS = 17  # whose sigmas COCO's evaluation has of itself


def check_types(cfg: CfgNode) -> None:
    """Refuse None, which Detectron2's configs let pass as any type, and a device that PyTorch has not."""
    _refuse_none(cfg, get_cfg())
    for key in ("TRAIN", "TEST"):
        names = cfg.DATASETS[key]
        if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
            raise UserError(f"DATASETS.{key} must be a tuple of names; got {names!r}.")
    sides = cfg.INPUT.MIN_SIZE_TRAIN
    if not sides or not all(isinstance(side, int) for side in sides):
        raise UserError(f"INPUT.MIN_SIZE_TRAIN must be a tuple of lengths in pixels; got {sides!r}.")
    _check_device(cfg.MODEL.DEVICE)


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")  # which has no numbers
    if device.type == "meta":
        raise UserError(f"MODEL.DEVICE must be a device like 'cuda' or 'cpu'; got {name!r}.")
    count = torch.cuda.device_count()
    if device.type == "cuda" and count and (device.index or 0) >= count:
        raise UserError(f"MODEL.DEVICE must be one of the {count} GPUs, from 'cuda:0' on; got {name!r}.")


def _refuse_none(node: CfgNode, defaults: CfgNode, prefix: str = "") -> None:
    for key, default in defaults.items():
        if isinstance(default, CfgNode):
            _refuse_none(node[key], default, f"{prefix}{key}.")
        elif node[key] is None and default is not None:
            kind = {"str": "string", "int": "number", "float": "number"}.get(type(default).__name__)
            raise UserError(f"{prefix}{key} must be a {kind or type(default).__name__}; got None.")


def check(cfg: CfgNode, args: argparse.Namespace, given: Iterable[str] = ()) -> None:
    """Refuse what would fail only after minutes of loading, or of training.

    Args:
        given: the config keys that the user gave explicitly.

    Raises:
        UserError: naming the key or flag, the rule, the value and the remedy.
    """
    check_config(cfg, args, given)
    for key, name in dataset_names(cfg, args):
        check_dataset(key, name)
        check_fit(cfg, key, name)
        if key == "DATASETS.TEST":
            read_dataset(key, name)  # or it would fail after all of the training
    check_names(cfg, args)
    check_weights(cfg, args)
    check_processes(cfg, args)
    check_output(cfg.OUTPUT_DIR)


def check_config(cfg: CfgNode, args: argparse.Namespace, given: Iterable[str] = ()) -> None:
    """What the config says of itself; arguments and errors are those of `check`."""
    check_values(cfg)
    check_placement_is_used(cfg, given)
    check_precision(cfg)
    if args.eval_only and not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST must name a data set to evaluate on; got none.")
    if not args.eval_only and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN must name a data set to train on; got none.")
    cuts_polygons = cfg.INPUT.CROP.ENABLED and cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon"
    if cuts_polygons and not args.eval_only and find_spec("shapely") is None:
        raise UserError(
            "INPUT.CROP.ENABLED must be False where the package shapely is not installed, which cuts the "
            "polygons of masks; got True. Install it, or set INPUT.MASK_FORMAT to 'bitmask'."
        )
    if cfg.TEST.AUG.ENABLED and (cfg.MODEL.KEYPOINT_ON or cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN"):
        raise UserError(
            "TEST.AUG.ENABLED must be False for this model; got True. "
            "Detectron2 has test-time augmentation for the boxes and masks of GeneralizedRCNN only."
        )


def check_names(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Refuse data sets that count their classes or keypoints differently: AP would be of others."""
    for attribute in ("thing_classes", "keypoint_names"):
        named = [(name, MetadataCatalog.get(name).get(attribute)) for _, name in dataset_names(cfg, args)]
        named = [(name, list(names)) for name, names in named if names is not None]
        for name, names in named[1:]:
            if names != named[0][1]:
                raise UserError(
                    f"DATASETS must have the same {attribute}, in the same order; {named[0][0]!r} has "
                    f"{', '.join(named[0][1][:5])} ... and {name!r} {', '.join(names[:5])} ..."
                )


def check_processes(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Whether the processes asked for can be, and can share the images of a step."""
    if args.skip_broken < 0:
        raise UserError(f"--skip-broken must be 0 or more; got {args.skip_broken}.")
    if args.timeout <= 0:
        raise UserError(f"--timeout must be above zero, in minutes; got {args.timeout:g}.")
    if under_torchrun():
        check_torchrun(args, cfg.MODEL.DEVICE)
    else:
        _check_launcher(args, cfg.MODEL.DEVICE)
    if ":" in cfg.MODEL.DEVICE and count_processes(args) > 1:
        raise UserError(
            "MODEL.DEVICE must be 'cuda', which is a GPU each, for several processes; "
            f"got {cfg.MODEL.DEVICE!r}."
        )
    images, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference < 0:
        raise UserError(f"SOLVER.REFERENCE_WORLD_SIZE must be a number of GPUs, or 0; got {reference}.")
    parts = reference or count_processes(args)
    if not args.eval_only and (images < 1 or images % parts):
        what = "SOLVER.REFERENCE_WORLD_SIZE" if reference else "the processes"
        raise UserError(
            f"SOLVER.IMS_PER_BATCH must be a positive multiple of {parts} ({what}); got {images}."
        )


def _check_launcher(args: argparse.Namespace, device: str) -> None:
    available = torch.cuda.device_count()
    if device == "cpu" and args.num_gpus * args.num_machines > 1:
        available = 0
    if not 0 <= args.num_gpus <= max(available, 1):
        rule = f"from 1 to the {available} GPUs of this machine"
        if not available:
            rule = "left out without a GPU (torchrun starts several processes on CPUs)"
        raise UserError(f"--num-gpus must be {rule}; got {args.num_gpus}.")
    if args.num_machines < 1 or not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            "--num-machines must be at least 1 and --machine-rank from 0 to one less; "
            f"got {args.num_machines} and {args.machine_rank}."
        )
    if args.num_machines > 1 and not available:
        raise UserError(
            f"--num-machines must be 1 where there is no GPU; got {args.num_machines}. "
            "Several machines need one or more GPUs each, or torchrun."
        )


def dataset_names(cfg: CfgNode, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The key and the name of each data set of a run."""
    if not args.eval_only:
        yield from (("DATASETS.TRAIN", name) for name in cfg.DATASETS.TRAIN)
    yield from (("DATASETS.TEST", name) for name in cfg.DATASETS.TEST)


def check_dataset(key: str, name: str) -> None:
    """Whether it is registered and there."""
    if name not in DatasetCatalog.list():
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        remedy = (
            f"Did you mean {' or '.join(near)}?" if near else "See datasets/README.md, or --register-coco."
        )
        raise UserError(f"{key} must name registered data sets; got {name!r}. {remedy}")
    metadata = MetadataCatalog.get(name)
    for path in (metadata.get("json_file"), metadata.get("image_root")):
        if path and "://" not in path and not Path(path).exists():
            root = os.environ.get("DETECTRON2_DATASETS", "not set, so ./datasets")
            raise UserError(
                f"{key} must name data sets that are there; {name!r} needs {path}, which does not exist. "
                f"Set DETECTRON2_DATASETS ({root}) to the folder that holds it: see datasets/README.md."
            )


def check_fit(cfg: CfgNode, key: str, name: str) -> None:
    """Whether it has the classes and keypoints of the config, and for a test set COCO's metrics."""
    if key == "DATASETS.TEST":
        check_metrics(name)
    _check_counts(cfg, key, name)
    if cfg.MODEL.KEYPOINT_ON:
        _check_keypoints(cfg, key, name)


def check_metrics(name: str) -> None:
    """Refuse a test set that is not to be evaluated as COCO is."""
    metadata = MetadataCatalog.get(name)
    if missing := metadata.get("missing_for_evaluation"):
        raise UserError(
            f"DATASETS.TEST must have annotations with {' and '.join(missing)}, which COCO's evaluation "
            f"reads; those of {name!r} have none. Add them to its JSON."
        )
    kind = metadata.get("evaluator_type", "coco")
    if kind != "coco":
        raise UserError(
            f"DATASETS.TEST must have data sets with COCO's metrics; {name!r} has those of {kind!r}. "
            "Evaluate it with Detectron2's own tools/train_net.py."
        )


def read_dataset(key: str, name: str) -> list[dict[str, object]]:
    """The images of a data set, as Detectron2 reads them; at least one."""
    json_file = MetadataCatalog.get(name).get("json_file")
    with reported_as_user_errors(f"{key}: {name!r} cannot be read{f' from {json_file}' * bool(json_file)}"):
        images = DatasetCatalog.get(name)
    if not images:
        raise UserError(f"{key} must name data sets with images; {name!r} has none.")
    check_records(name, images)
    return images


def _check_counts(cfg: CfgNode, key: str, name: str) -> None:
    """Classes and keypoints of a data set, as far as its metadata has them, against the config's."""
    counts = [("keypoint_names", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS")] if cfg.MODEL.KEYPOINT_ON else []
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        counts.append(("thing_classes", "MODEL.ROI_HEADS.NUM_CLASSES"))
    elif cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        counts.append(("thing_classes", "MODEL.RETINANET.NUM_CLASSES"))
    metadata = MetadataCatalog.get(name)
    for attribute, count_key in counts:
        names = metadata.get(attribute)
        *path, last = count_key.split(".")
        count = reduce(getattr, path, cfg)[last]
        if names is not None and len(names) != count:
            raise UserError(
                f"{count_key} must be {len(names)}, as {name!r} of {key} has {attribute} "
                f"{', '.join(names[:5])}{', ...' * (len(names) > 5)}; got {count}."
            )


def _check_keypoints(cfg: CfgNode, key: str, name: str) -> None:
    metadata, count = MetadataCatalog.get(name), cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if key == "DATASETS.TRAIN" and not metadata.get("keypoint_names"):
        rule = "data sets with keypoints, as MODEL.KEYPOINT_ON is True"
        raise UserError(f"{key} must name {rule}; {name!r} has none.")
    if without := metadata.get("objects_without_keypoints", 0):
        rule = "keypoints for every object, as Detectron2 wants them"
        raise UserError(f"{key} must have {rule}; {name!r} has {without} objects without: leave them out.")
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS or metadata.get("keypoint_oks_sigmas", ())
    is_evaluated = key == "DATASETS.TEST" and metadata.get("keypoint_names")
    if is_evaluated and len(sigmas or range(COCO_KEYPOINTS)) != count:
        raise UserError(
            f"TEST.KEYPOINT_OKS_SIGMAS must have a number for each of the {count} keypoints of {name!r}; "
            f"got {list(sigmas)}."
        )


def check_weights(cfg: CfgNode, args: argparse.Namespace) -> str:
    """The checkpoint that the run begins with, "" for none, if it is there. A URL is not looked up."""
    if args.resume and (last := last_whole_checkpoint(Path(cfg.OUTPUT_DIR))):
        return str(last)
    if cfg.MODEL.WEIGHTS:
        check_weights_file(cfg.MODEL.WEIGHTS)
    return cfg.MODEL.WEIGHTS


def check_output(output_dir: str) -> None:
    """Refuse a folder that cannot be made, or not be written to."""
    folder = Path(output_dir).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with TemporaryFile(dir=existing) as file:
            file.write(bytes(_NEEDED))
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR must be a folder to write to; {existing} is not: {error.strerror}."
        ) from None
