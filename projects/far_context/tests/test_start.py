"""What is said of new blocks: against pairs that are written out."""

import pytest
import torch
from detectron2.modeling import build_model
from far_context import start
from far_context.controls import others
from far_context.folder import Experiment
from far_context.matrix import BASELINE, TUNED, WHY_CONCATENATION, Training
from far_context.pictures import MODES, register_pictures, write_pictures
from made_up_trainings import Train

from nl_detectron.layers import NonLocalBlock


def test_active_pairs() -> None:
    """Of a_i + b_j, the 4 and 1 positions of a 2 x 2 map."""
    block = NonLocalBlock(2, pairwise="concatenation")
    for projection in (block.theta, block.phi):
        torch.nn.init.ones_(projection.weight)
    with torch.no_grad():
        block.w_f.weight.copy_(torch.tensor([[1.0, -1.0]]))
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(1, 2, 2, 2)  # a is 0, 2, 4, 6; b, of the maximum, -6
    assert start.look_at(block, x - 1) == {"active pairs, %": pytest.approx(0)}
    with torch.no_grad():
        block.w_f.weight.copy_(torch.tensor([[1.0, -0.5]]))  # b is -3
    assert start.look_at(block, x) == {"active pairs, %": pytest.approx(50)}


def test_logits() -> None:
    """Of a Gaussian block with scale 1 over 2 x 4 positions, in two cells with the maxima 1 and 3."""
    block = NonLocalBlock(2, pairwise="gaussian", scale=False)
    x = torch.tensor([[1.0, 0.0, 3.0, 0.0], [0.0, 1.0, 0.0, 3.0]]).expand(1, 2, 2, 4) / 2**0.5
    # x_i . x_j is the product of the two numbers: 1 and 3 where it is 1, 0 and 0, or 3 and 9.
    weights = torch.tensor([[1.0, 3.0], [0.0, 0.0], [3.0, 9.0]]).softmax(1)  # of the two cells
    one, zero, three = weights
    found = start.look_at(block, x)
    assert found["logits: deviation"] == pytest.approx((2 * 2 + 2 * 6) / 8 / 2**0.5)
    assert found["largest weight, %"] == pytest.approx(100 * (2 * one[1] + 4 * 0.5 + 2 * three[1]) / 8)
    assert found["weight on itself, %"] == pytest.approx(100 * (2 * one[0] + 4 * 0.5 + 2 * three[1]) / 8)
    assert zero.tolist() == [0.5, 0.5]
    others(block)  # of two cells, all weight is on the other one
    found = start.look_at(block, x)
    assert found["logits: deviation"] == pytest.approx((2 * 2 + 2 * 6) / 8 / 2**0.5)
    assert (found["largest weight, %"], found["weight on itself, %"]) == (100, 0)


@pytest.mark.slow
def test_the_table(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is that of the first training, at its first step."""
    for mode in MODES:
        write_pictures(experiment.datasets, mode, train=2, val=2)
    register_pictures(experiment.datasets)
    block, x = start._first(experiment, WHY_CONCATENATION[0], 1)
    assert x.shape == (4, 256, 16, 16)
    assert block.pairwise == "concatenation"
    again, same = start._first(experiment, WHY_CONCATENATION[0], 1)
    assert same.equal(x)
    assert again.theta.weight.equal(block.theta.weight)
    monkeypatch.setattr(start, "WHY_CONCATENATION", ())
    monkeypatch.setattr(start, "_first", lambda experiment, arm, seed: (block, x))
    lines = start.start_table(experiment).splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["+1 NL in res4", "+1 NL, Gaussian"]
    share = f"{start.look_at(block, x)['active pairs, %']:.0f}"
    assert lines[2].split("|")[4].strip() == f"{share}, {share}, {share}"


@pytest.mark.slow
def test_blocks_added_to_trained_models(experiment: Experiment, train: Train) -> None:
    """Their input is that of the trained baseline, and they have no row without its weights."""
    for mode in MODES:
        write_pictures(experiment.datasets, mode, train=2, val=2)
    register_pictures(experiment.datasets)
    added = TUNED[1]
    assert not start._start_is_there(experiment, added)
    for seed in added.seeds:
        train(f"mask/baseline/seed_{seed}")
    assert start._start_is_there(experiment, added)
    cfg = experiment.cfg(Training(BASELINE, 1))
    cfg.MODEL.DEVICE = "cpu"
    trained = build_model(cfg)
    norm = trained.backbone.bottom_up.res4[4].conv3.norm
    torch.nn.init.constant_(norm.bias, 1e6)
    torch.save({"model": trained.state_dict()}, experiment.folder(Training(BASELINE, 1)) / "model_final.pth")
    assert start._first(experiment, added, 1)[1].min() > 9e5
