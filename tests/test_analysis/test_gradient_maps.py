"""Gradient maps against Jacobians, and that they leave the model as it was."""

import pytest
import timm
import torch
from mmpretrain.models import ImageClassifier
from torch import nn
from torch.autograd.functional import jacobian

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.gradient_maps import gradient_maps
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.models import DefocusMamba, DefocusRetNet, DefocusViT
from mmdefocus.models.positions import token_positions

ARCHS = {
    DefocusMamba: dict(
        embed_dims=16, num_layers=3, inner_dims=32, state_dims=4, conv_kernel=4, dt_rank=4, group_size=16
    ),
    DefocusViT: dict(embed_dims=16, num_layers=3, num_heads=2, ffn_dims=32),
    DefocusRetNet: dict(embed_dims=16, num_layers=3, num_heads=2, value_dims=32, ffn_dims=24),
}
OURS = pytest.mark.parametrize('family', ARCHS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(family=DefocusMamba, **options):
    network = family(ARCHS[family], img_size=24, patch_size=8, **options)
    for parameter in network.parameters():  # initial values are too regular: frequencies of 0, norms of 1
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network.double()


def classifier(**options):
    torch.manual_seed(0)
    model = ImageClassifier(
        backbone=dict(
            type='DefocusMamba', arch=ARCHS[DefocusMamba], img_size=24, patch_size=8, out_type='raw', **options
        ),
        head=dict(type='DefocusClsHead', num_classes=5, in_channels=16),
    )
    return model.double()


def batch(count=2, side=24):
    return torch.randn(count, 3, side, side, dtype=torch.float64)


def record(model, images, layers):
    network = TokenNetwork(model)
    with network.record(layers) as records:
        network.run(images)
    return records


def jacobian_norms(function, tokens):
    """Return ‖∂‖y_q‖ / ∂x_j‖ as (B, Q, L) from the Jacobian of the norms."""
    full = jacobian(lambda x: function(x).norm(dim=-1).sum(dim=0), tokens)  # (Q, B, L, C)
    return full.norm(dim=-1).transpose(0, 1)


# Values


@OURS
def test_layer_gradients_are_those_of_the_jacobian(family):
    model, images = build(family).eval(), batch()
    maps = gradient_maps(model, images)
    assert list(maps) == [0, 1, 2]
    positions = token_positions(10, 1.0, like=images)
    for index, record_ in record(model, images, [0, 1, 2]).items():
        expected = jacobian_norms(
            lambda x, index=index: model.layers[index](x, positions, 1.0), record_.inputs.detach()
        )
        torch.testing.assert_close(maps[index], expected, rtol=1e-10, atol=1e-12)
        assert maps[index].shape == (2, 10, 10)
        assert (maps[index].diagonal(dim1=1, dim2=2) > 0).all()


@OURS
def test_input_gradients_are_those_of_the_jacobian(family):
    model, images = build(family).eval(), batch()
    maps = gradient_maps(model, images, layers=[-1, 1], wrt='input')
    assert list(maps) == [2, 1]
    positions = token_positions(10, 1.0, like=images)

    def first(count):
        def run(x):
            for block in model.layers[:count]:
                x = block(x, positions, 1.0)
            return x

        return run

    tokens = record(model, images, [0])[0].inputs.detach()
    for index in (1, 2):
        torch.testing.assert_close(maps[index], jacobian_norms(first(index + 1), tokens), rtol=1e-9, atol=1e-12)


@OURS
@pytest.mark.parametrize('wrt', ['layer', 'input'])
@pytest.mark.parametrize('order', [{}, dict(token_order='window', pretrain_size=16)], ids=['raster', 'window'])
def test_gradients_of_later_tokens_are_exactly_zero(family, wrt, order):
    for gradient in gradient_maps(build(family, **order), batch(), layers=[0, 2], wrt=wrt).values():
        assert (gradient.triu(1) == 0).all()
        assert (gradient.tril() > 0).any(dim=2).all()


def test_gradients_of_a_non_causal_network_reach_later_tokens():
    (gradient,) = gradient_maps(build(DefocusViT, causal=False), batch(), layers=[1]).values()
    assert (gradient > 0).all()


def test_queries_select_rows():
    model, images = build(), batch()
    maps, selected = (gradient_maps(model, images, layers=[1], queries=queries)[1] for queries in (None, [9, 3]))
    torch.testing.assert_close(selected, maps[:, [9, 3]], rtol=0, atol=0)


def test_class_gradients_are_those_of_autograd():
    model, images = classifier().eval(), batch()
    maps = gradient_maps(model, images, of='class', classes=[4, 1])
    assert list(maps) == [0, 1, 2]
    network = TokenNetwork(model)
    with network.record([0, 1, 2]) as records:
        logits = network.run(images)
    for index, gradient in maps.items():
        (expected,) = torch.autograd.grad(logits[0, 4] + logits[1, 1], records[index].inputs, retain_graph=True)
        torch.testing.assert_close(gradient, expected.norm(dim=-1).unsqueeze(1), rtol=1e-10, atol=1e-14)


def test_class_gradients_are_of_the_predicted_class():
    model, images = classifier().eval(), batch()
    predicted = model(images, mode='tensor').argmax(dim=1)
    default, named = (gradient_maps(model, images, of='class', classes=classes)[0] for classes in (None, predicted))
    torch.testing.assert_close(default, named, rtol=0, atol=0)
    other = gradient_maps(model, images, of='class', classes=(predicted + 1) % 5)[0]
    assert not torch.allclose(default, other)


def test_class_gradients_are_of_the_classes_that_the_head_predicts():
    model, images = classifier().eval(), batch()
    expected = gradient_maps(model, images, [1], of='class', classes=[4, 4])[1]
    model.head.predict_classes = torch.tensor([4])
    torch.testing.assert_close(gradient_maps(model, images, [1], of='class')[1], expected, rtol=0, atol=0)


# Other networks


@pytest.mark.parametrize(
    ('name', 'size', 'entering', 'leaving'),
    [
        ('deit_tiny_patch16_224', 64, 17, 17),
        ('resnet18', 64, 256, 256),
        ('swin_tiny_patch4_window7_224', 64, 256, 256),
    ],
)
def test_networks_of_timm(name, size, entering, leaving):
    options = {} if name == 'resnet18' else dict(img_size=size)
    model, images = timm.create_model(name, **options), torch.randn(1, 3, size, size)
    maps = gradient_maps(model, images, layers=[0], queries=[leaving - 1])
    assert maps[0].shape == (1, 1, entering)
    assert maps[0][0, 0, -1] > 0
    classes = gradient_maps(model, images, layers=[0], of='class')
    assert classes[0].shape == (1, 1, entering)


def test_layers_that_change_their_input_in_place():
    """Two layers of VGG: the output of the convolution is overwritten by its ReLU."""
    model = nn.Sequential()
    model.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
    model.forward = lambda images: model.features(images)
    images = batch()
    model.double()
    maps = gradient_maps(model, images, queries=[100])
    assert maps[1][0, 0].nonzero().flatten().tolist() == [100]
    convolution = model.features[0]
    expected = jacobian(lambda x: convolution(x)[0, :, 4, 4].norm(), images[:1]).flatten(2).norm(dim=1)
    torch.testing.assert_close(maps[0][:1, 0], expected)
    torch.testing.assert_close(gradient_maps(model, images, layers=[0], queries=[100], wrt='input')[0], maps[0])


def test_strided_layers_map_few_queries_to_many_tokens():
    model = timm.create_model('resnet18', zero_init_last=False)
    maps = gradient_maps(model, torch.randn(1, 3, 64, 64), layers=[2])  # 16 x 16 → 8 x 8
    assert maps[2].shape == (1, 64, 256)
    # Two 3 x 3 convolutions, the first of stride 2: 7 x 7 tokens around (2, 2) for the query (1, 1).
    rows, columns = maps[2][0, 9].unflatten(0, (16, 16)).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 5, 0, 5)


