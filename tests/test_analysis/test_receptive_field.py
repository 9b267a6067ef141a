"""Effective receptive fields against Jacobians, closed forms and the fields that causality and kernels allow."""

import pytest
import timm
import torch
from mmpretrain.models import ImageClassifier
from torch import nn
from torch.autograd.functional import jacobian

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.receptive_field import SHARES, receptive_field, theoretical_field
from mmdefocus.analysis.token_layout import grid_queries
from mmdefocus.models import DefocusMamba, DefocusRetNet, DefocusViT

ARCHS = {
    DefocusMamba: dict(
        embed_dims=16, num_layers=2, inner_dims=32, state_dims=4, conv_kernel=4, dt_rank=4, group_size=16
    ),
    DefocusViT: dict(embed_dims=16, num_layers=2, num_heads=2, ffn_dims=32),
    DefocusRetNet: dict(embed_dims=16, num_layers=2, num_heads=2, value_dims=32, ffn_dims=24),
}
WINDOW = dict(token_order='window', pretrain_size=8)  # 2 x 2 tokens
GRID = 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(family=DefocusMamba, **options):
    return family(ARCHS[family], **dict(img_size=16, patch_size=4, out_type='raw') | options).double()


def batch(count=2, height=16, width=16):
    return torch.randn(count, 3, height, width, dtype=torch.float64)


def layout_of(network, images):
    network = TokenNetwork(network)
    with network.record([0]) as records:
        network.run(images)
    return network.layout(records[0].inputs, images.shape[-2:])


class Mixing(nn.Module):
    """Tokens of one channel, multiplied by a matrix: the field of a token is a row of the matrix."""

    def __init__(self, matrix, grid=(GRID, GRID), causal=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 1, 4, 4, bias=False).double()
        nn.init.constant_(self.stem.weight, 1 / 48)
        self.blocks = nn.Sequential(nn.Identity())
        self.blocks[0].forward = lambda tokens: matrix @ tokens

    def forward(self, images):
        return self.blocks(self.stem(images).flatten(2).mT)


# Values


@pytest.mark.parametrize('family', ARCHS)
def test_fields_are_those_of_the_jacobian(family):
    network, images = build(family).eval(), batch()
    field = receptive_field(network, images, layers=[1], queries=[16, 6])[1]
    view = TokenNetwork(network)

    def tokens(image):
        with view.record([1]) as records:
            view.run(image)
        return records[1].outputs[0, [16, 6]].sum(dim=-1)

    for position in range(2):
        expected = torch.zeros(GRID, GRID, dtype=torch.float64)
        for image in images.split(1):
            positive = jacobian(tokens, image)[position, 0].clamp(min=0).sum(dim=0)
            for row in range(GRID):
                for column in range(GRID):
                    expected[row, column] += positive[4 * row :, 4 * column :][:4, :4].sum() / 2
        torch.testing.assert_close(field.fields[position], expected, rtol=1e-10, atol=1e-14)
    assert field.queries == [16, 6]


def test_the_mean_is_over_images():
    network, images = build(), batch(3)
    together = receptive_field(network, images)
    alone = [receptive_field(network, image) for image in images.split(1)]
    for layer, field in together.items():
        torch.testing.assert_close(field.fields, sum(single[layer].fields for single in alone) / 3)
        for share in SHARES:
            means = torch.tensor([single[layer].shares[share][0] for single in alone])
            assert field.shares[share][0] == pytest.approx(means.mean().item())


def test_shares_count_the_smallest_set_of_cells():
    row = torch.zeros(16, dtype=torch.float64)
    row[torch.tensor([3, 8, 9, 15])] = torch.tensor([0.25, 0.35, 0.15, 0.25], dtype=torch.float64)
    matrix = torch.stack([row] + [torch.full_like(row, 1 / 16)] * 15)
    field = receptive_field(Mixing(matrix), batch(1), queries=[0])[0]
    torch.testing.assert_close(field.fields[0].flatten(), row)
    expected = {0.2: 1 / 16, 0.3: 1 / 16, 0.5: 2 / 16, 0.99: 4 / 16}
    assert field.shares == {share: pytest.approx((value, 0)) for share, value in expected.items()}
    even = receptive_field(Mixing(matrix), batch(1), queries=[1])[0]
    assert even.shares == {0.2: (0.25, 0), 0.3: (0.3125, 0), 0.5: (0.5, 0), 0.99: (1, 0)}
    both = receptive_field(Mixing(matrix), batch(1), queries=[0, 1])[0]
    assert both.shares[0.5] == pytest.approx((0.3125, 0.1875))
    assert both.shares == both.image_shares


