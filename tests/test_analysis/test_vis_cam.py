"""MMPreTrain's own vis_cam.py with our configs, run as a user runs it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.apis import get_model

from mmdefocus.analysis.cams import cam
from mmdefocus.datasets.digits_classification import DefocusDigits
from mmdefocus.models import DefocusMamba, DefocusViT

pytest.importorskip('pytorch_grad_cam')
from pytorch_grad_cam.utils.image import show_cam_on_image

ROOT = Path(__file__).parents[2]
SCRIPT = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'visualization' / 'vis_cam.py'
NANO = ROOT / 'configs' / 'classification' / 'defocus_mamba_nano_digits.py'
# The data set of the digits config has pixels; vis_cam.py has files.
PIPELINE = """
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs'),
]))
"""
WINDOW = "model = dict(backbone=dict(token_order='window', pretrain_size=16))\n"
TOKEN_MAP = ('--cfg-options', 'model.backbone.token_map=True', '--target-layers', 'backbone.token_map')


def write_files(folder: Path, settings: str) -> tuple[Path, Path, Path]:
    """Write an image, a config and a checkpoint with random weights."""
    config = folder / 'config.py'
    config.write_text(f"_base_ = '{NANO}'\n{PIPELINE}{settings}")
    torch.manual_seed(0)
    model = get_model(Config.fromfile(config))
    checkpoint = folder / 'weights.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, checkpoint)
    image = folder / 'digit.png'
    cv2.imwrite(str(image), DefocusDigits('test')[2]['img'])
    return image, config, checkpoint


@pytest.mark.parametrize('order', ['raster', 'window'])
def test_the_map_lies_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str):
    image, config, checkpoint = write_files(tmp_path, WINDOW if order == 'window' else '')
    words = list(map(str, (SCRIPT, image, config, checkpoint, *TOKEN_MAP, '--save-path', tmp_path / 'cam.png')))
    if order == 'raster':
        environment = dict(os.environ, PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    else:  # in this process: importing MMPreTrain takes most of the time
        monkeypatch.setattr(sys, 'argv', words)
        runpy.run_path(str(SCRIPT), run_name='__main__')
    picture = cv2.imread(str(tmp_path / 'cam.png'))

    model = get_model(Config.fromfile(config), str(checkpoint))
    pixels = cv2.imread(str(image))
    batch = dict(inputs=torch.from_numpy(pixels).permute(2, 0, 1)[None])
    values = cam(model, model.data_preprocessor(batch)['inputs'])[0].numpy()
    expected = show_cam_on_image(np.float32(pixels) / 255, values, use_rgb=False)
    difference = np.abs(picture.astype(int) - expected.astype(int))
    assert difference.max() <= 8  # colours jump at the 256 steps of the map
    assert difference.mean() < 0.5
    assert values.std() > 0.05
    shifted = show_cam_on_image(np.float32(pixels) / 255, np.roll(values, 4, axis=1), use_rgb=False)
    assert np.abs(picture.astype(int) - shifted.astype(int)).mean() > 5


@pytest.mark.parametrize('options', [(), ('--target-layers', 'backbone.layers.3.norm')])
def test_vit_like_says_what_to_do_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]):
    files = write_files(tmp_path, '')
    words = [SCRIPT, *files, '--vit-like', *options, '--save-path', tmp_path / 'cam.png']
    monkeypatch.setattr(sys, 'argv', list(map(str, words)))
    with pytest.raises(
        RuntimeError, match=r'DefocusMamba has its class token last, .* leave --vit-like out.*token_map'
    ):
        runpy.run_path(str(SCRIPT), run_name='__main__')
    assert not (tmp_path / 'cam.png').exists()


@pytest.mark.parametrize('kind', [DefocusMamba, DefocusViT])
@pytest.mark.parametrize('order', [{}, {'token_order': 'window', 'pretrain_size': 16}])
@pytest.mark.parametrize('with_cp', [False, True])
def test_the_token_map_changes_nothing(kind: type, order: dict, with_cp: bool):
    options = {'img_size': 32, 'patch_size': 4, 'out_type': 'raw', 'with_cp': with_cp, **order}
    torch.manual_seed(0)
    plain = kind('nano', **options)
    probed = kind('nano', token_map=True, **options)
    probed.load_state_dict(plain.state_dict(), strict=True)
    assert list(plain.state_dict()) == list(probed.state_dict())
    assert plain.token_map is None
    images = torch.randn(2, 3, 22, 30)
    seen: list[torch.Tensor] = []
    probed.token_map.register_forward_hook(lambda _, __, output: seen.append(output))
    expected, values = plain(images)[0], probed(images)[0]
    assert values.equal(expected)
    assert seen[0].shape == (2, 96, 6, 8)
    seen[0].retain_grad()
    expected[:, -1].square().sum().backward()
    values[:, -1].square().sum().backward()
    assert seen[0].grad.abs().sum((0, 1)).min() > 0
    for one, other in zip(plain.parameters(), probed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_cell_of_the_token_map_is_that_patch_of_the_image():
    backbone = DefocusMamba('nano', img_size=32, patch_size=4, token_order='window', pretrain_size=16, token_map=True)
    for block in backbone.layers[:-1]:
        block.mixer.out_proj.weight.data.zero_()
    seen: list[torch.Tensor] = []
    backbone.token_map.register_forward_hook(lambda _, __, output: seen.append(output))
    images = torch.randn(1, 3, 24, 32)
    backbone(images)
    patches = backbone.patch_embed.projection(images)
    torch.testing.assert_close(seen[0], patches)


def test_code_that_asks_for_the_number_of_class_tokens_gets_the_reason():
    backbone = DefocusMamba('nano', img_size=32, patch_size=4)
    number = getattr(backbone, 'num_extra_tokens', 1)
    with pytest.raises(RuntimeError, match=r'DefocusMamba has its class token last'):
        torch.zeros(1, 5, 2)[:, number:]
    with pytest.raises(RuntimeError, match=r'leave --vit-like out'):
        _ = number > 0


def test_a_network_can_be_traced_although_it_refuses_that_number():
    backbone = DefocusViT('nano', img_size=16, patch_size=8, out_type='cls_token').eval()
    images = torch.randn(1, 3, 16, 16)
    traced = torch.jit.trace(backbone, images)
    torch.testing.assert_close(traced(images), backbone(images))
