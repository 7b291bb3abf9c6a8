"""What new blocks do before the first step, in a new model or a trained one: how large logits are, and how
many pairs are active.
"""

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng
from tabulate import tabulate
from torch import Tensor

from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import non_local_blocks

from .controls import OthersBlock, own_cells
from .evaluation import input_of
from .folder import Experiment
from .matrix import FORMS, MAIN, TUNED, WHY_CONCATENATION, WHY_GAUSSIAN, Arm, Training

_PICTURES = 2  # the first ones, far and near


def start_table(experiment: Experiment) -> str:
    """A row for each way to set up a Gaussian or concatenation block, with a number for each seed.

    Blocks that are added to trained models need their weights. Without them, they have no row.
    """
    rows = []
    new = MAIN, FORMS[2], *WHY_CONCATENATION[:3]  # the others start alike
    softmax_or_concatenation = [arm for arm in TUNED[1:] + WHY_GAUSSIAN[1:] if "dot_product" not in arm.keys]
    added = [arm for arm in softmax_or_concatenation if _start_is_there(experiment, arm)]
    for arm in (*new, *added):
        found = [look_at(block, x) for block, x in (_first(experiment, arm, seed) for seed in arm.seeds)]
        row = {"from": "the trained baseline" if arm.start else "random weights", "arm": arm.name}
        row["seeds"] = ", ".join(map(str, arm.seeds))
        rows.append(row | {name: ", ".join(f"{each[name]:.0f}" for each in found) for name in found[0]})
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _start_is_there(experiment: Experiment, arm: Arm) -> bool:
    return all(experiment.finished(Training(arm, seed).start) for seed in arm.seeds)


def _first(experiment: Experiment, arm: Arm, seed: int) -> tuple[NonLocalBlock, Tensor]:
    """The block of an arm before its first step, and its input for the first training pictures."""
    cfg = experiment.cfg(Training(arm, seed))
    cfg.MODEL.DEVICE = "cpu"
    seed_all_rng(seed)
    model = build_model(cfg).train()
    if arm.start:
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    records = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)[:_PICTURES]]
    ((_, block),) = non_local_blocks(model)
    return block, input_of(block, model, cfg, records)


@torch.no_grad()
def look_at(block: NonLocalBlock, x: Tensor) -> dict[str, float]:
    """For x (B, C, H, W), with both sides even, and all pairs of its positions:

    of a softmax form, the standard deviation of a position's logits, and the percentages of its weights that
    the largest one and the one on its own pooled cell have; of concatenation, the percentage of active pairs.
    """
    theta, phi, _ = (each.flatten(2).double() for each in block.embed(x))
    if block.pairwise == "concatenation":
        w_theta, w_phi = block.w_f.weight.double().flatten().chunk(2)
        pairs = (w_theta @ theta).unsqueeze(2) + (w_phi @ phi).unsqueeze(1)  # (B, N, M)
        return {"active pairs, %": 100 * (pairs > 0).double().mean().item()}
    logits = block.logit_scale * theta.transpose(1, 2) @ phi  # (B, N, M)
    weights = block.weigh(logits) if isinstance(block, OthersBlock) else logits.softmax(2)
    own = weights.gather(2, own_cells(*x.shape[2:])[None, :, None].expand(len(x), -1, 1))
    return {
        "logits: deviation": logits.std(2).mean().item(),
        "largest weight, %": 100 * weights.amax(2).mean().item(),
        "weight on itself, %": 100 * own.mean().item(),
    }