def test_negative_gradients_are_left_out():
    matrix = torch.eye(16, dtype=torch.float64) - 0.5 * torch.eye(16, dtype=torch.float64).flip(0)
    field = receptive_field(Mixing(matrix), batch(1), queries=[2])[0].fields[0]
    assert field.flatten().nonzero().flatten().tolist() == [2]


def test_shares_of_causal_networks_are_of_visible_cells():
    field = receptive_field(build(), batch(), layers=[1], queries=[7])[1]
    for share in SHARES:
        visible, image = field.shares[share], field.image_shares[share]
        assert image == pytest.approx((visible[0] / 2, visible[1] / 2))  # it sees 8 of the 16 cells
    first = receptive_field(build(), batch(), layers=[1], queries=[0])[1]
    assert first.shares[0.2] == first.shares[0.99] == (1, 0)


# Alignment


def test_aligned_fields_of_a_translation_are_the_translation():
    """Every token takes 1 from itself, 2 from the token to its right and 4 from the token below."""
    matrix = torch.zeros(16, 16, dtype=torch.float64)
    for row in range(GRID):
        for column in range(GRID):
            for (down, right), weight in {(0, 0): 1, (0, 1): 2, (1, 0): 4}.items():
                if row + down < GRID and column + right < GRID:
                    matrix[row * GRID + column, (row + down) * GRID + column + right] = weight
    field = receptive_field(Mixing(matrix), batch(1), queries=range(16))[0]
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[3, 3], expected[3, 4], expected[4, 3] = 1, 2, 4
    torch.testing.assert_close(field.relative, expected)


def test_aligned_fields_of_a_causal_network_are_one_sided():
    (field,) = receptive_field(build(), batch(), layers=[1]).values()
    assert field.relative.isfinite().all()
    assert field.relative.shape == (7, 7)
    assert (field.relative[4:] == 0).all()  # below
    assert (field.relative[3, 4:] == 0).all()  # to the right
    assert field.relative[3, 3] > 0


def test_a_class_token_alone_has_no_aligned_field():
    (field,) = receptive_field(build(), batch(), layers=[1], queries=[16]).values()
    assert field.relative is None


def test_queries_of_coarser_layers_are_aligned_at_their_middle():
    model = timm.create_model('resnet18', zero_init_last=False)
    field = receptive_field(model, torch.randn(1, 3, 64, 64), layers=[2], queries=[27])[2]  # (3, 3) of 8 x 8
    assert field.fields.shape == (1, 16, 16)
    rows, columns = field.relative.nonzero().T
    assert field.relative.shape == (31, 31)
    offsets = (rows.min() - 15, rows.max() - 15, columns.min() - 15, columns.max() - 15)
    assert all(abs(offset) <= 9 for offset in offsets)
    assert offsets[0] < 0 < offsets[1]


# What causality and kernels allow


@pytest.mark.parametrize('family', ARCHS)
@pytest.mark.parametrize('order', [{}, WINDOW], ids=['raster', 'window'])
@pytest.mark.parametrize('size', [(16, 16), (10, 13)], ids=['whole patches', 'padding'])
def test_fields_of_causal_networks_are_inside_their_theoretical_field(family, order, size):
    network, images = build(family, **order), batch(1, *size)
    layout = layout_of(network, images)
    queries = range(layout.length)
    field = receptive_field(network, images, layers=[1], queries=queries)[1]
    allowed = torch.stack([theoretical_field(layout, query) for query in queries])
    assert allowed.shape == field.fields.shape
    assert (field.fields[~allowed] == 0).all()
    assert (field.fields[allowed] > 0).double().mean() > 0.9  # the whole of it is seen


def test_the_theoretical_field_follows_the_order_of_tokens():
    raster = theoretical_field(layout_of(build(), batch()), 5)
    assert raster.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    window = theoretical_field(layout_of(build(**WINDOW), batch()), 5)
    assert window.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    window = theoretical_field(layout_of(build(**WINDOW), batch()), 8)
    assert window.int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    window = theoretical_field(layout_of(build(**WINDOW), batch()), 2)
    assert window.int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert theoretical_field(layout_of(build(DefocusViT, causal=False), batch()), 0).all()
    assert theoretical_field(layout_of(build(), batch()), 16).all()  # the class token


