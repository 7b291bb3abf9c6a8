"""Table 1, inflation (Section 4), and where blocks go (Section 5.1, Table 2d)."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from lively_norms import with_lively_norms
from nl_video import PLACES, add_non_local, c2d, i3d
from nl_video.costs import NETWORKS, cost, cost_table
from nl_video.nets import INFLATED, AlongAxes
from torch import Tensor, nn

from nl_detectron import NonLocalBlock
from nl_detectron.modeling import non_local_blocks


@pytest.mark.parametrize("depth", [50, 101])
def test_the_maps_of_table_1(depth: int) -> None:
    """Frames, height and width behind each layer, of a clip of 32 x 224 x 224."""
    with torch.device("meta"):
        net, x = c2d(depth).eval(), torch.empty(1, 3, 32, 224, 224)
        sizes = {}
        for name, module in net.named_children():
            if name == "avgpool":
                break
            x = module(x)
            sizes[name] = tuple(x.shape[1:])
    assert sizes["conv1"] == (64, 16, 112, 112)
    assert sizes["maxpool"] == (64, 8, 56, 56)
    assert sizes["layer1"] == (256, 4, 56, 56)  # behind pool2
    assert sizes["layer2"] == (512, 4, 28, 28)
    assert sizes["layer3"] == (1024, 4, 14, 14)
    assert sizes["layer4"] == (2048, 4, 7, 7)
    assert [len(net.layer2), len(net.layer3), len(net.layer4)] == [4, {50: 6, 101: 23}[depth], 3]


def image_network(net: nn.Module) -> nn.Module:
    """torchvision's R50 of images with the weights of a C2D."""
    flat = torchvision.models.resnet50(num_classes=net.fc.out_features)
    state = {
        name: value.squeeze(2) if value.dim() == 5 else value for name, value in net.state_dict().items()
    }
    flat.load_state_dict({name: v.squeeze(2) if v.dim() == 5 else v for name, v in state.items()})
    return flat.eval()


