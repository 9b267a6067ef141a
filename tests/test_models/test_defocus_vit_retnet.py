"""De-focus ViT and De-focus RetNet: their own parts, and the parts that they share with De-focus Mamba."""

import pytest
import torch
from detector_options import DETECTOR
from test_golden import BFLOAT16_TOLERANCE, assert_parity

from mmdefocus.models import DefocusRetNet, DefocusViT
from mmdefocus.models.mixers.bandpass import Bandpass

VIT = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'ffn_dims': 32}
RETNET = {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'value_dims': 32, 'ffn_dims': 24}
TOYS = {
    'vit': (DefocusViT, VIT, {}),
    'non-causal vit': (DefocusViT, VIT, {'causal': False}),
    'retnet': (DefocusRetNet, RETNET, {}),
}
PLAIN = {'band_pass': False, 'absolute_positions': True}
ALL = pytest.mark.parametrize('kind', TOYS)


def build(kind, **changes):
    network, arch, options = TOYS[kind]
    torch.manual_seed(0)
    return network(arch, **options, **changes)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Sizes


@pytest.mark.parametrize(
    ('network', 'arch', 'heads', 'published', 'tolerance', 'counted'),
    [
        # De-focus networks have two heads. Their published sizes are rounded; the sizes of RetNet are our choice.
        (DefocusViT, 'base', 2, 87.4e6, 0.005, 87_176_144),
        (DefocusRetNet, 'base', 2, 92.7e6, 0.02, 94_171_088),
        (DefocusViT, 'small', 1, 22.1e6, 0.005, 22_041_064),
        (DefocusViT, 'base', 1, 86.6e6, 0.005, 86_548_456),
        (DefocusRetNet, 'base', 1, 93.6e6, 0.005, 93_543_400),
    ],
    ids=['De-focus ViT-B', 'De-focus RetNet-B', 'DeiT-S', 'DeiT-B', 'RetNet-B'],
)
def test_parameter_counts_are_those_of_the_paper(network, arch, heads, published, tolerance, counted):
    with torch.device('meta'):
        backbone = network(arch, **({} if heads == 2 else PLAIN))
    count = parameters(backbone) + heads * (backbone.embed_dims + 1) * 1000
    assert count == counted
    assert count == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize('network', [DefocusViT, DefocusRetNet])
def test_nano_is_small(network):
    assert parameters(network('nano')) < 600_000


# Outputs


@ALL
@pytest.mark.parametrize('options', [{}, PLAIN], ids=['band-pass', 'plain'])
def test_output_forms(kind, options):
    image = torch.randn(2, 3, 17, 50)
    for out_type, shape in {'cls_token': (2, 16), 'raw': (2, 9, 16), 'featmap': (2, 16, 2, 4)}.items():
        backbone = build(kind, img_size=(48, 32), **options)
        backbone.out_type = out_type
        (output,) = backbone(image)
        assert output.shape == shape


@ALL
def test_class_token_sees_the_image(kind):
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(build(kind)(image)[0].square().sum(), image)
    assert (gradient.abs().amax(1).unflatten(1, (2, 16)).unflatten(3, (2, 16)).amax((2, 4)) > 0).all()


@ALL
def test_first_token_sees_the_others_where_the_network_is_not_causal(kind):
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    (feature,) = build(kind, **DETECTOR)(image)
    (gradient,) = torch.autograd.grad(feature[..., 0, 0].square().sum(), image)
    assert gradient[..., :16, :16].any()
    assert gradient[..., 16:, :].any() == (kind == 'non-causal vit')


@ALL
def test_padding_tokens_and_orders_are_those_of_the_skeleton(kind):
    image = torch.randn(1, 3, 33, 70)
    backbone = build(kind, token_order='window', pretrain_size=32, rope_scale='auto', delta_scale='auto')
    backbone.out_type = 'featmap'
    assert backbone(image)[0].shape == (1, 16, 3, 5)
    one_window = build(kind, token_order='window', pretrain_size=48, **DETECTOR)
    square = torch.randn(1, 3, 48, 48)
    assert torch.equal(one_window(square)[0], build(kind, **DETECTOR)(square)[0])


