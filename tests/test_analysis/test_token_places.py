"""Where the tokens of networks lie: a change of a few pixels must show at its place on the token grid."""

import itertools

import pytest
import torch
from torch import nn

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.networks import TokenNetwork

timm = pytest.importorskip('timm')


class ChannelsLast(nn.Module):
    """A network whose layers take and return (B, R, W, C), as some of timm do without saying so."""

    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 2, 2)
        self.layers = nn.Sequential(nn.LayerNorm(channels), nn.LayerNorm(channels))

    def forward(self, images):
        return self.layers(self.stem(images).permute(0, 2, 3, 1))


class ChannelsFirst(ChannelsLast):
    def __init__(self, channels):
        super().__init__(channels)
        self.layers = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1))

    def forward(self, images):
        return self.layers(self.stem(images))


def changed_cell(model, height, width):
    """Return grid and cell of the largest change of the tokens when 2 x 2 pixels from (4, 10) on change."""
    network = TokenNetwork(model.eval())
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))[:1].repeat(2, 1, 1, 1)
    images[1, :, 4:6, 10:12] += 5
    with torch.no_grad(), network.record([1]) as records:
        network.run(images)
    tokens = network.tokens(records[1].inputs)
    grid = network.layout(records[1].inputs, (height, width)).to_grid((tokens[0] - tokens[1]).norm(dim=-1))
    return grid.shape, divmod(int(grid.argmax()), grid.shape[1])


# As many channels as rows or columns, too; of three equal sides, the first counts as the channels.
LAYOUTS = [
    (build, height, width, channels)
    for build, (height, width), channels in itertools.product(
        (ChannelsFirst, ChannelsLast), ((16, 32), (32, 16), (16, 16)), (5, 8, 16)
    )
    if (build, height, width, channels) != (ChannelsLast, 16, 16, 8)
]


@pytest.mark.parametrize(('build', 'height', 'width', 'channels'), LAYOUTS)
def test_maps_of_channels_first_and_last(build, height, width, channels):
    torch.manual_seed(0)
    assert changed_cell(build(channels), height, width) == ((height // 2, width // 2), (2, 5))


def test_registers_are_no_class_token():
    settings = dict(img_size=16, patch_size=4, embed_dim=8, depth=1, num_heads=2)
    registers = timm.models.VisionTransformer(**settings, class_token=False, reg_tokens=4, global_pool='avg')
    assert TokenNetwork(registers).layout(torch.zeros(1, 20, 8), (16, 16)).class_token is None
    assert (
        TokenNetwork(timm.models.VisionTransformer(**settings)).layout(torch.zeros(1, 17, 8), (16, 16)).class_token == 0
    )


def test_reordered_tokens_are_refused():
    hiera = timm.models.Hiera(img_size=(64, 64), embed_dim=8, num_heads=1, stages=(1, 1), q_pool=1)
    with pytest.raises(AnalysisError, match=r'Hiera reorders its tokens, .*leave the network out'):
        TokenNetwork(hiera).layout(torch.zeros(1, 256, 8), (64, 64))
