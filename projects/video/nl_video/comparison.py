"""A light C2D and its non-local nets on drawn clips: blocks over space, time and both (Table 2d)."""

import json
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.engine.hooks import LRScheduler
from detectron2.utils.env import seed_all_rng
from fvcore.common.param_scheduler import CosineParamScheduler
from tabulate import tabulate
from torch import nn
from torch.multiprocessing import _prctl_pr_set_pdeathsig
from torch.utils.data import DataLoader
from torchvision.models.resnet import Bottleneck, ResNet
from tqdm import tqdm

from nl_detectron.files import atomic_write

from .classifier import VideoClassifier
from .drawn import KINDS, DrawnClips
from .evaluator import top
from .nets import add_non_local, as_c2d

SEEDS = (1, 2, 3)
_ONE = {"layer3": [-1]}
_FIVE = {"layer1": [2], "layer2": [0, 1], "layer3": [0, 1]}
ARMS: dict[str, tuple[Mapping, str]] = {  # placement and axes
    "C2D": ({}, ""),
    "+1 NL, space": (_ONE, "space"),
    "+1 NL, time": (_ONE, "time"),
    "+1 NL, spacetime": (_ONE, "spacetime"),
    "+5 NL, space": (_FIVE, "space"),
    "+5 NL, time": (_FIVE, "time"),
    "+5 NL, spacetime": (_FIVE, "spacetime"),
}
_BATCH, _RATE = 8, 0.05
_TEST_SEED, _TEST_CLIPS = 0, 100


@dataclass(frozen=True)
class Result:
    """An arm with a seed, and the accuracy in per cent by the kind of clips."""

    arm: str
    seed: int
    steps: int
    accuracy: dict[str, float]


def light_net(arm: str) -> nn.Module:
    """res2 to res4 with a residual block each, whose reach is less than the distance of far discs."""
    net = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=2, width_per_group=16)
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    net.layer4, net.fc = nn.Identity(), nn.Linear(1024, 2)
    as_c2d(net, dropout=0.0)
    placement, axes = ARMS[arm]
    return add_non_local(net, placement, axes) if placement else net


def compare(output: Path, jobs: int, steps: int, seeds: Sequence[int] = SEEDS) -> list[Result]:
    """Train all arms, `jobs` at a time, each in a process with its share of the cores.

    What is trained already, as results.jsonl in `output` says, is not trained again.
    """
    file = output / "results.jsonl"
    output.mkdir(parents=True, exist_ok=True)
    lines = file.read_text().splitlines() if file.exists() else []
    results = [Result(**json.loads(line)) for line in lines]
    done = {(each.arm, each.seed, each.steps): each for each in results}
    asked = [(arm, seed, steps) for seed in seeds for arm in ARMS]
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (threads,)) as pool:
        running = [pool.submit(train, *key) for key in asked if key not in done]
        for each in tqdm(as_completed(running), desc="training", total=len(running), unit="model"):
            result = each.result()
            done[result.arm, result.seed, result.steps] = result
            with atomic_write(file) as unfinished:
                unfinished.write_text("".join(json.dumps(asdict(one)) + "\n" for one in done.values()))
    return [done[key] for key in asked]


def _begin(threads: int) -> None:
    _prctl_pr_set_pdeathsig(signal.SIGTERM)  # a worker ends with the program
    torch.set_num_threads(threads)


def train(arm: str, seed: int, steps: int) -> Result:
    """Train an arm on all kinds of clips together. All arms have the same clips for one seed."""
    seed_all_rng(seed)
    model = VideoClassifier(light_net(arm))
    clips = DrawnClips(KINDS, steps * _BATCH, seed)
    loader = DataLoader(clips, _BATCH, collate_fn=list)  # in order: no clip comes twice
    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=0.9, weight_decay=1e-4)
    trainer = SimpleTrainer(model, loader, optimizer)
    trainer.register_hooks([LRScheduler(scheduler=CosineParamScheduler(1.0, 0.0))])
    trainer.train(0, steps)
    return Result(arm, seed, steps, {kind: accuracy(model, kind) for kind in KINDS})


@torch.no_grad()
def accuracy(model: VideoClassifier, kind: str) -> float:
    """The percentage of clips of a kind whose class is right."""
    records = [*DrawnClips((kind,), _TEST_CLIPS, _TEST_SEED)]
    outputs = model.eval()([{"clips": record["clips"]} for record in records])
    scores = np.stack([output["scores"].cpu().numpy() for output in outputs])
    return top(1, [record["label"] for record in records], scores)


def comparison_table(results: Sequence[Result]) -> str:
    """A row for each arm: means over the seeds, with the smallest and the largest one."""
    rows = []
    for arm in ARMS:
        done = [each for each in results if each.arm == arm]
        row = {"network": arm, "seeds": ", ".join(str(each.seed) for each in done)}
        for kind in KINDS:
            values = [each.accuracy[kind] for each in done]
            row[kind] = f"{np.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