@ALL
def test_scales_reach_the_band_pass(kind):
    seen = []
    backbone = build(kind, rope_scale=4.0, delta_scale=2.0)
    band_pass = backbone.layers[1].mixer.band_pass
    band_pass.register_forward_hook(lambda module, inputs, output: seen.extend(output))
    backbone(torch.randn(1, 3, 32, 32))
    torch.testing.assert_close(seen[0], band_pass.log_decay.exp() / 2)
    torch.testing.assert_close(seen[1], band_pass.freq / 4)


# Feed-forward networks


@ALL
def test_block_is_a_mixer_and_a_feed_forward_network_each_behind_a_norm(kind):
    block = build(kind).layers[1].eval()
    x, positions = torch.randn(2, 5, 16), torch.arange(5.0)
    middle = x + block.mixer(block.norm(x), positions, 1.0)
    torch.testing.assert_close(block(x, positions, 1.0), middle + block.ffn(block.ffn_norm(middle)))


@ALL
def test_drop_path_drops_both_branches(kind):
    block = build(kind, drop_path_rate=0.3).layers[1].train()
    assert block.drop_path.drop_prob == 0.3
    block.drop_path.drop_prob = 0.999999
    x = torch.randn(2, 5, 16)
    assert torch.equal(block(x, torch.arange(5.0), 1.0), x)


@pytest.mark.parametrize(('kind', 'activation'), [('vit', torch.nn.functional.gelu), ('retnet', None)])
def test_feed_forward_networks(kind, activation):
    ffn, x = build(kind).layers[0].ffn, torch.randn(3, 16)
    hidden = activation(ffn.up(x)) if activation else torch.nn.functional.silu(x @ ffn.gate.weight.T) * ffn.up(x)
    torch.testing.assert_close(ffn(x), ffn.down(hidden))


# Absolute positions


def test_absolute_positions_are_added_to_image_tokens_of_any_grid():
    backbone = build('vit', img_size=(48, 32), out_type='raw', **PLAIN)
    assert backbone.pos_embed.weight.shape == (1, 16, 3, 2)
    first_inputs = []
    backbone.layers[0].register_forward_pre_hook(lambda module, inputs: first_inputs.append(inputs[0]))
    for size, grid in (((48, 32), (3, 2)), ((32, 64), (2, 4))):
        image = torch.randn(1, 3, *size)
        backbone(image)
        expected = backbone.patch_embed(image)[0] + backbone.pos_embed(grid).flatten(1, 2)
        torch.testing.assert_close(first_inputs[-1][:, :-1], expected)
        torch.testing.assert_close(first_inputs[-1][:, -1:], backbone.cls_token)
    assert torch.equal(backbone.pos_embed((3, 2))[0, 2, 1], backbone.pos_embed.weight[0, :, 2, 1])
    with torch.no_grad():
        backbone.pos_embed.weight[:] = torch.tensor([0.0, 1.0])
    resized = backbone.pos_embed((6, 4))[0, :, :, 0]
    assert (resized.diff(dim=1) > 0.3).all(), 'from 0 on the left to 1 on the right'
    torch.testing.assert_close(resized, resized[:1].expand(6, -1))


def test_absolute_positions_are_frozen_and_graded_with_the_stem():
    backbone = build('vit', frozen_stages=0, **PLAIN)
    assert not backbone.pos_embed.weight.requires_grad
    assert backbone.get_layer_depth('pos_embed.weight') == (0, 4)


# Training


@ALL
@pytest.mark.parametrize('options', [{}, PLAIN], ids=['band-pass', 'plain'])
def test_every_parameter_receives_a_gradient(kind, options):
    backbone = build(kind, img_size=(32, 48), **options)
    backbone(torch.randn(2, 3, 32, 48))[0].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@ALL