# What stays as it was


@pytest.mark.parametrize('of', ['token', 'class'])
@pytest.mark.parametrize('options', [{}, dict(with_cp=True), dict(frozen_stages=2)], ids=['plain', 'with_cp', 'frozen'])
@pytest.mark.parametrize('grad', ['enabled', 'no_grad', 'inference_mode', 'frozen parameters'])
def test_maps_do_not_depend_on_the_state_of_the_model_and_leave_it(of, options, grad):
    images = batch()
    expected = gradient_maps(classifier().eval(), images, of=of)
    model = classifier(drop_path_rate=0.5, **options).train()
    if grad == 'frozen parameters':
        model.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad() if grad == 'no_grad' else torch.inference_mode(grad == 'inference_mode'):
        maps = gradient_maps(model, images, of=of)
        if of == 'token':
            torch.testing.assert_close(maps, gradient_maps(model, images.clone()), rtol=0, atol=0)
    torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-14)
    assert modes == [module.training for module in model.modules()]
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert model.backbone.with_cp == options.get('with_cp', False)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(gradient.requires_grad for gradient in maps.values())
    assert not images.requires_grad


def test_the_model_is_restored_after_an_error():
    model = classifier().train()
    with pytest.raises(AnalysisError, match=r'expected classes to be 2 class indices from 0 to 4.*\[7, 0\]'):
        gradient_maps(model, batch(), of='class', classes=[7, 0])
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


