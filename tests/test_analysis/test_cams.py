"""Class activation maps: which methods work, where a cell lands in the image, and what is refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mmdefocus.analysis.cams import CLASS_METHODS, CLASSLESS_METHODS, cam, draw_cam
from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.models import DefocusClsHead, DefocusMamba, DefocusRetNet, DefocusViT

pytest.importorskip('pytorch_grad_cam')

PATCH = 4
ORDERS = {'raster': {}, 'window': {'token_order': 'window', 'pretrain_size': 4 * PATCH}}
BACKBONES = {'mamba': DefocusMamba, 'vit': DefocusViT, 'retnet': DefocusRetNet}
SIZES = {'embed_dims': 24, 'num_layers': 2}
HEADS = SIZES | {'num_heads': 2, 'ffn_dims': 48}
ARCHS = {
    'mamba': SIZES | {'inner_dims': 48, 'state_dims': 4, 'conv_kernel': 4, 'dt_rank': 2, 'group_size': 16},
    'vit': HEADS,
    'retnet': HEADS | {'value_dims': 48},
}


def classifier(kind: str = 'mamba', order: str = 'raster', **options: Any) -> ImageClassifier:
    torch.manual_seed(0)
    changes = {'img_size': 32, 'patch_size': PATCH, 'out_type': 'raw', **ORDERS[order], **options}
    backbone = BACKBONES[kind](ARCHS[kind], **changes)
    return ImageClassifier(backbone, head=DefocusClsHead(num_classes=10, in_channels=backbone.embed_dims)).eval()


class ReadToken(nn.Module):
    """A mixer whose class token reads the token at one position and no other."""

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        rest = torch.zeros_like(x[:, :-1])
        return torch.cat((rest, x[:, self.position, None]), dim=1)


class SumTokens(nn.Module):
    """A mixer that does not know the order of the tokens."""

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        return x + x.tanh().mean(dim=1, keepdim=True)


def with_mixers(model: ImageClassifier, mixer: Callable[[], nn.Module]) -> ImageClassifier:
    for block in model.backbone.layers:
        block.mixer = mixer()
    return model


def own_position(order: str, size: tuple[int, int], row: int, column: int) -> int:
    """Return the position of a cell in the sequence, counted cell by cell."""
    window = 4 if order == 'window' else None
    columns = -(-size[1] // PATCH)
    if window is None:
        return row * columns + column
    windows = -(-columns // window)
    number = row // window * windows + column // window
    return number * window**2 + row % window * window + column % window


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize(
    ('size', 'cell'),
    [
        pytest.param((32, 32), (2, 5), id='square'),
        pytest.param((16, 48), (3, 9), id='wide'),
        pytest.param((22, 30), (5, 7), id='padded'),
        pytest.param((40, 17), (9, 0), id='tall-padded'),
    ],
)
def test_the_cell_that_the_logit_reads_is_the_bright_one(order: str, size: tuple[int, int], cell: tuple[int, int]):
    model = classifier(order=order)
    position = own_position(order, size, *cell)
    model.backbone.layers[-1].mixer = ReadToken(position)
    for block in model.backbone.layers[:-1]:
        block.mixer = ReadToken(-1)  # image tokens stay those of their own patch
    images = torch.randn(2, 3, *size, requires_grad=True)
    model(images)[:, 3].sum().backward()
    rows, columns = (slice(index * PATCH, (index + 1) * PATCH) for index in cell)
    assert images.grad is not None
    gradient = images.grad.abs().sum((0, 1))
    assert gradient[rows, columns].min() > 0
    assert gradient.sum() == pytest.approx(gradient[rows, columns].sum().item())

    values = cam(model, images, 'GradCAMElementWise', classes=3)

    assert values.shape == (2, *size)
    assert values.dtype == torch.float32
    centre = np.minimum(np.array(cell) * PATCH + PATCH // 2, np.array(size) - 1)
    assert (values[:, centre[0], centre[1]] > 0.6).all()  # bilinear: the peak is between the middle pixels
    away = values.clone()
    reach = [slice(max(0, (index - 1) * PATCH), (index + 2) * PATCH) for index in cell]
    away[:, reach[0], reach[1]] = 0
    assert away.max() == 0


@pytest.mark.parametrize('method', ['GradCAM', 'GradCAMElementWise', 'ScoreCAM', 'EigenCAM'])
def test_the_order_of_the_tokens_does_not_change_the_map_of_the_same_function(method: str):
    raster, window = (with_mixers(classifier(order=order), SumTokens).double() for order in ORDERS)
    images = torch.randn(2, 3, 16, 32, dtype=torch.float64)
    torch.testing.assert_close(raster(images), window(images), rtol=0, atol=1e-10)

    first, second = (cam(model, images, method) for model in (raster, window))

    assert first.std() > 0.01
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize('method', CLASS_METHODS + CLASSLESS_METHODS)
def test_every_method_gives_a_map_of_the_image(kind: str, method: str):
    model = classifier(kind, 'window')
    values = cam(model, torch.randn(2, 3, 14, 30), method)
    assert values.shape == (2, 14, 30)
    assert values.min() >= 0
    assert values.amax((1, 2)).tolist() == [1, 1]
    assert values.std((1, 2)).min() > 0.01


def test_a_batch_gives_the_maps_of_its_images():
    model = classifier()
    images = torch.randn(3, 3, 32, 32)
    together = cam(model, images, classes=[1, 2, 3])
    for index in range(3):
        alone = cam(model, images[index : index + 1], classes=index + 1)
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-4)


def test_gradcam_is_its_formula():
    """Sum over channels of the mean gradient times the activation, without its negative part, scaled to [0, 1]."""
    model = classifier(patch_size=1, img_size=8).double()
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    seen = []
    handle = model.backbone.layers[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logit = model(images)[0, 7]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, seen[0])
    weights = gradient[0, :-1].mean(dim=0)
    expected = (seen[0][0, :-1] @ weights).clamp(min=0)
    expected = ((expected - expected.min()) / (expected.max() - expected.min())).view(8, 8)

    values = cam(model, images, classes=7)[0]

    torch.testing.assert_close(values.double(), expected.detach(), rtol=0, atol=1e-5)


def foreign(name: str) -> tuple[nn.Module, tuple[int, int]]:
    torch.manual_seed(0)
    if name == 'timm-vit':
        return timm.create_model('deit_tiny_patch16_224', img_size=(32, 64), depth=2, embed_dim=48, num_classes=5), (
            32,
            64,
        )
    if name == 'timm-registers':
        return timm.create_model('vit_small_patch16_dinov3', img_size=64, depth=2, embed_dim=48, num_classes=5), (
            64,
            64,
        )
    if name == 'timm-swin':
        arch = {'depths': (1, 1), 'num_heads': (2, 4), 'embed_dim': 16}
        return timm.create_model('swin_tiny_patch4_window7_224', img_size=56, window_size=7, num_classes=5, **arch), (
            56,
            56,
        )
    if name == 'timm-resnet':
        return timm.create_model('resnet10t', num_classes=5, channels=(8, 8, 16, 16)), (64, 96)
    vit = {'type': 'VisionTransformer', 'img_size': (32, 64), 'patch_size': 16}
    vit['arch'] = {'embed_dims': 32, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 64}
    return ImageClassifier(vit, head={'type': 'VisionTransformerClsHead', 'num_classes': 5, 'in_channels': 32}), (
        32,
        64,
    )


@pytest.mark.parametrize('name', ['timm-vit', 'timm-registers', 'timm-swin', 'timm-resnet', 'mmpretrain-vit'])
@pytest.mark.parametrize('method', ['GradCAMElementWise', 'AblationCAM'])
def test_foreign_networks(name: str, method: str):
    model, size = foreign(name)
    if name in ('timm-vit', 'timm-registers', 'timm-swin', 'timm-resnet'):
        nn.init.normal_(model.get_classifier().weight)  # initial heads may be zero
    else:
        nn.init.normal_(model.head.layers.head.weight)
    values = cam(model, torch.randn(1, 3, *size), method)
    assert values.shape == (1, *size)
    assert values.max() == 1
    assert values.std() > 0.01


def test_a_cell_of_a_foreign_network_lands_at_its_place():
    model, size = foreign('timm-vit')
    # The class token reads cell (1, 2) of 2 x 4 cells.
    first = torch.tensor([0])
    model.blocks[-1].register_forward_hook(lambda _, args, output: output.index_copy(1, first, args[0][:, 7:8]))
    nn.init.normal_(model.head.weight)
    values = cam(model, torch.randn(1, 3, *size), 'GradCAMElementWise')[0]
    assert (values[20:28, 36:44] > 0.5).all()
    assert values[:, :16].max() == 0


def test_nothing_is_left_behind():
    model = classifier('vit').train()
    model.backbone.layers[0].eval()
    for parameter in model.backbone.patch_embed.parameters():
        parameter.requires_grad_(False)
    model.head.fc.bias.grad = torch.ones(10)
    modes = [module.training for module in model.modules()]
    learned = [parameter.requires_grad for parameter in model.parameters()]
    images = torch.randn(1, 3, 16, 16)
    for fails in (False, True):
        if fails:
            with pytest.raises(AnalysisError):
                cam(model, images, side='output')
        else:
            cam(model, images, 'AblationCAM')
        assert [module.training for module in model.modules()] == modes
        assert [parameter.requires_grad for parameter in model.parameters()] == learned
        assert model.head.fc.bias.grad.eq(1).all()
        assert model.head.fc.weight.grad is None
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert images.grad is None


def test_recomputed_blocks_and_low_precision():
    torch.manual_seed(1)
    images = torch.randn(1, 3, 32, 32)
    expected = cam(classifier(), images)
    torch.testing.assert_close(cam(classifier(with_cp=True), images), expected)
    half = cam(classifier().bfloat16(), images.bfloat16())
    assert half.dtype == torch.float32
    assert (half - expected).abs().mean() < 0.05  # bfloat16 has 8 bits


def test_classes_are_those_that_the_head_predicts():
    model = classifier()
    images = torch.randn(1, 3, 32, 32)
    expected = cam(model, images, classes=7)
    model.head.predict_classes = torch.tensor([7, 2])
    torch.testing.assert_close(cam(model, images, classes=0), expected)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'layer': 9}, r'has the layers 0 to 1 \(or -2 to -1\), got 9'),
        ({'side': 'middle'}, r"side must be 'input' .* or 'output' .*, got 'middle'"),
        ({'side': 'output'}, r'GradCAM at the output of layer 1 \(backbone.layers.1\) shows nothing: .* class token'),
        ({'side': 'output', 'method': 'AblationCAM'}, r'AblationCAM at the output of layer 1 .* shows nothing'),
        ({'classes': 10}, r'classes must be an index from 0 to 9, .* got 10'),
        ({'classes': -1}, r'classes must be an index from 0 to 9, .* got -1'),
        ({'classes': [1, 2, 3]}, r'or one for each of the 2 images, got \[1, 2, 3\]'),
        ({'classes': 1, 'method': 'EigenCAM'}, r'EigenCAM explains the activations, not a class: leave classes out'),
        ({'method': 'gradcam'}, r"method must be one of GradCAM, .*, FEM, got 'gradcam'"),
        ({'method': 'FullGrad'}, r'FullGrad does not work here: it adds up the biases'),
        ({'method': 'FinerCAM'}, r'FinerCAM does not work here: it contrasts several classes'),
        ({'method': 'ShapleyCAM'}, r'ShapleyCAM does not work here: it needs second derivatives'),
        ({'method': 'RandomCAM'}, r'RandomCAM does not work here: it draws the weights'),
        ({'method': 'SegEigenCAM'}, r'SegEigenCAM does not work here: it explains segmentations'),
        ({'method': 'SESS'}, r'SESS does not work here: it combines the maps of resized crops'),
        ({'method': 'RefineCAM'}, r'RefineCAM does not work here: it multiplies the maps of several layers'),
    ],
)
def test_errors_of_arguments(options: dict, message: str):
    with pytest.raises(AnalysisError, match=message):
        cam(classifier(), torch.randn(2, 3, 32, 32), **options)


def test_every_method_of_grad_cam_works_or_is_refused_by_name():
    import pytorch_grad_cam
    from pytorch_grad_cam.base_cam import BaseCAM

    named = {kind.__name__ for kind in BaseCAM.__subclasses__() if kind.__module__.startswith('pytorch_grad_cam')}
    combined = {name for name in ('FinerCAM', 'SESS', 'RefineCAM') if hasattr(pytorch_grad_cam, name)}
    for method in named | combined:
        if method not in CLASS_METHODS + CLASSLESS_METHODS:
            with pytest.raises(AnalysisError, match=rf'{method} does not work here'):
                cam(classifier(), torch.randn(1, 3, 32, 32), method)


def test_errors_of_models(monkeypatch: pytest.MonkeyPatch):
    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(AnalysisError, match=r'DefocusMamba gives no class logits; expected a classifier'):
        cam(classifier().backbone, images)
    broken = classifier()
    broken.head.fc.weight.data.fill_(float('nan'))
    with pytest.raises(AnalysisError, match=r'GradCAM at the input of layer 1 .* is not finite for image 0'):
        cam(broken, images, classes=0)
    indifferent = classifier()
    indifferent.head.fc.weight.data.zero_()
    with pytest.raises(AnalysisError, match=r'shows nothing: the logit of class 4 of image 0 does not depend'):
        cam(indifferent, images, classes=4)
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(AnalysisError, match=r'need the package grad-cam; install it: pip install grad-cam'):
        cam(classifier(), images)


def test_a_map_without_a_positive_cell_is_an_error():
    class Negative(SumTokens):
        def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
            return torch.cat((torch.zeros_like(x[:, :-1]), -x[:, :-1].square().sum(1, keepdim=True)), dim=1)

    model = classifier()
    model.backbone.layers[-1].mixer = Negative()
    model.backbone.norm = nn.Identity()
    model.head.fc.weight.data.fill_(1.0)
    with pytest.raises(AnalysisError, match=r'is zero for image 0: no cell speaks more for class 0 than the others'):
        cam(model, torch.randn(1, 3, 32, 32), 'HiResCAM', classes=0)


def test_the_picture_shows_the_map_over_the_image(tmp_path: Path):
    values = torch.zeros(16, 24)
    values[:8, :12] = 1
    picture = draw_cam(np.full((16, 24, 3), 128, np.uint8), values)
    assert picture.shape == (224, 336, 3)
    assert picture.dtype == np.uint8
    red, _, blue = picture[50, 80].tolist()
    assert red > blue
    red, _, blue = picture[200, 300].tolist()
    assert blue > red
