"""Saliency maps of classifiers, in the order of the image."""

import pytest
import timm
import torch
from mmengine.registry import MODELS
from torch import nn

import mmdefocus.models  # noqa: F401 (registers)
from mmdefocus.analysis import AnalysisError, attention_maps, gradient_maps, rollout
from mmdefocus.analysis.saliency import saliency_maps


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    backbone = dict(
        type='DefocusMamba', arch='nano', img_size=48, token_order='window', pretrain_size=32, out_type='raw'
    )
    head = dict(type='DefocusClsHead', num_classes=10, in_channels=96)
    return MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head)).train()


def test_maps_are_in_the_order_of_the_image_and_without_padding(classifier):
    images = torch.randn(2, 3, 48, 40)  # 3 x 3 patches, padded to 4 x 4 in windows of 2 x 2
    maps, missing = saliency_maps(classifier, images)
    assert missing == {}
    assert {name: values.shape for name, values in maps.items()} == dict.fromkeys(
        ('class gradient', 'attention', 'rollout'), (2, 3, 3)
    )
    assert classifier.training
    # Position of the cell (row 1, column 2) in the sequence: first row of the second window, after its top row.
    position = 4 + 2
    attention = attention_maps(classifier, images)
    expected = {
        'class gradient': gradient_maps(classifier, images, [0], of='class')[0][:, 0, position],
        'attention': attention[3][:, :, -1, position].abs().mean(1),
        'rollout': rollout(attention_maps(classifier, images, reduce='mean'))[3][:, -1, position],
    }
    for name, values in expected.items():
        torch.testing.assert_close(maps[name][:, 1, 2], values)


def test_missing_maps_have_reasons():
    maps, missing = saliency_maps(timm.create_model('resnet18'), torch.randn(1, 3, 64, 64))
    assert list(maps) == ['class gradient']
    assert missing == dict.fromkeys(('attention', 'rollout'), 'ResNet has no class token')
    maps, missing = saliency_maps(timm.create_model('convit_tiny', img_size=64), torch.randn(1, 3, 64, 64))
    assert list(maps) == ['class gradient', 'attention']
    assert 'a rollout needs all rows' in missing['rollout']  # its class token enters at layer 10


def test_a_backbone_has_no_class_logits(classifier):
    assert isinstance(classifier.backbone, nn.Module)
    with pytest.raises(AnalysisError, match=r'class logits'):
        saliency_maps(classifier.backbone, torch.randn(1, 3, 32, 32))
