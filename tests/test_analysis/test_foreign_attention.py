"""Attention of networks of timm and MMPreTrain: the matrices that they apply, or why there is none."""

import pytest
import timm
import torch
import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.models.backbones import VisionTransformer
from timm.layers import set_fused_attn
from torch import nn

from mmdefocus.analysis.errors import AnalysisError, NoAttention
from mmdefocus.analysis.foreign_attention import foreign_attention
from mmdefocus.analysis.networks import TokenNetwork


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def unfused():
    set_fused_attn(False)
    yield
    set_fused_attn(True)


def observe(model, images, layers=None):
    model.eval()  # returns None in MMPreTrain
    network = TokenNetwork(model)
    maps = {}
    reasons = foreign_attention(network, images, network.select(layers), maps.__setitem__)
    assert maps.keys().isdisjoint(reasons)
    return maps, reasons


def images(size=64, batch=2):
    return torch.randn(batch, 3, size, size)


class Block(nn.Module):
    """A block that applies a function to its tokens."""

    def __init__(self, attend):
        super().__init__()
        self.attend = attend

    def forward(self, x):
        return self.attend(x)


class Stack(nn.Module):
    """A patch embedding and blocks."""

    def __init__(self, *blocks, dims=8):
        super().__init__()
        self.stem = nn.Conv2d(3, dims, 16, 16)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images):
        return self.blocks(self.stem(images).flatten(2).mT)


# Networks of timm


def by_hand(block, tokens):
    """Return the softmax weights of a block of a Vision Transformer of timm."""
    attention = block.attn
    q, k, _ = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return (q @ k.mT * attention.scale).softmax(dim=-1)


@pytest.mark.parametrize('name', ['deit_tiny_patch16_224', 'vit_little_patch16_reg4_gap_256'])
def test_vision_transformers_give_their_softmax(name):
    model, batch = timm.create_model(name, img_size=64, qk_norm=False, depth=3), images()
    tokens = []
    hooks = [block.register_forward_pre_hook(lambda _, args: tokens.append(args[0])) for block in model.blocks]
    maps, reasons = observe(model, batch)
    for hook in hooks:
        hook.remove()
    assert not reasons
    assert list(maps) == [0, 1, 2]
    for index, attention in maps.items():
        torch.testing.assert_close(attention, by_hand(model.blocks[index], tokens[index]))
    assert maps[0].shape[-1] == 16 + model.num_prefix_tokens


def test_fused_and_unfused_attention_give_equal_maps(unfused):
    model, batch = timm.create_model('deit_tiny_patch16_224', img_size=64, depth=3).double(), images().double()
    assert not model.blocks[0].attn.fused_attn
    unfused_maps, _ = observe(model, batch)
    for block in model.blocks:
        block.attn.fused_attn = True
    fused_maps, _ = observe(model, batch)
    for index, attention in fused_maps.items():
        torch.testing.assert_close(attention, unfused_maps[index], rtol=0, atol=1e-12)


def test_attention_is_what_turns_values_into_the_output_of_the_layer():
    model, batch = timm.create_model('convit_tiny', img_size=64), images()
    outputs, values = {}, {}
    for index, block in enumerate(model.blocks):
        if hasattr(block.attn, 'v'):  # positional attention
            block.attn.v.register_forward_hook(lambda _, args, out, index=index: values.update({index: out}))
        block.attn.proj.register_forward_pre_hook(lambda _, args, index=index: outputs.update({index: args[0]}))
    maps, reasons = observe(model, batch)
    assert not reasons
    assert maps[11].shape == (2, 4, 17, 17)  # the class token enters the last two layers
    assert maps[0].shape == (2, 4, 16, 16)
    for index, value in values.items():
        product = maps[index] @ value.unflatten(-1, (4, -1)).transpose(1, 2)
        torch.testing.assert_close(product.transpose(1, 2).flatten(2), outputs[index])


