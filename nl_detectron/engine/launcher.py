"""train_net.py: training and evaluation, checked before anything is built."""

import json
import logging
import math
import os
import sys
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.data import clean_registered, register_from, tell_mended
from nl_detectron.errors import is_user_error, one_line_errors, wants_tracebacks
from nl_detectron.files import atomic_write
from nl_detectron.names import store_names
from nl_detectron_cli.arguments import train_net_parser
from nl_detectron_cli.known_warnings import silence_known_warnings

from .checks import Checks
from .console import describe_run, describe_schedule, set_up_loggers, where_it_is
from .distributed import is_lost_process, is_under_torchrun, lost_processes_reported, run_in_processes
from .evaluation import summarize
from .flags import read_config
from .resume import fix_seed
from .run_record import describe_code, remove_training
from .trainer import Trainer
from .training_images import draw_training_images

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (sys.argv's without it); a user's mistake ends in one line."""
    train_or_evaluate(train_net_parser().parse_args(argv))


def train_or_evaluate(args: Namespace, register: Callable[[], None] | None = None) -> None:
    """Run a command line of `train_net_parser`; a user's mistake ends in one line.

    Args:
        register: registers data sets. Detectron2's launcher pickles it: each process of a run calls it.
    """
    with one_line_errors():
        if register:
            register()
        if args.dry_run and is_under_torchrun() and int(os.environ["RANK"]):
            sys.exit(0)  # rank 0 prints the checks
        cfg, given = read_config(args)
        if args.auto_scale and not cfg.SOLVER.REFERENCE_WORLD_SIZE:
            cfg.SOLVER.REFERENCE_WORLD_SIZE = 8  # what Detectron2's configs and ours are for
        checks = Checks(cfg, args, given)
        if args.dry_run:
            if not checks.print_all():
                sys.exit(1)
            _draw_training_images(cfg, args)
            sys.exit(0)
        if not is_under_torchrun() or os.environ.get("LOCAL_RANK", "0") == "0":  # once on each machine
            checks.run()
        args.images = checks.images
        del checks  # it holds a model
        if not args.eval_only:
            store_names(cfg)
        cfg.freeze()
        _draw_training_images(cfg, args)
        run_in_processes(partial(run, register=register), cfg, args)


def _draw_training_images(cfg: CfgNode, args: Namespace) -> None:
    """Before the processes of the run know each other; the first one draws."""
    rank = int(os.environ["RANK"]) if is_under_torchrun() else args.machine_rank
    if args.draw_training and not rank:
        folder = draw_training_images(cfg, args.draw_training, args.skip_broken)
        print(f"Drew {args.draw_training} training images into {folder}.", flush=True)


def run(cfg: CfgNode, args: Namespace, register: Callable[[], None] | None = None) -> None:
    """Train or evaluate in this process."""
    silence_known_warnings()
    with one_line_errors(), lost_processes_reported(args):
        fix_seed(cfg, args.resume)
        set_up_loggers(cfg.OUTPUT_DIR, comm.get_rank())
        default_setup(cfg, args)
        if register:
            register()  # again in each process of a launcher, as is --register-coco
        register_from(args)
        for name in cfg.DATASETS.TEST if args.eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            clean_registered(name, args.skip_broken)
            tell_mended(name)
        logging.getLogger("detectron2.engine.train_loop").addFilter(_is_for_the_log)
        logger.info("%s", describe_run(cfg, args.images, trains=not args.eval_only))
        Trainer.skip_broken, Trainer.new_schedule = args.skip_broken, args.new_schedule
        if args.eval_only:
            evaluate(cfg, resume=args.resume, allow_mismatch=args.allow_mismatch)
        else:
            if args.overwrite and comm.is_main_process():
                remove_training(Path(cfg.OUTPUT_DIR))
            trainer = Trainer(cfg, args.images)
            trainer.resume_or_load(resume=args.resume)
            logger.info("%s", describe_schedule(trainer.cfg, trainer.start_iter))
            trainer.train()
            logger.info("%s", where_it_is(cfg))


def evaluate(cfg: CfgNode, resume: bool = False, allow_mismatch: bool = False) -> OrderedDict:
    """The metrics of MODEL.WEIGHTS, or with `resume` of the last checkpoint in OUTPUT_DIR, by task.

    Raises:
        UserError: if the checkpoint cannot be loaded, or without `allow_mismatch` lacks a part of the model.
    """
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    if not allow_mismatch:
        checkpointer.report.check_complete()
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_tta(cfg, model))
    if comm.is_main_process():
        _write_metrics(cfg, results, checkpointer.report.path)
        verify_results(cfg, results)
    return results


def _write_metrics(cfg: CfgNode, results: OrderedDict, weights: str) -> None:
    metrics = {
        key: None if math.isnan(value) else float(value)
        for key, value in flatten_results_dict(results).items()
    }
    record = {"weights": weights, "datasets": list(cfg.DATASETS.TEST), "code": describe_code(), **metrics}
    path = Path(cfg.OUTPUT_DIR) / "inference" / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(record, indent=1))
    logger.info("%s\nThe metrics are in %s.", summarize(results), path)


def _is_for_the_log(record: logging.LogRecord) -> bool:
    """Leave out of Detectron2's log the traceback of an error that ends in one line of ours."""
    _, error, _ = record.exc_info or (None, None, None)
    return not (is_user_error(error) or is_lost_process(error)) or wants_tracebacks()
