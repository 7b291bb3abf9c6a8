"""What blocks make of features alone: positions move pairs only, and figures are read where they are."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
import whose
from detectron2.modeling import build_model
from far_context.folder import Experiment, set_up
from far_context.matrix import OWN, Training
from far_context.pictures import register_pictures, write_pictures
from torch import nn


def test_the_encoding_of_positions_is_detrs() -> None:
    """A.4: sines and cosines of 2 pi times the place in the map, with wavelengths that grow to 10000."""
    found = whose.positional_encoding(torch.zeros(1, 12, 4, 5))
    for row in range(4):
        for column in range(5):
            expected = []
            for place in ((row + 0.5) / 4, (column + 0.5) / 5):
                angles = [2 * math.pi * place / 10000 ** (k / 3) for k in range(3)]
                expected += [*map(math.sin, angles), *map(math.cos, angles)]
            torch.testing.assert_close(found[:, row, column], torch.tensor(expected))


def test_positions_decide_what_is_attended_to_and_add_nothing() -> None:
    """With features that are everywhere alike, only pairs differ."""
    x = torch.ones(1, 8, 4, 6)
    theta, phi, g = (each.flatten(2) for each in whose.PositionalBlock(8, subsample="none").embed(x))
    logits = theta[0].T @ phi[0]
    assert logits.std(0).min() > 1e-3
    assert logits.std(1).min() > 1e-3
    assert g.std(2).max() < 1e-6
    context = whose.PositionalGlobalContextBlock(8)
    assert context.logits(x).std() > 1e-3
    nn.init.normal_(context.transform[3].weight)
    assert (context(x) - x).std((2, 3)).max() < 1e-6


def test_figures_are_read_where_they_are() -> None:
    """A figure's logit changes with x within 2 positions of it, and with no other; the block adds nothing."""
    reader = whose.Reader(nn.Identity, 3).eval()
    x, cells = torch.rand(2, 3, 8, 10), torch.tensor([[2 * 10 + 3, 5 * 10 + 7], [0, 79]])
    x.requires_grad_()
    for figure, (row, column) in enumerate(((2, 3), (5, 7))):
        (gradient,) = torch.autograd.grad(reader(x, cells)[0, figure], x)
        seen = (gradient[0] != 0).any(0).nonzero()
        assert (seen - torch.tensor([row, column])).abs().max() <= 2
        assert not gradient[1].any()


def test_a_block_learns_from_features() -> None:
    """Two positions whose features say the label: all are right, and counted where they agree and differ."""
    labels = torch.randint(2, (64, 2))
    x = torch.zeros(64, 4, 4, 8)
    x[:, :, 1, 1], x[:, :, 1, 6] = labels[:, :1].float(), labels[:, 1:].float()
    data = x, torch.tensor([[9, 14]]).expand(64, 2), labels
    reader = whose.Reader(whose.BLOCKS["NL"], 4)
    whose.learn(reader, data, 200, 1, "")
    found = whose.look_back(reader, data)
    assert {key: found[key] for key in found if "right" in key} == {
        "right where the two agree, %": "100",
        "right where the two differ, %": "100",
    }
    reader.predictor.weight.data.zero_()
    reader.predictor.bias.data.fill_(1)  # all are of the second category
    found = whose.look_back(reader, data)
    assert found["right where the two differ, %"] == "50"


def test_what_is_looked_at(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes into the last block of res4, and figures in their places on it: one in either half."""
    write_pictures(experiment.datasets, "far", train=2, val=2, kind="own")
    register_pictures(experiment.datasets)
    cfg = experiment.cfg(Training(OWN[0], 1))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    monkeypatch.setattr(whose, "predictor_of", lambda run: SimpleNamespace(model=model))
    x, cells, labels = whose.look_at(SimpleNamespace(cfg=cfg), "shapes_own_far_val")
    assert x.shape == (2, 256, 16, 16)
    assert (cells[:, 0] < 128).all()
    assert (cells[:, 1] >= 128).all()
    assert cells[0].equal(cells[1])  # of a pair
    assert (labels[0] == 1 - labels[1]).all()
    columns = cells % 16
    assert ((columns < 5).all(1) | (columns > 10).all(1)).all()
    (standard,) = whose.standardised(x)
    assert standard.mean((0, 2, 3)).abs().max() < 1e-4


def test_it_needs_a_trained_baseline(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(experiment).close()
    monkeypatch.setattr(sys, "argv", ["whose.py", "--output", str(experiment.output)])
    with pytest.raises(SystemExit, match="needs a finished training of mask/own_baseline"):
        whose.main()
