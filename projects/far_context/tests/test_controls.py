"""The controls are what they say, start as the identity, and learn."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from far_context.controls import (
    ADDED,
    CHANGED,
    GlobalContextBlock,
    first_weights_as_drawn,
    normed,
    others,
    over_channels,
)
from far_context.folder import Experiment
from made_up_trainings import TRAINING
from torch import nn

from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import summarize_non_local


def trainable(block: NonLocalBlock) -> NonLocalBlock:
    """With a scale of W_z's norm at which all parameters get gradients."""
    nn.init.ones_(block.out.norm.weight)
    return block


@pytest.mark.parametrize("name", ["nl", *ADDED, *CHANGED])
def test_a_new_block_is_the_identity_and_learns(name: str, experiment: Experiment) -> None:
    """Built from the baseline's seed, right before the last block of res4, under a name that moves no key."""
    form = "concatenation" if name.startswith("as_drawn") else "gaussian"
    cfg = experiment.cfg(TRAINING[f"mask/{form}/seed_1"])
    outputs, after = [], []
    for each in ("nl" if name != "nl" else "", name):
        builder = f"build_{each}_resnet_fpn_backbone".replace("__", "_")
        torch.manual_seed(3)
        backbone = BACKBONE_REGISTRY.get(builder)(cfg, ShapeSpec(channels=3))
        after.append(torch.rand(1))
        torch.manual_seed(4)
        outputs.append(backbone(torch.randn(2, 3, 64, 64))["p4"])
    assert after[0] == after[1]
    assert outputs[0].equal(outputs[1])
    added = {"nl": "non_local_5"} | {key: key for key in ADDED}
    names = [child for child, _ in backbone.bottom_up.res4.named_children()]
    assert names == ["0", "1", "2", "3", "4", added.get(name, "non_local_5"), "5"]
    said = "no non-local block" if name in ADDED else "1 non-local block:"
    assert summarize_non_local(backbone, (64, 64)).startswith(said)
    outputs[1].square().sum().backward()
    block = backbone.bottom_up.res4.get_submodule(names[-2])
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_the_residual_block_is_like_its_neighbour(norm: str, experiment: Experiment) -> None:
    cfg = experiment.cfg(TRAINING["mask/residual_block/seed_1"])
    cfg.MODEL.RESNETS.NORM = norm
    stage = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, ShapeSpec(channels=3)).bottom_up.res4
    block, last = stage.residual_block.state_dict(), stage[-1].state_dict()
    assert {key: value.shape for key, value in block.items()} == {k: v.shape for k, v in last.items()}
    for key in ("conv1.weight", "conv2.weight"):
        assert not block[key].equal(last[key])
        fan_out = block[key].shape[0] * block[key].shape[2:].numel()
        torch.testing.assert_close(block[key].std(), torch.tensor((2 / fan_out) ** 0.5), rtol=0.1, atol=0)
    x = torch.randn(2, stage[0].in_channels, 8, 8)
    stage(x).square().sum().backward()
    parameter = stage.residual_block.conv3.norm.weight if norm == "BN" else stage.residual_block.conv3.weight
    assert parameter.grad.abs().max() > 0


def test_the_global_context_is_gcnets() -> None:
    """Against the equation, position by position; the same is added everywhere."""
    block = GlobalContextBlock(6).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 3, 4, dtype=torch.double)
    first, norm, _, last = block.transform
    for image, z in zip(x.flatten(2), block(x).flatten(2), strict=True):
        logits = [block.key.weight.flatten() @ image[:, j] + block.key.bias for j in range(12)]
        weights = torch.cat(logits).exp() / torch.cat(logits).exp().sum()
        context = sum(weights[j] * image[:, j] for j in range(12))
        inner = first.weight.flatten(1) @ context + first.bias
        inner = (inner - inner.mean()) / (inner.var(correction=0) + norm.eps).sqrt()
        inner = (inner * norm.weight.flatten() + norm.bias.flatten()).relu()
        added = last.weight.flatten(1) @ inner + last.bias
        torch.testing.assert_close(z, image + added[:, None])


def test_the_mean_product_of_channels() -> None:
    block = NonLocalBlock(8, pairwise="gaussian", subsample="none").double()
    over_channels(block)
    x = torch.randn(1, 8, 2, 3, dtype=torch.double)
    rows = x.flatten(2)[0].T  # (N, C)
    logits = (rows[:, None] * rows[None]).mean(2)
    theta, phi, g = (each.flatten(2) for each in block.embed(x))
    torch.testing.assert_close(block.operate(theta, phi, g)[0], g[0] @ logits.softmax(1).T)


def test_as_drawn() -> None:
    """The weights before centring: the part of x that all channels have in common takes part in the pairs."""
    x = torch.rand(1, 8, 5, 6, dtype=torch.double)

    def halves(block: NonLocalBlock, x: torch.Tensor) -> list[torch.Tensor]:
        w = block.double().w_f.weight[0].chunk(2)
        return [torch.einsum("d,bdhw->bhw", *each) for each in zip(w, block.embed(x)[:2], strict=True)]

    torch.manual_seed(0)
    centred = NonLocalBlock(8, pairwise="concatenation", subsample="none")
    torch.manual_seed(0)
    with first_weights_as_drawn():
        drawn = NonLocalBlock(8, pairwise="concatenation", subsample="none")
    assert drawn.w_f.weight.equal(centred.w_f.weight)
    without = halves(drawn, x - x.mean(1, keepdim=True))
    for half, same, moved in zip(halves(centred, x), without, halves(drawn, x), strict=True):
        torch.testing.assert_close(half, same, rtol=1e-5, atol=1e-6)
        assert (half - moved).abs().min() > 1e-3


def test_normed() -> None:
    """What is embedded has mean 0 and variance 1 in each channel; x itself is added."""
    block = trainable(NonLocalBlock(4, pairwise="gaussian", subsample="none").double())
    normed(block.double())
    block.double()
    x = 5 + 3 * torch.randn(2, 4, 8, 8, dtype=torch.double)
    theta, _, _ = block.embed(x)
    torch.testing.assert_close(theta.mean((0, 2, 3)), torch.zeros(4, dtype=torch.double), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        theta.var((0, 2, 3), correction=0), torch.ones(4, dtype=torch.double), atol=1e-4, rtol=0
    )
    nn.init.zeros_(block.out.weight)
    assert block(x).equal(x)


@pytest.mark.parametrize("shape", [(4, 4), (4, 6)])
def test_no_position_attends_to_its_own_cell(shape: tuple[int, int]) -> None:
    """Its features change nothing of its own y, if they stay below the maximum of the cell."""
    block = NonLocalBlock(4, pairwise="gaussian").double()
    others(block)
    x = torch.rand(1, 4, *shape, dtype=torch.double)

    def response(x: torch.Tensor) -> torch.Tensor:
        return block.operate(*(each.flatten(2) for each in block.embed(x))).unflatten(2, shape)

    before = response(x)
    changed = x.clone()
    changed[..., 2, 3] += 1  # in the cell of rows 2, 3 and columns 2, 3
    unchanged = torch.ones(shape, dtype=torch.bool)
    unchanged[2, 3] = False  # its theta is another
    differs = (response(changed) - before).abs().amax((0, 1)) > 1e-12
    assert not differs[2:, 2:4][unchanged[2:, 2:4]].any()
    assert differs[:2].all()
    theta, phi, g = (each.flatten(2) for each in block.embed(x))
    weights = (theta[0, :, 0] @ phi[0] * block.logit_scale)[1:].softmax(0)
    torch.testing.assert_close(before[0, :, 0, 0], g[0, :, 1:] @ weights)
