"""Names of FCViT, DAT++ and DAT: their weights have no address, so that users bring the files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain import ImageClassificationInferencer, get_model, list_models
from mmpretrain.datasets import ImageNet

from mmdefocus.apis.inference import ClassificationInferencer
from mmdefocus.apis.model_index import find_model
from mmdefocus.models.checkpoint import mmdefocus_to_official

FCVIT = [f'fcvit-{size}_in1k' for size in ('b12', 'b24', 'b48', 'tiny')]
DAT = [f'dat-{kind}_in1k' for kind in ('base', 'pp-base', 'pp-small', 'pp-tiny', 'small', 'tiny')]
DAT_384 = ['dat-base_in1k-384px', 'dat-pp-base_in1k-384px']
IMAGE = np.full((50, 40, 3), 90, np.uint8)
# Settings that turn a model into the smallest of its family, and the entry of an official file with its weights.
TOYS = {
    'fcvit-tiny_in1k': ({'backbone': {'arch': 'nano'}, 'head': {'in_channels': 96}}, 'state_dict'),
    'dat-pp-base_in1k-384px': ({'backbone': {'arch': 'nano'}, 'head': {'in_channels': 128}}, 'model'),
}


def test_they_are_in_the_list_of_mmpretrain():
    assert list_models('fcvit*', task='Image Classification') == FCVIT
    assert [name for name in list_models('dat-*') if name in {*DAT, *DAT_384}] == sorted([*DAT, *DAT_384])


@pytest.mark.parametrize('name', [*FCVIT, *DAT, *DAT_384])
def test_every_name_has_a_config_and_no_address(name):
    config, weights = find_model(name)
    assert Path(config).is_file()
    assert weights is None


@pytest.fixture(params=TOYS)
def toy(request, tmp_path):
    """Name, settings, model, checkpoint of mmdefocus, and official file."""
    name = request.param
    changes, entry = TOYS[name]
    model = get_model(name, **changes)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    weights = model.state_dict()
    torch.save({'state_dict': weights}, tmp_path / 'ours.pth')
    torch.save({entry: mmdefocus_to_official(weights), 'epoch': 300}, tmp_path / 'official.pth')
    return name, changes, model, tmp_path


@pytest.mark.parametrize('file', ['ours.pth', 'official.pth'])
def test_inference_by_name_with_a_file(toy, file):
    name, changes, model, folder = toy
    inferencer = ClassificationInferencer(name, str(folder / file), device='cpu', **changes)
    (result,) = inferencer([IMAGE])
    side = 384 if name.endswith('384px') else 224
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    with torch.no_grad():
        scores = model((torch.full((1, 3, side, side), 90.0) - mean) / std, mode='tensor').softmax(1)[0]
    np.testing.assert_allclose(result['pred_scores'], scores, rtol=1e-4)
    assert result['pred_class'] == ImageNet.METAINFO['classes'][scores.argmax()]


@pytest.mark.parametrize('name', TOYS)
def test_without_a_file(name):
    changes, _ = TOYS[name]
    with (
        pytest.raises(ValueError, match=r'the model has no weights: name a checkpoint'),
        pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'),
    ):
        ClassificationInferencer(name, device='cpu', **changes)
    with pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'):
        ImageClassificationInferencer(name, device='cpu', **changes)


def test_file_of_another_size(toy):
    name, _, _, folder = toy
    with pytest.raises(ValueError, match=r'expected weights of .*got weights of arch=.nano'):
        ClassificationInferencer(name, str(folder / 'official.pth'), device='cpu')
