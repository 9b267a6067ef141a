"""Initial values of convolutions."""

import math

from torch import nn


def init_convolutions(module: nn.Module) -> None:
    """Draw the weights of all 2-D convolutions of a module from N(0, 2 / fan_out), and set their biases to 0.

    fan_out counts the outputs that an input has an effect on: kernel height · kernel width · output channels / groups.
    PyTorch's ``kaiming_normal_(mode='fan_out')`` does not divide by the groups, which makes depthwise weights smaller.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
