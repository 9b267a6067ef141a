"""The check of attention maps against the layer that they explain."""

import pytest
import torch
from toy_networks import build, images_of

from mmdefocus.analysis.attention_maps import attention_blocks, attention_maps
from mmdefocus.analysis.maps import MixerCall, open_maps
from mmdefocus.analysis.maps.attention import AttentionMaps
from mmdefocus.analysis.maps.mamba import MambaMaps
from mmdefocus.analysis.maps.retention import RetentionMaps
from mmdefocus.models.mixers import AttentionMixer, MambaMixer, RetentionMixer
from mmdefocus.models.positions import token_positions

MAPS = {'mamba': MambaMaps, 'vit': AttentionMaps, 'retnet': RetentionMaps}


@pytest.mark.parametrize('kind', MAPS)
@pytest.mark.parametrize('reduce', ['none', 'group', 'mean'])
def test_a_wrong_entry_is_an_error(kind, reduce, monkeypatch):
    compute_rows = MAPS[kind].compute_rows

    def wrong(self, start, stop):
        rows = compute_rows(self, start, stop).clone()
        if self.call.layer == 1 and start <= 9 < stop:
            rows[1, 0, 9 - start, 4] += 1e-3 * self.respond(torch.ones_like(self.output())).abs().max()
        return rows

    monkeypatch.setattr(MAPS[kind], 'compute_rows', wrong)
    model, images = build(kind), images_of()
    attention_maps(model, images, [0], reduce)
    attention_maps(model, images, [1], reduce, queries=[8, 10])
    with pytest.raises(RuntimeError, match=r'layer 1 \(layers\.1\.mixer\): their rows do not reproduce'):
        attention_maps(model, images, [1], reduce)
    with pytest.raises(RuntimeError, match=r'largest difference is .* expected at most 1e-10 \(torch\.float64\)'):
        attention_maps(model, images, [1], reduce, queries=[9])
    with pytest.raises(RuntimeError, match=r'their rows do not reproduce'):
        list(attention_blocks(model, images, [1], reduce))


@pytest.mark.parametrize('kind', MAPS)
def test_a_mixer_that_computes_something_else_is_an_error(kind):
    model = build(kind)
    mixer = model.layers[0].mixer
    mixer.out_proj.register_forward_pre_hook(lambda _, args: args[0].roll(1, dims=1))
    with pytest.raises(RuntimeError, match=r'layer 0 \(layers\.0\.mixer\): their values do not reproduce the layer'):
        attention_maps(model, images_of())


@pytest.mark.parametrize(('kind', 'name'), [('mamba', 'A_log'), ('vit', 'qkv.weight'), ('retnet', 'k_proj.weight')])
def test_maps_that_are_not_finite_are_an_error(kind, name):
    model = build(kind)
    model.layers[1].mixer.get_parameter(name).data.view(-1)[0] = torch.nan
    with pytest.raises(RuntimeError, match=r'layer 1 .* largest difference is nan.*output of the network is finite'):
        attention_maps(model, images_of())


@pytest.mark.parametrize('reduce', ['none', 'group', 'mean'])
def test_a_layer_whose_output_is_zero_has_maps(reduce):
    model = build('mamba')
    model.layers[0].mixer.x_proj.weight.data.zero_()
    model.layers[0].mixer.D.data.zero_()
    assert (attention_maps(model, images_of(), [0], reduce)[0] == 0).all()


@pytest.mark.parametrize('length', [1, 2, 3, 17, 65])
@pytest.mark.parametrize(
    'mixer',
    [
        MambaMixer(4, 6, 2, 3, 2, 3),
        AttentionMixer(4, 2),
        AttentionMixer(4, 2, causal=False),
        RetentionMixer(4, 2, 6),
    ],
    ids=['mamba', 'attention', 'non-causal attention', 'retention'],
)
@torch.no_grad()
def test_sequences_of_any_length(mixer, length):
    torch.manual_seed(length)
    mixer.double()
    x, outputs = torch.randn(2, length, 4, dtype=torch.float64), []
    positions = token_positions(length, 2.0, like=x)
    handle = mixer.out_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    mixer(x, positions, 1.5)
    handle.remove()
    maps = open_maps(MixerCall(0, 'mixer', mixer, x, positions, 1.5, outputs[0], None), 'group', ())
    assert torch.cat([rows for _, rows in maps.blocks()], 2).shape == (2, 2, length, length)