# Mistakes


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(layers=[3]), r'has the layers 0 to 2'),
        (dict(queries=[10]), r'positions from 0 to 9 of query tokens that leave the layer, got \[10\]'),
        (dict(queries=[]), r'positions from 0 to 9'),
        (dict(of='logit'), r"of='token' or 'class'.*'logit'"),
        (dict(wrt='image'), r"wrt='layer' or 'input'.*'image'"),
        (dict(of='class', queries=[0]), r"of='class' takes no queries"),
        (dict(of='class', wrt='input'), r"wrt='layer' only"),
        (dict(classes=[0, 1]), r"classes is for of='class'"),
        (dict(of='class', classes=[0]), r'2 class indices'),
        (dict(of='class', classes=[0.5, 1.5]), r'2 class indices'),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(AnalysisError, match=message):
        gradient_maps(classifier(), batch(), **options)


@pytest.mark.parametrize('images', [torch.zeros(3, 24, 24), torch.zeros(0, 3, 24, 24), torch.zeros(1, 3, 24, 24).int()])
def test_images_that_do_not_fit(images):
    with pytest.raises(AnalysisError, match=r'expected normalised images \(batch, 3, height, width\)'):
        gradient_maps(build(), images)


def test_detectors_have_gradients_of_tokens_only():
    detector = nn.Module()
    detector.backbone, images = build(), batch()
    torch.testing.assert_close(gradient_maps(detector, images), gradient_maps(detector.backbone, images))
    with pytest.raises(AnalysisError, match=r'needs class logits, which Module does not have'):
        gradient_maps(detector, images, of='class')


def test_backbones_have_no_class():
    with pytest.raises(AnalysisError, match=r"DefocusMamba does not have; give a classifier, or use of='token'"):
        gradient_maps(build(), batch(), of='class')


def test_gradients_that_are_not_finite_are_an_error():
    images = batch()
    images[0, 0, 0, 0] = float('nan')
    with pytest.raises(AnalysisError, match=r'the gradient of layer 0 \(layers\.0\) is not finite'):
        gradient_maps(build(), images)


def test_layers_must_map_tensors_run_and_run_once():
    class Pair(nn.Module):
        def forward(self, x):
            return {'x': x}

    class Stack(nn.Module):
        def __init__(self, *blocks, run=None):
            super().__init__()
            self.blocks, self.run = nn.Sequential(*blocks), run

        def forward(self, images):
            x = images.flatten(2).mT
            for block in self.blocks[: self.run]:
                x = block(x)
            return x

    images, linear = torch.randn(1, 3, 4, 4), nn.Linear(3, 3)
    with pytest.raises(AnalysisError, match=r'layer 0 \(blocks\.0\) takes or returns a dict'):
        gradient_maps(Stack(Pair()), images)
    with pytest.raises(AnalysisError, match=r'layer 0 \(blocks\.0\) runs twice'):
        gradient_maps(Stack(linear, linear), images, layers=[0])
    with pytest.raises(AnalysisError, match=r'layer 1 \(blocks\.1\) did not run'):
        gradient_maps(Stack(linear, nn.Linear(3, 3), run=1), images)
