"""train_net.py: training and evaluation, checked before anything is built."""

import argparse
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.data import register_from
from nl_detectron.errors import UserError, one_line_errors, reported_as_user_errors, wants_tracebacks

from .command_line import read_config, train_net_parser
from .dry_run import DryRun
from .preflight import check
from .processes import is_lost_process, lost_processes_reported, run_in_processes
from .resume import describe_code, fix_seed
from .trainer import Trainer

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (sys.argv's without it); a user's mistake ends in one line."""
    args = train_net_parser().parse_args(argv)
    with one_line_errors():
        if args.dry_run:
            if int(os.environ.get("RANK", 0)):
                sys.exit(0)  # one of torchrun's processes says it all
            cfg, given = _read(args)
            sys.exit(0 if DryRun(cfg, args, given).run() else 1)
        run_in_processes(run, load_config(args), args)


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train or evaluate in this process."""
    with one_line_errors(), lost_processes_reported(args):
        fix_seed(cfg, args.resume)
        default_setup(cfg, args)
        register_from(args)  # again in each process of a launcher
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="nl_detectron")
        logging.getLogger("detectron2.engine.train_loop").addFilter(_has_no_line_of_its_own)
        logger.info("%s, SEED %d, %d processes", describe_code(), cfg.SEED, comm.get_world_size())
        Trainer.skip_broken = args.skip_broken
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
        allow_mismatch: evaluate a model that the checkpoint does not hold all of. A baseline's, which has
            no block, is always allowed.

    Returns:
        The metrics of each task, with test-time augmentation also those of `<task>_TTA`.

    Raises:
        UserError: if the checkpoint cannot be loaded, or not without `allow_mismatch`.
    """
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
    if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
        logger.warning("MODEL.WEIGHTS is empty: this evaluates a model of random weights")
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
    cfg, given = _read(args)
    check(cfg, args, given)
    cfg.freeze()
    return cfg


def _read(args: argparse.Namespace) -> tuple[CfgNode, set[str]]:
    cfg, given = read_config(args)
    if args.auto_scale and not cfg.SOLVER.REFERENCE_WORLD_SIZE:
        cfg.SOLVER.REFERENCE_WORLD_SIZE = 8  # what Detectron2's configs and ours are for
    return cfg, given


def _has_no_line_of_its_own(record: logging.LogRecord) -> bool:
    """Leaves out of Detectron2's log the traceback of what ends in one line of ours."""
    _, error, _ = record.exc_info or (None, None, None)
    return not (isinstance(error, (UserError, OSError)) or is_lost_process(error)) or wants_tracebacks()


def _loading(cfg: CfgNode, resume: bool) -> str:
    """What is said when a checkpoint cannot be loaded."""
    what = f"the last checkpoint in {cfg.OUTPUT_DIR}, or " if resume else ""
    return f"{what}MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} cannot be loaded"
