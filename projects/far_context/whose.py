#!/usr/bin/env python
"""Two figures, two discs: what a block alone makes of a trained model's features. See README.md.

    python projects/far_context/experiment.py --arm mask/own_baseline
    python projects/far_context/whose.py

In a detector, blocks find the red disc, but not whose it is. Here a block learns alone to tell what each
figure's own disc says. Its x is what it would get in the trained baseline of the same seed, with zero mean
and unit variance of each channel, and stays as it is. A convolution reads z at the figures.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog
from far_context.controls import GlobalContextBlock
from far_context.evaluation import center, dataset_of, input_of, predictor_of
from far_context.folder import read_experiment
from far_context.matrix import OWN, Training
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits
from tqdm import tqdm, trange

from nl_detectron.engine import Run, program_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.inspect import query_dependence
from nl_detectron.layers import NonLocalBlock

PICTURES = 8  # in a step
LEARNING_RATE = 1e-3

Data = tuple[Tensor, Tensor, Tensor]  # see `look_at`


def positional_encoding(x: Tensor) -> Tensor:
    """p (C, H, W) of a map x (B, C, H, W): A.4 of DETR (Carion et al., 2020), with 2 pi for the whole map.

    Sines and cosines of the row in the first half of the channels, of the column in the other one.
    """
    channels, *sizes = x.shape[1:]
    frequencies = 10000 ** -torch.linspace(0, 1, channels // 4 + 1)[:-1, None]
    codes = []
    for axis, size in enumerate(sizes):
        angles = 2 * torch.pi * (torch.arange(size) + 0.5) / size * frequencies
        code = torch.cat((angles.sin(), angles.cos()))  # (C / 2, size)
        codes.append(code.unsqueeze(2 - axis).expand(-1, *sizes))
    return torch.cat(codes)


class PositionalBlock(NonLocalBlock):
    """A non-local block whose pairs compare where two positions are, too: theta and phi of x + p, g of x."""

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        theta, phi, _ = super().embed(x + positional_encoding(x))
        return theta, phi, super().embed(x)[2]


class PositionalGlobalContextBlock(GlobalContextBlock):
    """One softmax map for all positions, which depends on where its positions are, too."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x + positional_encoding(x))


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "GC": GlobalContextBlock,
    "GC, positions encoded": PositionalGlobalContextBlock,
    "NL": NonLocalBlock,
    "NL, positions encoded": PositionalBlock,
}


class Reader(nn.Module):
    """A block, and the convolution that reads its z."""

    def __init__(self, block: Callable[[int], nn.Module], channels: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.convolution = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
        self.predictor = nn.Linear(channels, 1)
        self.block = block(
            channels
        )  # the last one, so that all readers of a seed have the same weights before it

    def forward(self, x: Tensor, cells: Tensor) -> Tensor:
        """The logits (B, 2) that figures are of the second category; see `look_at`."""
        features = avg_pool2d(self.convolution(self.block(x)), kernel_size=3, stride=1, padding=1).flatten(2)
        at_figures = features.gather(2, cells[:, None].expand(-1, features.shape[1], -1))  # (B, C, 2)
        return self.predictor(at_figures.transpose(1, 2))[..., 0]


@torch.no_grad()
def look_at(run: Run, dataset: str) -> Data:
    """What there is to learn from in a data set.

    Returns:
        x (B, C, H, W), what goes into the last block of res4; cells (B, 2), the position of each figure's
        center in the flattened map; labels (B, 2), its category.
    """
    model, x, cells, labels = predictor_of(run).model, [], [], []
    for record in tqdm(DatasetCatalog.get(dataset), desc=f"features of {dataset}", leave=False):
        x.append(input_of(model.backbone.bottom_up.res4[-1], model, run.cfg, [record]).cpu())
        stride = record["width"] / x[-1].shape[3]
        centers = [center(figure["bbox"]) for figure in record["annotations"]]
        cells.append([int(down / stride) * x[-1].shape[3] + int(across / stride) for across, down in centers])
        labels.append([figure["category_id"] for figure in record["annotations"]])
    return torch.cat(x), torch.tensor(cells), torch.tensor(labels)


def standardised(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Maps with zero mean and unit variance of each channel over the first ones."""
    mean, deviation = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    return [(x - mean) / deviation.clamp(min=1e-6) for x in (train, *others)]


def learn(reader: Reader, data: Data, steps: int, seed: int, name: str) -> None:
    """Train a reader, by Adam."""
    x, cells, labels = data
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(reader.parameters(), LEARNING_RATE)
    for _ in trange(steps, desc=name, leave=False):
        some = torch.randint(len(x), (PICTURES,), generator=rng)
        loss = binary_cross_entropy_with_logits(reader(x[some], cells[some]), labels[some].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def look_back(reader: Reader, data: Data) -> dict[str, str]:
    """How many figures a trained reader gets right, and how far the block's positions differ."""
    x, cells, labels = data
    right = (reader.eval()(x, cells) > 0) == (labels > 0)
    differ = labels[:, 0] != labels[:, 1]
    found = {
        f"right where the two {name}, %": f"{100 * right[where].float().mean():.0f}"
        for name, where in {"agree": ~differ, "differ": differ}.items()
    }
    alike = not isinstance(reader.block, NonLocalBlock)
    return found | {"query dependence": f"{0 if alike else query_dependence(reader.block, x):.2f}"}


def main() -> None:
    parser = program_parser(__doc__)
    text = "of experiment.py, with the trained baselines (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("output/experiment"), metavar="FOLDER", help=text)
    parser.add_argument("--steps", type=int, default=400, help="of each block (default: %(default)s)")
    args = parser.parse_args()
    with one_line_errors():
        experiment = read_experiment(args.output.resolve())
        runs = {seed: experiment.finished(Training(OWN[0], seed)) for seed in OWN[0].seeds}
        trained = {seed: run for seed, run in runs.items() if run}
        if not trained:
            raise UserError(
                f"--output {args.output} needs a finished training of {OWN[0].path}. Train it first."
            )
        print(table(trained, args.steps))


def table(runs: dict[int, Run], steps: int) -> str:
    """A row for each of BLOCKS, with a number for each seed."""
    found: dict[str, list[dict[str, str]]] = {name: [] for name in BLOCKS}
    for seed, run in runs.items():
        dataset = dataset_of(run, "far")
        (x, *train), (others, *val) = look_at(run, dataset.replace("_val", "_train")), look_at(run, dataset)
        x, others = standardised(x, others)
        for name, block in BLOCKS.items():
            torch.manual_seed(seed)
            reader = Reader(block, x.shape[1])
            learn(reader, (x, *train), steps, seed, f"{name}, seed {seed}")
            found[name].append(look_back(reader, (others, *val)))
    rows = [
        {"block": name, "seeds": ", ".join(map(str, runs))}
        | {key: ", ".join(one[key] for one in each) for key in each[0]}
        for name, each in found.items()
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main()
