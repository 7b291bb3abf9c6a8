"""Parameters and FLOPs of the networks of Tables 1 and 2, beside the paper's."""

from collections.abc import Callable
from functools import cache, partial

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .nets import PLACES, add_non_local, c2d, i3d

CLIP = (1, 3, 32, 224, 224)
# The paper's parameters and FLOPs, as multiples of C2D R101's: Table 2e, and of R50 in Section 5.1.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "C2D R101": (partial(c2d, 101), "43.2 M, 34.2 B"),
    "C2D R101, stride in the first 1x1": (lambda: stride_in_1x1(c2d(101)), ""),
    "I3D 3x3x3 R101": (partial(i3d, 101, "3x3x3"), "1.5x, 1.8x"),
    "I3D 3x1x1 R101": (partial(i3d, 101, "3x1x1"), "1.2x, 1.5x"),
    "NL C2D R101, 5 blocks": (lambda: add_non_local(c2d(101), PLACES[5][101]), "1.2x, 1.2x"),
    "C2D R50": (partial(c2d, 50), ""),
    "NL C2D R50, 1 block": (lambda: add_non_local(c2d(50), PLACES[1][50]), ""),
    "NL C2D R50, 5 blocks": (lambda: add_non_local(c2d(50), PLACES[5][50]), "70 %, 80 %"),
    "NL C2D R50, 10 blocks": (lambda: add_non_local(c2d(50), PLACES[10][50]), ""),
}


def cost_table() -> str:
    """A row for each network, with parameters and multiply-adds for a clip of 32 x 224 x 224."""
    costs = {name: cost(name) for name in NETWORKS}
    first = costs["C2D R101"]
    rows = [
        {
            "network": name,
            "parameters": f"{parameters / 1e6:.1f} M",
            "FLOPs": f"{flops / 1e9:.1f} B",
            "to C2D R101": f"{parameters / first[0]:.2f}x, {flops / first[1]:.2f}x",
            "the paper's": NETWORKS[name][1],
        }
        for name, (parameters, flops) in costs.items()
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


@cache
def cost(name: str) -> tuple[int, int]:
    """Parameters and multiply-adds (the paper's FLOPs) of a network for `CLIP`, without computing any."""
    with torch.device("meta"):
        net = NETWORKS[name][0]().eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.empty(CLIP))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def stride_in_1x1(net: nn.Module) -> nn.Module:
    """Move the strides of residual blocks from the 3x3 to the first 1x1 convolution, in place."""
    for block in (module for module in net.modules() if hasattr(module, "downsample")):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return net
