"""Detectron2's DefaultTrainer with COCO evaluation, exact resuming and a record of the run."""

import logging
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.utils import comm
from torch import Tensor, nn
from torch import distributed as dist

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.compat import complete_checkpoints, data_parallel_on_any_device, with_gradient_scale
from nl_detectron.data.loaders import EvaluationLoader, TrainLoader, build_train_loader
from nl_detectron.errors import UserError
from nl_detectron.modeling import summarize_non_local
from nl_detectron.names import training_metadata
from nl_detectron_cli.arguments import as_typed

from .accumulate import accumulated_step
from .best import BestCheckpoint
from .distributed import is_lost_process
from .evaluation import build_evaluator, summarize
from .precision import autocast, check_precision, use_precision
from .resume import check_resume, differences, keep_newest, restart_schedule, setting
from .run_record import RunRecord, is_evaluated
from .signals import SignalHook
from .validation import validation_losses

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains and evaluates a config on data sets in COCO's format."""

    skip_broken: int = 0  # how many images that cannot be read each process may replace by others
    new_schedule: bool = False  # whether a resume takes learning rate and schedule from the config

    def __init__(self, cfg: CfgNode, images: Mapping[str, int] | None = None) -> None:
        """`images` is how many each data set has, for the record of the run."""
        check_precision(cfg)
        with data_parallel_on_any_device() if _uses_gloo() else nullcontext():
            super().__init__(cfg)
        complete_checkpoints(self)
        self.checkpointer.model.register_forward_hook(_check_losses)
        self._record = RunRecord(self.cfg, comm.get_world_size(), images or {})
        self._changed: list[str] = []  # since the run that this one resumes

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's; a resumed training sees the batches that an uninterrupted one would have seen."""
        rates = [group["initial_lr"] for group in self.optimizer.param_groups]
        super().resume_or_load(resume)
        if self.new_schedule and self.start_iter:
            restart_schedule(self, rates)
        if self.start_iter:
            self._best.resume()
            comm.synchronize()  # some may still look for the last checkpoint
            for hook in self._hooks:
                if isinstance(hook, hooks.PeriodicCheckpointer):
                    keep_newest(hook, Path(self.cfg.OUTPUT_DIR), self.start_iter)
        if resume and not self.checkpointer.has_checkpoint():
            source = self.cfg.MODEL.WEIGHTS or "random weights"
            message = "--resume: no checkpoint in %s; starting at iteration 0 from %s"
            logger.warning(message, self.cfg.OUTPUT_DIR, source)
        if self.start_iter >= self.max_iter and not (Path(self.cfg.OUTPUT_DIR) / "model_final.pth").exists():
            self.checkpointer.save("model_final", iteration=self.iter)  # killed just before
        if not isinstance(self.data_loader, TrainLoader):
            logger.warning("The data loader is not nl_detectron's: a resume has other images and proposals.")
            return
        self.data_loader.start = self.start_iter * self.cfg.SOLVER.ACCUMULATE
        for hook in self._hooks:
            if isinstance(hook, hooks.PreciseBN) and self.cfg.TEST.EVAL_PERIOD:
                batches = self.start_iter // self.cfg.TEST.EVAL_PERIOD * self.cfg.TEST.PRECISE_BN.NUM_ITER
                hook._data_loader.start = batches

    def train(self) -> OrderedDict | None:
        """Train, and save a checkpoint if it is interrupted."""
        if comm.is_main_process():
            self._record.start(self.start_iter, self._changed)
        try:
            results = super().train()
        except (KeyboardInterrupt, RuntimeError) as error:
            if isinstance(error, KeyboardInterrupt) or is_lost_process(error):
                self._save_interrupted()
            raise
        except SystemExit:  # the training is finished, and TEST.EXPECTED_RESULTS are not met
            if comm.is_main_process():
                self._record.stop(finished=True)
            raise
        finally:
            self._signals.restore()
        if comm.is_main_process():
            self._record.stop(finished=True)
        return results

    def _save_interrupted(self) -> None:
        self._signals.disarm()
        step = self._signals.finished_step
        if step is not None and step + 1 < self.max_iter:  # the last step's checkpoint is there already
            self.iter = step
            self.checkpointer.save(f"model_{step:07d}", iteration=step)
        if comm.is_main_process():
            self._record.stop(finished=False)

    def before_train(self) -> None:
        """Also repeat the evaluation of the checkpoint that is resumed, if the metrics lack it."""
        super().before_train()
        period, last = self.cfg.TEST.EVAL_PERIOD, self.start_iter - 1
        is_due = period and last >= 0 and self.start_iter % period == 0 and self.start_iter < self.max_iter
        if is_due and not comm.all_gather(is_evaluated(Path(self.cfg.OUTPUT_DIR), last))[0]:
            logger.info("The metrics lack the evaluation after iteration %d; it is repeated", last)
            self.iter = self.storage.iter = last
            for hook in self._hooks:
                if isinstance(hook, (hooks.EvalHook, hooks.PeriodicWriter)):
                    hook.after_step()
            self.iter = self.storage.iter = self.start_iter

    def after_train(self) -> None:
        self.iter = min(self.iter, self.max_iter)  # Detectron2 counts one too many where no step was left
        has_ended = self.iter == self.max_iter  # not with an error, of which the other processes know nothing
        if not has_ended:  # Detectron2 evaluates after an error in the last step, too
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, hooks.EvalHook)]
        super().after_train()
        if not has_ended:
            return
        broken = dict(ChainMap(*comm.gather(getattr(self.data_loader, "broken", {}))))  # of all processes
        if broken:
            listed = "\n  ".join(broken.values())
            logger.warning("Replaced %d images that could not be read:\n  %s", len(broken), listed)

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        try:
            if self.cfg.SOLVER.ACCUMULATE > 1:
                accumulated_step(self._trainer, self.cfg.SOLVER.ACCUMULATE)
            else:
                super().run_step()
        except FloatingPointError as error:
            images = ", ".join(getattr(self.data_loader, "images", []))
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"The losses of step {self.iter} are not finite: {reason} (images: {images}). Lower "
                "SOLVER.BASE_LR or check the images. --resume repeats the steps since the last checkpoint."
            ) from error

    def state_dict(self) -> dict[str, object]:
        """Detectron2's, with the config and the number of processes, for `load_state_dict` to compare."""
        return {**super().state_dict(), **setting(self.cfg)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        check_resume(state_dict, self.cfg, self.new_schedule)
        super().load_state_dict(with_gradient_scale(self, state_dict))
        changed = dict(differences(state_dict, self.cfg))
        self._changed = list(changed.values())
        if self._changed:
            logger.warning("Other than in the training before: %s", "; ".join(self._changed))
        if self.cfg.SOLVER.AMP.ENABLED and "SOLVER.AMP.ENABLED" in changed:
            logger.warning("The checkpoint has no gradient scale; starting with a new one.")

    def build_hooks(self) -> list[hooks.HookBase]:
        """Detectron2's, one for signals, and test-time augmentation at the end if TEST.AUG is enabled."""
        self.checkpointer = Checkpointer.in_place_of(self.checkpointer)  # before a hook takes it
        self.checkpointer.metadata = training_metadata(self.cfg)
        self._best = BestCheckpoint(self.cfg, self.checkpointer)
        trainer_hooks = super().build_hooks()
        for hook in trainer_hooks:
            if isinstance(hook, hooks.EvalHook):
                hook._func = partial(self._evaluate, partial(self._validate, hook._func))
            elif isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = self.cfg.SOLVER.CHECKPOINTS_KEPT or None
        if self.cfg.TEST.AUG.ENABLED:
            test = partial(self.test_with_tta, self.cfg, self.model)
            hook = hooks.EvalHook(0, partial(self._evaluate, test))
            # After the evaluation, and before the writers, which only the main process has.
            end = len(trainer_hooks) - 1 if comm.is_main_process() else len(trainer_hooks)
            trainer_hooks.insert(end, hook)
        evaluation = next(k for k, hook in enumerate(trainer_hooks) if isinstance(hook, hooks.EvalHook))
        self._signals = SignalHook(self.cfg.TEST.EVAL_PERIOD)
        trainer_hooks.insert(evaluation, self._signals)
        return trainer_hooks

    def _validate(self, evaluate: Callable[[], OrderedDict]) -> OrderedDict:
        """An evaluation; with losses and the best value so far, if there is one every TEST.EVAL_PERIOD."""
        results = OrderedDict(evaluate())
        if comm.is_main_process():
            logger.info("%s", summarize(results))
        if self.cfg.TEST.EVAL_PERIOD and self.cfg.TEST.LOSS_IMAGES:
            results["validation"] = validation_losses(self.cfg, self.checkpointer.model)
        if self.cfg.TEST.BEST_METRIC and comm.is_main_process():
            best = self._best.update(results, min(self.iter, self.max_iter - 1))
            results["best"] = best
        return results

    def _evaluate(self, evaluate: Callable[[], OrderedDict]) -> OrderedDict:
        """An evaluation within the training. If it fails, what was trained until then is saved first.

        All processes evaluate the model that checkpoints hold, with the first one's statistics of BN.
        """
        if comm.get_world_size() > 1:
            for buffer in self.checkpointer.model.buffers():
                dist.broadcast(buffer, src=0)
        try:
            return evaluate()
        except Exception:
            is_last = self.iter + 1 >= self.max_iter  # whose checkpoint is there already
            file = Path(self.cfg.OUTPUT_DIR) / (
                "model_final.pth" if is_last else f"model_{self.iter:07d}.pth"
            )
            if not is_last:
                self.checkpointer.save(file.stem, iteration=self.iter)
            command = as_typed("train_net.py --eval-only")
            how = f"{command} --config-file {file.with_name('config.yaml')} MODEL.WEIGHTS {file}"
            logger.error("The evaluation failed; the training is saved. Evaluate it anew: %s", how)
            raise

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        return build_train_loader(cfg, skip_broken=cls.skip_broken)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> EvaluationLoader:
        return EvaluationLoader(cfg, dataset_name, cls.skip_broken)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        size = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        logger.info("This model has %s", summarize_non_local(model, size))
        use_precision(cfg, model)
        return model

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> COCOEvaluator:
        return build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict:
        """Test with test-time augmentation; the results are called bbox_TTA and segm_TTA."""
        logger.info("Running inference with test-time augmentation ...")
        folder = str(Path(cfg.OUTPUT_DIR) / "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        with autocast(cfg):  # it calls parts of the model
            results = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
        return OrderedDict((f"{task}_TTA", metrics) for task, metrics in results.items())


def _uses_gloo() -> bool:
    return comm.get_world_size() > 1 and dist.get_backend() == "gloo"


def _check_losses(model: nn.Module, inputs: tuple, outputs: Mapping[str, Tensor] | Tensor) -> None:
    """A forward hook: Detectron2's own check, but in the process that has the loss, and its images."""
    losses = outputs if isinstance(outputs, Mapping) else {"total_loss": outputs}
    if model.training and torch.is_grad_enabled() and not sum(losses.values()).isfinite().all():
        wrong = [f"{name} is {loss.item()}" for name, loss in losses.items() if not loss.isfinite().all()]
        raise FloatingPointError(", ".join(wrong) or "their sum is not")
