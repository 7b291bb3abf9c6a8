#!/usr/bin/env python
"""Train or evaluate a network of clips by a LazyConfig, with Detectron2's trainer loop: see README.md.

python projects/video/train_net.py --config-file projects/video/configs/nl5_c2d_R50_32f.py --num-gpus 8
"""

import argparse
import logging

from detectron2.config import instantiate
from detectron2.engine import (
    AMPTrainer,
    SimpleTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
    launch,
)
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from nl_video.lazy import read_config
from nl_video.weights import load_weights
from omegaconf import DictConfig
from torch import distributed as dist
from torch import nn

from nl_detectron import summarize_non_local
from nl_detectron.checkpoint import Checkpointer
from nl_detectron.device import usable_device
from nl_detectron.errors import UserError, one_line_errors

logger = logging.getLogger("nl_video")


def main(args: argparse.Namespace) -> None:
    with one_line_errors():
        cfg = read_config(args.config_file, args.opts)
        cfg.train.device = usable_device(cfg.train.device)
        default_setup(cfg, args)
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="nl_video")
        model = instantiate(cfg.model).to(cfg.train.device)
        logger.info(summarize_non_local(model))
        if args.eval_only:
            if new := load_weights(model.net, cfg.train.init_checkpoint):
                raise UserError(f"train.init_checkpoint {cfg.train.init_checkpoint} lacks {new}.")
            evaluate(cfg, model)
        else:
            train(cfg, model, args.resume)


def train(cfg: DictConfig, model: nn.Module, resume: bool) -> None:
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    model = create_ddp_model(model, broadcast_buffers=False)
    loader = instantiate(cfg.dataloader.train)
    trainer = (AMPTrainer if cfg.train.amp else SimpleTrainer)(model, loader, optimizer)
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=trainer)
    is_main = comm.is_main_process()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, cfg.train.checkpoint_period) if is_main else None,
            hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, model)),
            hooks.PeriodicWriter(
                default_writers(cfg.train.output_dir, cfg.train.max_iter), cfg.train.log_period
            )
            if is_main
            else None,
        ]
    )
    start = 0
    if resume and checkpointer.has_checkpoint():
        checkpointer.resume_or_load("", resume=True)
        start = trainer.iter + 1
    elif cfg.train.init_checkpoint:
        new = load_weights(getattr(model, "module", model).net, cfg.train.init_checkpoint)
        logger.info("Loaded %s. New: %s.", cfg.train.init_checkpoint, new or "nothing")
    trainer.train(start, cfg.train.max_iter)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict:
    # Norms have seen other clips in each process. The first one's are saved.
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    loader, evaluator = instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    found = inference_on_dataset(model, loader, evaluator)
    if comm.is_main_process():
        print_csv_format(found)
    return found


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    with one_line_errors():
        launch(main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, (args,))
