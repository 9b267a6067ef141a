"""What can be asked of attention maps, what cannot, and what a call leaves behind."""

import pytest
import torch
from timm.models import create_model
from torch import nn
from toy_networks import build, images_of

from mmdefocus.analysis.attention_maps import attention_blocks, attention_maps
from mmdefocus.analysis.errors import AnalysisError, NoAttention
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.models.mixers import TokenMixer

BOTH = pytest.mark.parametrize('function', [attention_maps, attention_blocks])


def test_layers_count_from_the_first_and_the_last():
    model, images = build('mamba'), images_of()
    maps = attention_maps(model, images)
    assert list(maps) == [0, 1]
    chosen = attention_maps(TokenNetwork(model), images, [-1, 1])
    assert list(chosen) == [1]
    assert torch.equal(chosen[1], maps[1])


@BOTH
@pytest.mark.parametrize(
    ('kind', 'request_', 'message'),
    [
        ('mamba', {'layers': [2]}, r'DefocusMamba has the layers 0 to 1 \(or -2 to -1\), got 2'),
        ('mamba', {'layers': [-3]}, r'DefocusMamba has the layers 0 to 1 \(or -2 to -1\), got -3'),
        ('mamba', {'reduce': 'heads'}, r"expected reduce to be one of none, group, mean, got 'heads'"),
        ('mamba', {'include': ['norm']}, r"expected include as a sequence of conv and gate, got \['norm'\]"),
        ('mamba', {'include': 'gate'}, r"expected include as a sequence of conv and gate, got 'gate'"),
        ('retnet', {'include': ['conv']}, r"layer 0: the maps of RetentionMixer can include gate, got .*'conv'"),
        ('vit', {'include': ['gate']}, r"layer 0: the maps of AttentionMixer can include no other part, got .*'gate'"),
    ],
)
def test_requests_that_cannot_be_met(function, kind, request_, message):
    with pytest.raises(AnalysisError, match=message):
        list(function(build(kind), images_of(), **request_))


@pytest.mark.parametrize(
    ('queries', 'message'),
    [
        ([0, 17], r'expected queries from -17 to 16 for 17 tokens, got 17'),
        ([-18], r'expected queries from -17 to 16 for 17 tokens, got -18'),
        ([], r'expected at least one query, got none'),
    ],
)
def test_queries_that_do_not_exist(queries, message):
    with pytest.raises(AnalysisError, match=message):
        attention_maps(build('vit'), images_of(), queries=queries)


class OtherMixer(TokenMixer):
    def __init__(self):
        super().__init__()
        self.out_proj = nn.Identity()

    def reset_parameters(self): ...

    def forward(self, x, positions, delta_scale):
        return self.out_proj(x)


@BOTH
@pytest.mark.parametrize(
    ('mixer', 'message'),
    [
        (nn.Identity(), r'layer 1 exposes no attention: Identity is no token mixer with an output projection'),
        (OtherMixer(), r'layer 1 exposes no attention: the maps of OtherMixer are not known'),
    ],
)
def test_layers_without_known_maps(function, mixer, message):
    model = build('mamba')
    model.layers[1].mixer = mixer
    assert list(attention_maps(model, images_of(), [0])) == [0] if isinstance(mixer, TokenMixer) else True
    with pytest.raises(NoAttention, match=message) as caught:
        list(function(model, images_of(), [1]))
    assert caught.value.layer == 1


def state_of(model):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return [m.training for m in model.modules()], hooks, [p.grad for p in model.parameters()], torch.is_grad_enabled()


@BOTH
@pytest.mark.parametrize('images', [images_of(), images_of()[:, :2]], ids=['fits', 'fails'])
def test_nothing_is_left_behind(function, images):
    model = build('mamba', drop_path_rate=0.9).train()
    model.layers[0].norm.eval()
    before = state_of(model)
    exact = attention_maps(model.eval(), images_of())[1]
    for module, training in zip(model.modules(), before[0], strict=True):
        module.training = training
    if images.shape[1] == 2:
        with pytest.raises(ValueError, match='3'):
            function(model, images)
    else:
        result = function(model, images)
        for item in result if function is attention_blocks else result.values():
            assert state_of(model) == before
            rows = item[2] if function is attention_blocks else item
            assert not rows.requires_grad
        assert torch.equal(rows, exact)  # in evaluation mode, without drop path
    assert state_of(model) == before


# Networks of timm and MMPreTrain


@pytest.fixture
def foreign():
    """A network of timm whose layer 2 has no attention, and whose images have 5 tokens and 3 heads."""
    model = create_model('vit_tiny_patch16_224', img_size=32, depth=3)
    model.blocks[2] = nn.LayerNorm(192)
    return model.train()


def test_maps_of_other_networks(foreign):
    images = images_of(32, 32, torch.float32)
    maps = attention_maps(foreign, images, [0, -2])
    assert {layer: rows.shape for layer, rows in maps.items()} == {0: (2, 3, 5, 5), 1: (2, 3, 5, 5)}
    mean = attention_maps(foreign, images, [1], 'mean', queries=[-1])[1]
    torch.testing.assert_close(mean, maps[1].mean(1, keepdim=True)[..., -1:, :])
    blocks = list(attention_blocks(foreign, images, [1, 0]))
    assert [(layer, start) for layer, start, _ in blocks] == [(1, 0), (0, 0)]
    assert torch.equal(blocks[0][2], maps[1])
    assert foreign.training


@BOTH
def test_by_default_layers_without_attention_are_left_out(foreign, function):
    images = images_of(32, 32, torch.float32)
    found = function(foreign, images)
    assert [item if isinstance(item, int) else item[0] for item in found] == [0, 1]
    foreign.blocks = nn.Sequential(nn.LayerNorm(192), nn.LayerNorm(192))
    with pytest.raises(NoAttention, match=r'layer 0 exposes no attention: '):
        list(function(foreign, images))


@BOTH
@pytest.mark.parametrize(
    ('request_', 'error', 'message'),
    [
        ({'reduce': 'none'}, AnalysisError, r'the maps of VisionTransformer are known per head, not per channel'),
        ({'include': ['gate']}, AnalysisError, r"VisionTransformer can include no further part.*'gate'"),
        ({'layers': [2]}, NoAttention, r'layer 2 exposes no attention: '),
    ],
)
def test_requests_that_other_networks_cannot_meet(foreign, function, request_, error, message):
    with pytest.raises(error, match=message):
        list(function(foreign, images_of(32, 32, torch.float32), **{'layers': [0]} | request_))
