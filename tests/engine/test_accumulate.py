"""SOLVER.ACCUMULATE: the batches of more processes, one after the other, and one step on their mean."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from runs import MASK, arguments, refusal
from torch import Tensor, nn

from nl_detectron import get_cfg
from nl_detectron.engine import main
from nl_detectron.engine.accumulate import accumulated_step
from nl_detectron.engine.resume import differences as changes
from nl_detectron.engine.resume import setting


class Losses(nn.Module):
    """Two losses of a batch (B, 3), means over its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.linear(x)
        return {"loss_a": y[:, 0].square().mean(), "loss_b": 3 * y[:, 1].exp().mean()}


@pytest.fixture
def cfg() -> CfgNode:
    """With clipping that decides the step."""
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = True, "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    return cfg


def loop_of(cfg: CfgNode, model: nn.Module, batches: list[Tensor]) -> SimpleTrainer:
    sgd = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    loop = SimpleTrainer(model, batches, sgd(model.parameters(), lr=1.0, momentum=0.9))
    loop.iter = 0
    return loop


@pytest.mark.parametrize("with_scaler", [False, True])
def test_is_a_step_on_the_mean(cfg: CfgNode, with_scaler: bool) -> None:
    """Two steps of four batches are two steps on all their rows at once; with clipping, and a scaler as of
    AMPTrainer."""
    batches = [torch.randn(5, 3) for _ in range(8)]
    model = Losses()
    usual = loop_of(cfg, copy.deepcopy(model), [torch.cat(batches[:4]), torch.cat(batches[4:])])
    ours = loop_of(cfg, model, batches)
    if with_scaler:
        ours.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with EventStorage(0) as expected:
        usual.run_step(), usual.run_step()
    with EventStorage(0) as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CUDA's autocast does nothing on a CPU, and says so
        accumulated_step(ours, 4), accumulated_step(ours, 4)
    for name, value in usual.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    for name in ("loss_a", "loss_b", "total_loss"):
        assert found.latest()[name][0] == pytest.approx(expected.latest()[name][0], rel=1e-6)
        assert len(found.history(name).values()) == 2


def test_an_overflow_in_one_batch_skips_the_step(cfg: CfgNode) -> None:
    model = Losses()
    before = copy.deepcopy(model.state_dict())
    loop = loop_of(cfg, model, [torch.randn(5, 3), torch.randn(5, 3)])
    loop.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    seen = iter([1.0, float("inf")])
    model.linear.weight.register_hook(lambda gradient: gradient * next(seen))
    with EventStorage(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accumulated_step(loop, 2)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert loop.grad_scaler.get_scale() == 2.0**9


def test_processes_exchange_gradients_once_a_step(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, calls = [False], []

    class Parallel(Losses):
        @contextmanager
        def no_sync(self) -> Iterator[None]:
            waiting[0] = True
            yield
            waiting[0] = False

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            calls.append(waiting[0])
            return super().forward(x)

    monkeypatch.setattr("nl_detectron.engine.accumulate.DistributedDataParallel", Parallel)
    with EventStorage(0):
        accumulated_step(loop_of(cfg, Parallel(), [torch.randn(5, 3)] * 3), 3)
    assert calls == [True, True, False]


def test_processes_and_batches_may_replace_each_other(cfg: CfgNode) -> None:
    cfg.SEED = 1
    one = cfg.clone()
    one.SOLVER.ACCUMULATE = 8
    assert list(changes(setting(cfg, 8), one, 1)) == []
    ((_, text),) = changes(setting(cfg, 8), one, 2)
    assert text == "processes x SOLVER.ACCUMULATE was 8 and is 16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("SOLVER.ACCUMULATE 0", "SOLVER.ACCUMULATE must be 1 or more; got 0."),
        (
            "SOLVER.ACCUMULATE 4",
            "SOLVER.IMS_PER_BATCH is 2, which 1 processes with SOLVER.ACCUMULATE 4 cannot",
        ),
        ("SOLVER.ACCUMULATE 2 SOLVER.REFERENCE_WORLD_SIZE 8", "--auto-scale"),
    ],
)
def test_what_is_refused(options: str, message: str, shapes_root: Path, tmp_path: Path) -> None:
    assert message in refusal(main, [*arguments(MASK, tmp_path), *options.split()])