def test_checkpointing_keeps_gradients(kind):
    gradients = []
    for with_cp in (False, True):
        backbone = build(kind, with_cp=with_cp, drop_path_rate=0.5).train()
        torch.manual_seed(1)
        backbone(torch.ones(2, 3, 32, 48))[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@ALL
def test_arguments_reach_the_skeleton(kind):
    init_cfg = dict(type='Constant', layer='Linear', val=0.5)
    changes = dict(img_size=(32, 48), in_channels=1, final_norm_eps=0.25, init_cfg=init_cfg)
    network = build(kind, **changes, with_cp=True, frozen_stages=1, **DETECTOR)
    assert network.img_size == (32, 48)
    assert network.norm.eps == 0.25
    assert network.with_cp
    assert not network.layers[0].norm.weight.requires_grad
    assert network.layers[1].norm.weight.requires_grad
    network.init_weights()
    assert (network.layers[1].mixer.out_proj.weight == 0.5).all()
    assert network(torch.zeros(1, 1, 32, 48))[0].shape == (1, 16, 2, 3)


@ALL
def test_defaults_of_the_skeleton(kind):
    network = build(kind)
    assert network.img_size == (224, 224)
    assert network.norm.eps == 1e-6
    assert not network.with_cp
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize('kind', ['vit', 'retnet'])
def test_initial_weights_are_drawn_with_a_deviation_of_002(kind):
    network = build(kind, **PLAIN)
    network.init_weights()
    drawn = [layer.weight for layer in network.layers.modules() if isinstance(layer, torch.nn.Linear)]
    assert len(drawn) >= 8
    for weight in (*drawn, network.pos_embed.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.15)


def test_frequencies_are_per_unit_of_position():
    band_pass = Bandpass(2, 16)
    for positions in ([3.0, 3.5], [1.0, 1.5, 2.0]):
        assert torch.equal(band_pass(torch.tensor(positions), 1.0)[1], 0.5 * band_pass.freq)
    assert torch.equal(band_pass(torch.tensor([4.0]), 1.0)[1], 4 * band_pass.freq)


@ALL
def test_init_weights_sets_all_values(kind):
    backbone = build(kind, **PLAIN) if kind == 'vit' else build(kind)
    for parameter in backbone.parameters():
        parameter.data.fill_(7.0)
    backbone.init_weights()
    assert all((parameter != 7).all() for parameter in backbone.parameters())


@ALL
def test_residual_is_float32_under_autocast_and_float64_stays(kind):
    backbone, image = build(kind, out_type='raw'), torch.randn(1, 3, 32, 32)
    dtypes = []
    for block in backbone.layers:
        block.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    expected = backbone(image)[0]
    with torch.autocast('cpu', torch.bfloat16):
        (tokens,) = backbone(image)
    assert set(dtypes) == {torch.float32}
    assert_parity(tokens, expected, 'autocast', BFLOAT16_TOLERANCE)
    (exact,) = build(kind, out_type='raw').double()(image.double())
    assert exact.dtype == torch.float64
    assert_parity(expected, exact.float(), 'float32')


@ALL
def test_weights_load_into_a_backbone_of_the_same_size_only(kind):
    source, target = build(kind), build(kind)
    for parameter in target.parameters():
        parameter.data.zero_()
    target.load_state_dict(source.state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(target(image)[0], source(image)[0])
    network, arch, _ = TOYS[kind]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "layers\.2\.norm\.weight"'):
        network(arch | {'num_layers': 3}).load_state_dict(source.state_dict())


@ALL
def test_compiles_without_graph_breaks(kind):
    backbone, image = build(kind), torch.randn(2, 3, 40, 64)
    compiled = torch.compile(backbone, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(image)[0], backbone(image)[0])
    compiled(image)[0].square().sum().backward()
    assert backbone.layers[0].mixer.band_pass.log_decay.grad.any()


@ALL
def test_exports_with_a_dynamic_batch(kind):
    backbone, image = build(kind).eval(), torch.randn(2, 3, 40, 64)
    batch = torch.export.Dim('batch', min=1)
    exported = torch.export.export(backbone, (image,), dynamic_shapes=({0: batch},)).module()
    more = torch.randn(5, 3, 40, 64)
    torch.testing.assert_close(exported(more)[0], backbone(more)[0])


# Bad input


@pytest.mark.parametrize(('network', 'arch'), [(DefocusViT, VIT), (DefocusRetNet, RETNET)])
def test_wrong_arguments_are_refused(network, arch):
    with pytest.raises(ValueError, match=r"arch must be one of \['nano', .*'base'\] or a dict, got 'huge'"):
        network('huge')
    with pytest.raises(ValueError, match=r"missing \['num_heads'\], unknown \['heads'\]"):
        network({key: value for key, value in arch.items() if key != 'num_heads'} | {'heads': 2})
    with pytest.raises(ValueError, match=r'embed_dims must be a multiple of num_heads \(3\), got 16'):
        network(arch | {'num_heads': 3})
    with pytest.raises(TypeError, match=rf"{network.__name__} has no .* 'bandpass' \(did you mean 'band_pass'\?\)"):
        network(arch, bandpass=True)