def test_windows_have_no_map_of_all_tokens():
    maps, reasons = observe(timm.create_model('swin_tiny_patch4_window7_224'), images(224, batch=1))
    assert list(maps) == [10, 11]  # 7 x 7 tokens: a single window
    assert reasons[0] == 'it attends within windows or groups of 49 tokens: there is no map of all 3136 tokens'
    assert str(NoAttention(0, reasons[0])).startswith('layer 0 exposes no attention: it attends within windows')
    assert NoAttention(3, 'x').layer == 3
    assert issubclass(NoAttention, AnalysisError)


@pytest.mark.parametrize('name', ['resnet50', 'mambaout_femto'])
def test_convolutional_networks_have_no_map(name):
    maps, reasons = observe(timm.create_model(name), images(32, batch=1), layers=[0, -1])
    assert not maps
    assert len(reasons) == 2
    assert reasons[0].startswith('nothing in it multiplies values by a matrix of all 64 tokens')


def test_reduced_keys_have_no_square_map():
    _, reasons = observe(timm.create_model('pvt_v2_b0'), images(batch=1), layers=[0])
    assert reasons == {0: 'it attends from 256 to 4 tokens: there is no map of all 256 tokens'}


def test_hybrid_networks_give_the_maps_that_they_have():
    maps, reasons = observe(timm.create_model('shvit_s1'), images(224, batch=1))
    assert len(maps) > 1
    assert len(reasons) > 1
    for attention in maps.values():  # v @ attention.T
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))


# Networks of MMPreTrain


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='VisionTransformer', arch='deit-tiny', img_size=64),
        dict(type='TIMMBackbone', model_name='deit_tiny_patch16_224', img_size=64),
    ],
    ids=['VisionTransformer', 'TIMMBackbone'],
)
def test_backbones_of_classifiers_give_the_same_maps_alone(backbone):
    head = dict(type='LinearClsHead', num_classes=10, in_channels=192)
    model, batch = ImageClassifier(backbone=backbone, head=head), images()
    maps, reasons = observe(model, batch)
    assert not reasons
    assert len(maps) == 12
    assert maps[11].shape == (2, 3, 17, 17)
    alone, _ = observe(model.backbone, batch)
    for index, attention in maps.items():
        torch.testing.assert_close(attention, alone[index], rtol=0, atol=0)
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 3, 17))


def test_mmpretrain_gives_its_softmax():
    model, batch = VisionTransformer('deit-tiny', img_size=64), images()
    tokens = []
    model.layers[3].ln1.register_forward_hook(lambda _, args, out: tokens.append(out))
    maps, _ = observe(model, batch, layers=[3])
    q, k, _ = model.layers[3].attn.qkv(tokens[0]).unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(maps[3], (q @ k.mT / 8).softmax(dim=-1))


# Attention of every kind


def test_multi_head_attention_of_torch():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    for need_weights in (True, False):
        model = Stack(Block(lambda x, need=need_weights: attention(x, x, x, need_weights=need)[0]))
        model.inner = attention
        batch = images(48)
        maps, reasons = observe(model, batch)
        tokens = model.stem(batch).flatten(2).mT
        _, expected = attention(tokens, tokens, tokens, average_attn_weights=False)
        assert not reasons
        torch.testing.assert_close(maps[0], expected)


@pytest.mark.parametrize('norm_first', [True, False])
def test_encoder_layers_of_torch(norm_first):
    maps, reasons = observe(
        Stack(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)), images(48)
    )
    assert not reasons
    assert maps[0].shape == (2, 2, 9, 9)


MASK = torch.rand(9, 9) > 0.3
MASK.fill_diagonal_(True)


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(is_causal=True),
        dict(scale=0.9),
        dict(attn_mask=MASK),
        dict(attn_mask=torch.linspace(-2, 2, 81).view(9, 9)),
    ],
    ids=['plain', 'causal', 'scale', 'boolean mask', 'bias'],
)
def test_options_of_fused_attention(options):
    def attend(x):
        x = x.unflatten(-1, (2, 4)).transpose(1, 2)
        return F.scaled_dot_product_attention(x, x, x, **options).transpose(1, 2).flatten(2)

    model, batch = Stack(Block(attend)), images(48)
    maps, _ = observe(model, batch)
    x = model.stem(batch).flatten(2).mT.unflatten(-1, (2, 4)).transpose(1, 2)
    expected = F.scaled_dot_product_attention(x, x, torch.eye(9).expand(2, 2, 9, 9), **options)
    torch.testing.assert_close(maps[0], expected)


