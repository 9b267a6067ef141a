"""The analyses of FCViT and DAT: what has no attention says why, and class activation maps lie in the image."""

import runpy
import sys
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.apis import get_model
from torch import nn

from mmdefocus.analysis.cams import cam
from mmdefocus.analysis.foreign_attention import foreign_attention
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.models import DAT, FCViT

pytest.importorskip('pytorch_grad_cam')
from pytorch_grad_cam.utils.image import scale_cam_image, show_cam_on_image

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
VIS_CAM = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'visualization' / 'vis_cam.py'
SAMPLED = 'it attends to sampled positions, not to tokens (see sample_positions and attention of its mixer)'
NEIGHBOURS = 'it attends within neighbourhoods of 7 x 7 tokens'
WINDOWS = DAT.arch_zoo['v1-tiny'] | dict(
    embed_dims=(8, 8, 8, 8),
    blocks=('L', 'LS', 'L', 'D'),
    num_heads=(1, 2, 2, 2),
    num_groups=(1, 1, 1, 1),
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def classifier(name):
    return get_model(Config.fromfile(CONFIGS / f'{name}_nano_digits.py')).eval()


def observe(model, *size):
    network, maps = TokenNetwork(model.eval()), {}
    reasons = foreign_attention(network, torch.randn(1, 3, *size), network.select(None), maps.__setitem__)
    assert maps.keys() | reasons.keys() == set(range(len(network.layers)))
    return maps, reasons


def test_fcvit_has_no_attention_whatever_its_sizes():
    """In the last stage, 12 channels of a head meet 12 pixels: its similarities look like attention."""
    maps, reasons = observe(FCViT('nano'), 96, 128)
    assert not maps
    assert set(reasons.values()) == {'it mixes by convolutions and a global context'}


def test_dat_has_no_attention_between_tokens():
    """In the last stage, there are as many sampled keys as tokens."""
    maps, reasons = observe(DAT('nano'), 64, 96)
    assert not maps
    assert reasons == dict.fromkeys((0, 2, 4), NEIGHBOURS) | dict.fromkeys((1, 3, 5, 6, 7), SAMPLED)


def test_a_single_window_has_attention_unless_it_is_shifted():
    maps, reasons = observe(DAT(WINDOWS), 56, 56)
    assert list(maps) == [1]  # 7 x 7 tokens
    assert maps[1].shape == (1, 2, 49, 49)
    torch.testing.assert_close(maps[1].sum(-1), torch.ones(1, 2, 49))
    assert reasons == {
        0: 'it attends within windows or groups of 49 tokens: there is no map of all 196 tokens',
        2: 'it attends within shifted windows of 7 x 7 tokens',
        3: 'it attends within windows or groups of 49 tokens: there is no map of all 9 tokens',
        4: SAMPLED,
    }


@pytest.mark.parametrize('name', ['fcvit', 'dat'])
def test_a_cell_lands_at_its_place_in_the_image(name):
    model = classifier(name)

    class OneCell(nn.Module):
        """Reads cell (1, 2) of the last map."""

        def forward(self, maps):
            return (maps[-1][:, :, 1, 2],)

    model.neck = OneCell()
    values = cam(model, torch.randn(1, 3, 96, 128), 'GradCAMElementWise', side='output')[0]
    assert values[32:64, 64:96].mean() > 0.5
    assert values[:, :32].max() < 0.01  # the norm of FCViT depends on all cells


@pytest.mark.parametrize('name', ['fcvit', 'dat'])
def test_vis_cam_of_mmpretrain_explains_the_output_norm(name, tmp_path, monkeypatch):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96)), dict(type='PackInputs')]
    cfg = Config.fromfile(CONFIGS / f'{name}_nano_digits.py')
    cfg.test_dataloader.dataset.pipeline = pipeline
    cfg.dump(tmp_path / 'config.py')
    model = get_model(cfg).eval()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'weights.pth')
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), pixels)
    words = [VIS_CAM, *(tmp_path / file for file in ('image.png', 'config.py', 'weights.pth'))]
    words += ['--target-layers', 'backbone.norm3', '--save-path', tmp_path / 'cam.png']
    monkeypatch.setattr(sys, 'argv', list(map(str, words)))
    runpy.run_path(str(VIS_CAM), run_name='__main__')
    picture = cv2.imread(str(tmp_path / 'cam.png'))

    # The map by hand: channels of norm3 weighted by their mean gradients.
    seen = []
    model.backbone.norm3.register_forward_hook(lambda _, __, output: seen.append(output))
    batch = dict(inputs=torch.from_numpy(pixels).permute(2, 0, 1)[None])
    logits = model(model.data_preprocessor(batch)['inputs'], mode='tensor')
    (gradient,) = torch.autograd.grad(logits.max(), seen[0])
    by_hand = (gradient.mean((2, 3), keepdim=True) * seen[0]).sum(1).clamp(min=0)
    values = scale_cam_image(by_hand.detach().numpy(), (96, 96))
    values = scale_cam_image(values)[0]  # grad-cam scales the maps of layers, and their mean
    assert values.std() > 0.05
    expected = show_cam_on_image(np.float32(pixels) / 255, values, use_rgb=False)
    difference = np.abs(picture.astype(int) - expected.astype(int))
    assert difference.max() <= 8  # colours jump at the 256 steps of the map
    assert difference.mean() < 0.5
