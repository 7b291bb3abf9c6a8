"""Networks in which nothing is hidden by the zeros and ones of new norms."""

from torch import nn


def with_lively_norms(net: nn.Module) -> nn.Module:
    """Random statistics and scales in all norms, so that nothing is hidden by zeros and ones."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()