def test_c2d_of_a_repeated_frame_is_the_network_of_images() -> None:
    net = with_lively_norms(c2d(50, num_classes=7))
    frame = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = image_network(net)(frame)
        given = net(frame.unsqueeze(2).expand(-1, -1, 16, -1, -1))
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def repeat_border_frames(net: nn.Module) -> None:
    """Pad convolutions over time with the frames at the border instead of zeros, as if the clip went on."""

    def pad(conv: nn.Conv3d, inputs: tuple[Tensor]) -> Tensor:
        return F.pad(inputs[0], (0, 0, 0, 0, *[conv.kernel_size[0] // 2] * 2), mode="replicate")

    for module in net.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
            module.padding = (0, *module.padding[1:])
            module.register_forward_pre_hook(pad)


@pytest.mark.parametrize("kernel", ["3x3x3", "3x1x1"])
def test_i3d_of_a_repeated_frame_is_the_network_of_images(kernel: str) -> None:
    """With inflated weights, but for the zeros around a clip."""
    flat = with_lively_norms(c2d(50, num_classes=7))
    net = i3d(50, kernel, num_classes=7).eval()
    state = net.state_dict()
    for name, value in flat.state_dict().items():
        frames = state[name].shape[2] if value.dim() == 5 else 1
        state[name] = value.repeat(1, 1, frames, 1, 1) / frames if frames > 1 else value
    net.load_state_dict(state)
    repeat_border_frames(net)
    frame = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = image_network(flat)(frame)
        given = net(frame.unsqueeze(2).expand(-1, -1, 16, -1, -1))
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("kernel", "shape", "which"), [("3x3x3", (3, 3, 3), "conv2"), ("3x1x1", (3, 1, 1), "conv1")]
)
def test_what_is_inflated(kernel: str, shape: tuple[int, ...], which: str) -> None:
    with torch.device("meta"):
        net = i3d(101, kernel)
    assert net.conv1.kernel_size == (5, 7, 7)
    convs = {name: conv for name, conv in net.named_modules() if isinstance(conv, nn.Conv3d)}
    found = {name for name, conv in convs.items() if conv.kernel_size[0] == 3}
    lengths = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
    expected = {f"{stage}.{k}.{which}" for stage, ks in INFLATED.items() for k in ks if k < lengths[stage]}
    assert found == expected
    assert all(net.get_submodule(name).kernel_size == shape for name in found)


@pytest.mark.parametrize("blocks", [1, 5, 10])
@pytest.mark.parametrize("depth", [50, 101])
def test_where_blocks_go(blocks: int, depth: int) -> None:
    with torch.device("meta"):
        net = add_non_local(c2d(depth), PLACES[blocks][depth])
    found = [name for name, block in non_local_blocks(net) if block.dim == 3]
    assert len(found) == blocks
    if depth == 50 and blocks == 5:  # after every other residual block
        assert found == [f"layer2.non_local_{k}" for k in (2, 4)] + [
            f"layer3.non_local_{k}" for k in (2, 4, 6)
        ]


@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("axes", ["space", "time"])
def test_blocks_over_space_or_time(axes: str, pairwise: str) -> None:
    """As a loop over all frames, or over all places, with a block of its own dimension."""
    module = with_lively_norms(AlongAxes(8, axes, pairwise=pairwise))
    x = torch.randn(2, 8, 3, 4, 6)
    expected = torch.empty_like(x)
    with torch.no_grad():
        given = module(x)
        if axes == "space":
            for t in range(3):
                expected[:, :, t] = module.block(x[:, :, t])
        else:
            for h in range(4):
                for w in range(6):
                    expected[..., h, w] = module.block(x[..., h, w])
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("axes", ["spacetime", "space", "time"])
def test_a_new_block_is_the_identity(axes: str) -> None:
    net = with_lively_norms(c2d(50, num_classes=5))
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        expected = net(clip)
        add_non_local(net, PLACES[5][50], axes).eval()
        assert net(clip).equal(expected)
    kinds = [type(net.get_submodule(f"layer3.non_local_{k}")) for k in (2, 4, 6)]
    assert set(kinds) == {NonLocalBlock if axes == "spacetime" else AlongAxes}
    net(clip).sum().backward()
    assert all(block.out.norm.weight.grad.abs().max() > 0 for _, block in non_local_blocks(net))


def test_blocks_that_are_there_stay() -> None:
    """Also their kind; new ones have the state of the stage."""
    net = c2d(50, num_classes=2).double().eval()
    add_non_local(net, {"layer2": [-1]})
    first = net.layer2.non_local_3
    add_non_local(net, {"layer3": [-1]}, "time")
    assert net.layer2.non_local_3 is first
    block = net.layer3.non_local_5
    assert (block.axes, block.block.g.weight.dtype, block.block.training) == ("time", torch.float64, False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: c2d(18), "depth must be 50 or 101; got 18"),
        (lambda: i3d(50, "1x3x3"), "kernel must be '3x3x3' or '3x1x1'"),
        (
            lambda: add_non_local(c2d(50), {"layer3": [-1]}, "spacetiem"),
            "axes must be 'spacetime', 'space' or",
        ),
    ],
)
def test_mistakes(call, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_costs_are_those_of_the_paper() -> None:
    """Rounded as in Table 2e and Section 5.1; FLOPs of the first row are 3 % higher, the parameters 0.3 %."""
    costs = {name: cost(name) for name in NETWORKS}
    parameters, flops = costs["C2D R101"]
    assert parameters == pytest.approx(43.2e6, rel=0.003)
    assert flops == pytest.approx(34.2e9, rel=0.035)
    assert costs["C2D R101, stride in the first 1x1"][1] == pytest.approx(34.2e9, rel=0.006)
    for name, expected in {
        "I3D 3x3x3 R101": (1.5, 1.8),
        "I3D 3x1x1 R101": (1.2, 1.5),
        "NL C2D R101, 5 blocks": (1.2, 1.2),
        "NL C2D R50, 5 blocks": (0.7, 0.8),
    }.items():
        assert (round(costs[name][0] / parameters, 1), round(costs[name][1] / flops, 1)) == expected
    table = cost_table()
    assert (
        "| NL C2D R101, 5 blocks             | 50.7 M       | 43.4 B  | 1.17x, 1.23x  | 1.2x, 1.2x     |"
        in table
    )
