"""Parity with the official networks.

Relative error of an output: largest absolute difference / largest absolute value of the expected tensor. Relative error
of a gradient: norm of the difference / norm of the expected tensor, since the largest elements sit at the limit of
float32: of ``cls_rope`` the golden gradients themselves are up to 1.4e-5 away from a float64 run by the first measure.
A tensor that is expected to be zero (the gradient of the class token in detection, whose output is dropped) must be
zero.
"""

import pytest
import torch
from detector_options import DETECTOR
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mmdefocus.models import DefocusClsHead, DefocusMamba, SimpleFeaturePyramid
from mmdefocus.models.checkpoint import mmdefocus_to_official, official_to_mmdefocus
from mmdefocus.ops import available_backends

TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-9
# Four successive roundings to bfloat16, of the operands and results of projections.
BFLOAT16_TOLERANCE = 4 * 2**-8
BACKENDS = [name for name, reason in available_backends().items() if reason is None]


def assert_parity(actual, expected, what, tolerance=TOLERANCE, order=float('inf')):
    assert actual.shape == expected.shape, what
    scale = torch.linalg.vector_norm(expected, order)
    error = torch.linalg.vector_norm(actual - expected, order)
    assert error <= tolerance * scale, f'{what}: relative error {error / scale:.2e}'


def build_backbone(arch, **changes):
    names = {
        'embed_dims': 'embed_dims',
        'depth': 'num_layers',
        'inner_dims': 'inner_dims',
        'state': 'state_dims',
        'conv': 'conv_kernel',
        'dt_rank': 'dt_rank',
        'group': 'group_size',
    }
    sizes = {ours: arch[official] for official, ours in names.items()}
    return DefocusMamba(sizes, rope_scale=arch['rope_scale'], delta_scale=arch['delta_scale'], **changes)


def record_blocks(backbone):
    outputs = []
    for block in backbone.layers:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    return outputs


def assert_gradients(model, expected):
    gradients = mmdefocus_to_official({name: parameter.grad for name, parameter in model.named_parameters()})
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert_parity(gradient, expected[name], f'gradient of {name}', order=2)


class Detector(nn.Module):
    def __init__(self, arch):
        super().__init__()
        self.backbone = build_backbone(
            arch,
            token_order='window' if arch['window_order'] else 'raster',
            pretrain_size=arch['pretrain_size'],
            final_norm_eps=1e-5,
            **DETECTOR,
        )
        self.neck = SimpleFeaturePyramid(arch['embed_dims'], arch['fpn_out'])

    def forward(self, image):
        (feature,) = self.backbone(image)
        return feature, self.neck((feature,))


def build_classifier(arch):
    """MMPreTrain's classifier with our head; a hidden layer is three times as wide as the tokens."""
    backbone = build_backbone(arch, img_size=arch['img'], rotary=arch['rope'], out_type='raw')
    hidden_dims = None if arch['head'] == 'IN1k_cls' else 3 * arch['embed_dims']
    head = DefocusClsHead(arch['num_classes'], arch['embed_dims'], hidden_dims)
    return MODELS.build({'type': 'ImageClassifier', '_scope_': 'mmpretrain', 'backbone': backbone, 'head': head})


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', ['det_window', 'det_raster'])
def test_detection_features_and_gradients(golden, monkeypatch, case, backend):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', backend)
    expected, state_dict = golden(case)
    model = Detector(expected['arch'])
    model.load_state_dict(official_to_mmdefocus(state_dict))
    feature, pyramid = model(expected['image'])
    assert_parity(feature, expected['feature'], 'feature')
    assert len(pyramid) == len(expected['pyramid'])
    for level, (actual, wanted) in enumerate(zip(pyramid, expected['pyramid'], strict=True)):
        assert_parity(actual, wanted, f'pyramid level {level}')
    loss = sum((level * weight).mean() for level, weight in zip(pyramid, expected['pyramid_weights'], strict=True))
    assert_parity(loss, expected['loss'], 'loss')
    loss.backward()
    assert_gradients(model, expected['grads'])


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', ['cls_rope', 'cls_norope', 'cls_22kto1k_scaled'])
def test_classification_blocks_losses_and_gradients(golden, monkeypatch, case, backend):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', backend)
    expected, state_dict = golden(case)
    model = build_classifier(expected['arch'])
    model.load_state_dict(official_to_mmdefocus(state_dict))
    blocks = record_blocks(model.backbone)
    (tokens,) = model.extract_feat(expected['image'])
    for index, (actual, wanted) in enumerate(zip(blocks, expected['block_outputs'], strict=True)):
        assert_parity(actual, wanted, f'output of block {index}')
    assert_parity(tokens, expected['tokens_after_norm'], 'tokens')
    assert_parity(model(expected['image'], mode='tensor'), expected['logits_cls'], 'logits')
    assert_parity(model.head.aux_fc(tokens[:, :-1]), expected['logits_patch'], 'auxiliary logits')
    samples = [DataSample().set_gt_score(score) for score in expected['soft_target']]
    losses = model(expected['image'], samples, mode='loss')
    # Both losses already include their weight of 0.5.
    assert_parity(2 * losses['loss_cls'], expected['loss_cls'], 'main loss')
    assert_parity(2 * losses['loss_aux'], expected['loss_patch'], 'auxiliary loss')
    loss, _ = model.parse_losses(losses)
    assert_parity(loss, expected['loss_total'], 'loss')
    loss.backward()
    assert_gradients(model, expected['grads'])


@pytest.mark.parametrize('case', ['det_window', 'det_raster'])
def test_backends_agree_in_float64(golden, monkeypatch, case):
    """All backends against the reference, through the whole network."""
    others = [backend for backend in BACKENDS if backend != 'reference']
    assert others, 'there is nothing to compare'
    expected, state_dict = golden(case)
    results = {}
    for backend in BACKENDS:
        with monkeypatch.context():
            monkeypatch.setenv('MMDEFOCUS_BACKEND', backend)
            model = Detector(expected['arch']).double()
            model.load_state_dict(official_to_mmdefocus(state_dict))
            feature, pyramid = model(expected['image'].double())
            sum(level.square().mean() for level in pyramid).backward()
            results[backend] = {'feature': feature.detach()}
            results[backend] |= {name: parameter.grad for name, parameter in model.named_parameters()}
    for backend in others:
        for name, tensor in results[backend].items():
            assert_parity(tensor, results['reference'][name], f'{name} of {backend}', FLOAT64_TOLERANCE)


def test_official_backbone_weights_load_without_conversion(golden):
    expected, state_dict = golden('cls_rope')
    backbone = build_backbone(expected['arch'], out_type='raw')
    official = {key: value for key, value in state_dict.items() if not key.startswith('head')}
    backbone.load_state_dict(official)
    assert_parity(backbone(expected['image'])[0], expected['tokens_after_norm'], 'tokens')


def test_official_detector_weights_load_without_conversion(golden):
    expected, state_dict = golden('det_window')
    model = Detector(expected['arch'])
    model.load_state_dict(state_dict)
    assert_parity(model(expected['image'])[0], expected['feature'], 'feature')
