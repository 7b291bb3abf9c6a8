"""The command line of train_net.py: Detectron2's flags, checked before anything is built."""

import argparse
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from nl_detectron import model_zoo
from nl_detectron.checkpoint import Checkpointer
from nl_detectron.config import get_cfg
from nl_detectron.data import add_register_coco, register_from
from nl_detectron.errors import UserError, one_line_errors, reported_as_user_errors

from .dry_run import DryRun
from .forecast import report_forecast
from .preflight import check, check_types
from .trainer import Trainer

logger = logging.getLogger(__name__)

EPILOG = """
Examples:

Train on 8 GPUs, on one, or on the CPU where there is none:
    $ train_net.py --num-gpus 8 --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml

Evaluate a checkpoint on the config's test set:
    $ train_net.py --config-file CONFIG --eval-only MODEL.WEIGHTS output/model_final.pth

Continue after an interruption, or change any key of the config:
    $ train_net.py --config-file CONFIG --resume
    $ train_net.py --config-file CONFIG SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 0.0025

Check all of it first, in seconds, or train on data of your own:
    $ train_net.py --config-file CONFIG --dry-run
    $ train_net.py --config-file CONFIG --register-coco birds train.json images DATASETS.TRAIN "('birds',)"

Two machines:
    (machine0)$ train_net.py --machine-rank 0 --num-machines 2 --dist-url URL --config-file CONFIG
    (machine1)$ train_net.py --machine-rank 1 --num-machines 2 --dist-url URL --config-file CONFIG
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (sys.argv's without it); a user's mistake ends in one line."""
    args = argument_parser().parse_args(argv)
    with one_line_errors():
        if args.dry_run:
            sys.exit(0 if DryRun(*read_config(args)).run() else 1)
        cfg = load_config(args)
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(cfg, args),
        )


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's flags, and ours."""
    parser = default_argument_parser(EPILOG)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the config, data sets, weights and learning rate, a line each, and end",
    )
    parser.add_argument(
        "--auto-scale",
        action="store_true",
        help="scale batch, learning rate and schedule of a config for 8 GPUs to the processes there are",
    )
    add_register_coco(parser)
    parser.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="with --eval-only: evaluate weights that lack tensors of the model or have others",
    )
    return parser


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train or evaluate in this process."""
    with one_line_errors():
        default_setup(cfg, args)
        register_from(args)  # again in each process of a launcher
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="nl_detectron")
        if args.eval_only:
            evaluate(cfg, resume=args.resume, allow_mismatch=args.allow_mismatch)
        else:
            with reported_as_user_errors("Detectron2 cannot set up this training"):
                trainer = Trainer(cfg)
            with reported_as_user_errors(_loading(cfg, args.resume)):
                trainer.resume_or_load(resume=args.resume)
            trainer.train()


def evaluate(cfg: CfgNode, resume: bool = False, allow_mismatch: bool = False) -> OrderedDict:
    """Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint of OUTPUT_DIR, if there is one.

    Args:
        allow_mismatch: evaluate a model that the checkpoint does not hold all of. New non-local blocks are
            always allowed.

    Returns:
        The metrics of each task, with test-time augmentation also those of `<task>_TTA`.

    Raises:
        UserError: if the checkpoint cannot be loaded, or not without `allow_mismatch`.
    """
    if not (cfg.MODEL.WEIGHTS or resume):
        logger.warning("MODEL.WEIGHTS is empty: this evaluates a model of random weights")
    model = Trainer.build_model(cfg)
    report_forecast(cfg, model, training=False)
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
    with reported_as_user_errors(_loading(cfg, resume)):
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    if checkpointer.report and not allow_mismatch:
        checkpointer.report.check_whole()
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_tta(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def load_config(args: argparse.Namespace) -> CfgNode:
    """The frozen config of a command line, checked as far as no model is needed for it.

    Raises:
        UserError: naming what is wrong with the config or a data set, and the remedy.
        OSError: if a file of it cannot be read.
    """
    cfg, args, given = read_config(args)
    check(cfg, args, given)
    cfg.freeze()
    return cfg


def read_config(args: argparse.Namespace) -> tuple[CfgNode, argparse.Namespace, set[str]]:
    """The config of a command line, the command line, and the config keys that the user gave explicitly.

    Its data sets are registered, and what this machine has not is turned off, saying so.

    Raises:
        As `load_config`, for what cannot be read.
    """
    if not args.config_file:
        raise UserError("--config-file must be given. The configs are in configs/.")
    args.config_file = _find_config(args.config_file)
    cfg = get_cfg()
    with reported_as_user_errors(args.config_file):
        cfg.merge_from_file(args.config_file)
        given = _non_local_keys(args.config_file)
        cfg.merge_from_list(args.opts)
    check_types(cfg)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        print("No GPU is available: MODEL.DEVICE is set to cpu.")
        cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.DEVICE == "cpu" and cfg.SOLVER.AMP.ENABLED:
        print("Detectron2's mixed precision needs a GPU: SOLVER.AMP.ENABLED is set to False.")
        cfg.SOLVER.AMP.ENABLED = False
    if args.auto_scale and not cfg.SOLVER.REFERENCE_WORLD_SIZE:
        cfg.SOLVER.REFERENCE_WORLD_SIZE = 8  # what Detectron2's configs and ours are for
    register_from(args)
    return cfg, args, {*given, *args.opts[::2]}


def _loading(cfg: CfgNode, resume: bool) -> str:
    """What is said when a checkpoint cannot be loaded."""
    what = f"the last checkpoint in {cfg.OUTPUT_DIR}, or " if resume else ""
    return f"{what}MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} cannot be loaded"


def _non_local_keys(config_file: str) -> set[str]:
    """The keys of MODEL.NON_LOCAL that a config file and its bases give, even if at their defaults.

    A file that gives all of them was written by a run, whose defaults they may be: it gives none.
    """
    content = CfgNode.load_yaml_with_base(config_file, allow_unsafe=True)  # as merge_from_file does
    given = content.get("MODEL", {}).get("NON_LOCAL", {})
    is_dump = set(given) == set(get_cfg().MODEL.NON_LOCAL)
    return set() if is_dump else {f"MODEL.NON_LOCAL.{key}" for key in given}


def _find_config(name: str) -> str:
    """A config file by its path, or by its name relative to the shipped configs."""
    if os.path.isfile(name):
        return name
    try:
        return model_zoo.get_config_file(name.removeprefix("configs/"))
    except RuntimeError:
        raise UserError(
            f"--config-file must be a file or a config of nl_detectron; got {name!r}. "
            "The configs are in configs/."
        ) from None