def test_grouped_queries():
    def attend(x):
        q, kv = x.unflatten(-1, (4, 2)).transpose(1, 2), x[..., :4].unflatten(-1, (2, 2)).transpose(1, 2)
        return F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True).transpose(1, 2).flatten(2)

    maps, _ = observe(Stack(Block(attend)), images(48))
    assert maps[0].shape == (2, 4, 9, 9)


@pytest.mark.parametrize('product', ['matmul', 'bmm', 'operator', 'transposed', 'signed'])
def test_products_of_matrices(product):
    weights = torch.rand(2, 9, 9).softmax(dim=-1)
    apply = {
        'matmul': lambda x: torch.matmul(weights, x),
        'bmm': lambda x: torch.bmm(weights, mat2=x),
        'operator': lambda x: weights @ x,
        'transposed': lambda x: (x.mT @ weights.mT).mT,
        'signed': lambda x: (weights - 0.3) @ x,
    }
    maps, _ = observe(Stack(Block(apply[product])), images(48))
    expected = weights - 0.3 if product == 'signed' else weights
    torch.testing.assert_close(maps[0], expected.unsqueeze(1))


def test_queries_times_keys_are_no_attention():
    """Nine channels, nine tokens: queries times keys have the shapes of weights times values."""

    def attend(x):
        return (x @ x.mT).softmax(dim=-1) @ x

    model, batch = Stack(Block(attend), dims=9), images(48)
    maps, _ = observe(model, batch)
    x = model.stem(batch).flatten(2).mT
    torch.testing.assert_close(maps[0], (x @ x.mT).softmax(dim=-1).unsqueeze(1))


def test_heads_of_several_attentions_follow_one_another():
    first, second = torch.rand(2, 3, 9, 9).softmax(dim=-1), torch.rand(2, 9, 9).softmax(dim=-1)
    model = Stack(Block(lambda x: (first @ x.unsqueeze(1)).mean(dim=1) + second @ x))
    maps, _ = observe(model, images(48))
    torch.testing.assert_close(maps[0], torch.cat((first, second.unsqueeze(1)), dim=1))


def test_dropout_of_weights_is_an_error():
    model = Stack(Block(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)))
    with pytest.raises(AnalysisError, match=r'differ from the result of the fused attention by .*switch off dropout'):
        observe(model, images(48))


def test_weights_that_are_not_finite_are_an_error():
    weights = torch.full((2, 9, 9), float('nan'))
    with pytest.raises(AnalysisError, match=r'attention weights are not finite'):
        observe(Stack(Block(lambda x: weights @ x)), images(48))


def test_nothing_stays_behind():
    model = timm.create_model('deit_tiny_patch16_224', img_size=64, depth=2)

    def fail(index, attention):
        raise RuntimeError('stop')

    network = TokenNetwork(model.eval())
    with pytest.raises(RuntimeError, match='stop'):
        foreign_attention(network, images(), [0], fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.overrides._get_current_function_mode() is None


def test_layers_that_run_twice_are_an_error():
    block = nn.Linear(8, 8)
    with pytest.raises(AnalysisError, match=r'layer 0 \(blocks\.0\) runs twice'):
        observe(Stack(block, block), images(48), layers=[0])


def test_layers_that_do_not_run_have_a_reason():
    model = Stack(nn.Identity(), nn.Identity())
    model.forward = lambda images: model.blocks[0](model.stem(images).flatten(2).mT)
    assert observe(model, images(48), layers=[1])[1] == {1: 'it did not run'}