def test_a_convolutional_network_stays_inside_the_reach_of_its_kernels():
    """Kernel, stride and padding give the first and the last pixel of a token: p · stride - padding + (0 … k - 1)."""
    shapes = [(3, 2, 1), (3, 1, 1), (5, 2, 2), (3, 1, 0)]
    model = nn.Sequential()
    model.features = nn.Sequential(*(nn.Conv2d(3, 3, kernel, stride, padding) for kernel, stride, padding in shapes))
    model.forward = lambda images: model.features(images)
    fields = receptive_field(model.double(), batch(1, 32, 32), queries=[9])
    for layer, field in fields.items():
        side = {0: 16, 1: 16, 2: 8, 3: 6}[layer]
        reach = []
        for position in divmod(9, side):
            first, last = position, position
            for kernel, stride, padding in reversed(shapes[: layer + 1]):
                first, last = first * stride - padding, last * stride - padding + kernel - 1
            reach.append((max(first, 0), last + 1))
        allowed = torch.zeros(32, 32, dtype=torch.bool)
        allowed[slice(*reach[0]), slice(*reach[1])] = True
        assert (field.fields[0][~allowed] == 0).all()
        rows, columns = field.fields[0].nonzero().T
        assert (rows.min(), rows.max() + 1) == reach[0]
        assert (columns.min(), columns.max() + 1) == reach[1]


# Queries, other networks, mistakes


def test_default_queries_are_the_class_token_and_spread_cells():
    layout = layout_of(build(**WINDOW), batch(1, 24, 24))
    queries = grid_queries(layout, 3)
    assert queries[0] == 36
    assert [divmod(int(layout.cells[query]), 6) for query in queries[1:]] == [
        (row, column) for row in (1, 3, 5) for column in (1, 3, 5)
    ]
    assert receptive_field(build(**WINDOW), batch(1, 24, 24), layers=[0])[0].queries == queries
    one = layout_of(build(), batch(1, 4, 4))
    assert grid_queries(one, 3) == [1, 0]


@pytest.mark.parametrize(
    ('name', 'options', 'grid', 'count'),
    [
        ('deit_tiny_patch16_224', dict(img_size=64), (4, 4), 10),
        ('swin_tiny_patch4_window7_224', dict(img_size=64), (16, 16), 9),
    ],
)
def test_networks_of_timm(name, options, grid, count):
    field = receptive_field(timm.create_model(name, **options), torch.randn(1, 3, 64, 64), layers=[1])[1]
    assert field.fields.shape == (len(field.queries), *grid)
    assert len(field.queries) == count
    assert 0 < field.shares[0.2][0] <= field.shares[0.3][0] <= field.shares[0.5][0] <= field.shares[0.99][0] <= 1


def test_classifiers_and_their_state():
    backbone = dict(type='DefocusMamba', arch=ARCHS[DefocusMamba], img_size=16, patch_size=4, out_type='raw')
    head = dict(type='DefocusClsHead', num_classes=5, in_channels=16)
    model = ImageClassifier(backbone=backbone | dict(drop_path_rate=0.5, with_cp=True), head=head).double().train()
    images = batch()
    with torch.no_grad():
        field, again = (receptive_field(model, images, layers=[1])[1] for _ in range(2))
    torch.testing.assert_close(field.fields, again.fields, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert model.backbone.with_cp
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_mistakes():
    network, images = build(), batch(1)
    with pytest.raises(AnalysisError, match=r'has the layers 0 to 1'):
        receptive_field(network, images, layers=[2])
    with pytest.raises(AnalysisError, match=r'positions from 0 to 16 of query tokens that leave the layer, got \[-1\]'):
        receptive_field(network, images, queries=[-1])
    with pytest.raises(AnalysisError, match=r'expected normalised images'):
        receptive_field(network, images[0])
    with pytest.raises(AnalysisError, match=r'positions from 0 to 16 .* got \[17\]'):
        theoretical_field(layout_of(network, images), 17)
    with pytest.raises(AnalysisError, match=r'no query token that leaves layer 0 \(blocks\.0\) depends on the images'):
        receptive_field(Mixing(torch.zeros(16, 16, dtype=torch.float64)), images)


def test_networks_that_only_count_as_causal_are_an_error():
    network = build(DefocusViT, causal=False)
    network.causal = True
    with pytest.raises(
        AnalysisError, match=r'depends on later tokens, but DefocusViT counts as causal; set .* to False'
    ):
        receptive_field(network, batch(1))


def test_tokens_behind_a_dead_relu_have_no_share():
    matrix = torch.eye(16, dtype=torch.float64)
    matrix[0] = 0
    field = receptive_field(Mixing(matrix), batch(1), queries=[0, 5])[0]
    assert field.shares[0.5] == (1 / 16, 0)
