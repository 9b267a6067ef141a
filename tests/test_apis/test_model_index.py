"""Names of models, as MMPreTrain's users use them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain import get_model, inference_model, list_models
from mmpretrain.datasets import ImageNet

from mmdefocus.apis.model_index import find_model

GOLDEN = Path(__file__).parents[1] / 'golden'
CLASSIFIERS = [
    'defocus-mamba-base_3rdparty_in1k',
    'defocus-mamba-large_3rdparty_in21k-192px',
    'defocus-mamba-large_3rdparty_in21k-192px_eval-in1k',
    'defocus-mamba-large_in21k-pre_3rdparty_in1k-384px',
    'defocus-mamba-small_in1k',
    'defocus-retnet-base_in1k',
    'defocus-vit-base-noncausal_in1k',
    'defocus-vit-base_in1k',
    'defocus-vit-small_in1k',
]


def test_classifiers_are_in_the_list_of_mmpretrain():
    assert list_models('*defocus*') == CLASSIFIERS
    assert list_models('defocus', task='Image Classification') == CLASSIFIERS, 'which inference_model needs'
    assert {'plain-vit-base-noncausal_in1k', 'plain-mamba-small_in1k', 'resnet50_8xb32_in1k'} <= set(list_models())


@pytest.mark.parametrize('name', [*CLASSIFIERS, 'defocus_mamba_base_36ep', 'Defocus_Mamba_Large_12ep'])
def test_every_name_has_a_config(name):
    config, weights = find_model(name)
    assert Path(config).is_file()
    published = '3rdparty' in name or name == 'defocus_mamba_base_36ep'
    assert (weights is not None) == published


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of the models .*, defocus-vit-base_in1k, .*; got 'other'"):
        find_model('other')


@pytest.fixture
def toy(tmp_path):
    """Settings that turn the base model into the golden one, and a mirror of the release with its official file."""
    expected = torch.load(GOLDEN / 'cls_rope_expected.pt', weights_only=True)
    _, url = find_model('defocus-mamba-base_3rdparty_in1k')
    shutil.copy(GOLDEN / 'cls_rope_official_cls.pth', tmp_path / Path(url).name)
    sizes = dict(embed_dims=64, num_layers=3, inner_dims=128, state_dims=16, conv_kernel=4, dt_rank=4, group_size=64)
    model = dict(backbone=dict(arch=dict(sizes, _delete_=True), img_size=64), head=dict(num_classes=10, in_channels=64))
    return expected, dict(model, url_mapping=('^https://.*/', f'{tmp_path}/'))


def test_published_weights_are_loaded_by_name(toy):
    expected, changes = toy
    model = get_model('defocus-mamba-base_3rdparty_in1k', pretrained=True, **changes)
    logits = model(expected['image'], mode='tensor')
    torch.testing.assert_close(logits, expected['logits_cls'], rtol=0, atol=1e-5 * expected['logits_cls'].abs().max())


def test_inference_by_mmpretrain_finds_its_way(toy):
    _, changes = toy
    model = get_model('defocus-mamba-base_3rdparty_in1k', pretrained=True, **changes)
    result = inference_model(model, np.full((50, 40, 3), 90, np.uint8))
    assert result['pred_scores'].shape == (10,)
    assert result['pred_class'] == ImageNet.METAINFO['classes'][result['pred_label']]
