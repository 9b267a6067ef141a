"""Scores of networks, and their table."""

import json
import math

import pytest
import timm
import torch
from mmpretrain.registry import MODELS

from mmdefocus.analysis.attention_maps import attention_maps
from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.networks import open_network
from mmdefocus.analysis.scores import SCORES, ScoreTable, map_scores, scores
from mmdefocus.analysis.scores.head_values import record_values
from mmdefocus.models.token_order import sequence_to_image

FAMILIES = ('DefocusMamba', 'DefocusViT', 'DefocusRetNet')
ATTENTION_SCORES = set(SCORES) - {'norm_outliers', 'gradient_evenness'}


def classifier(family, **changes):
    torch.manual_seed(0)
    backbone = dict(type=family, arch='nano', img_size=16, patch_size=4, out_type='raw', **changes)
    head = dict(type='DefocusClsHead', num_classes=10, in_channels=96)
    return MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head))


def images(count=2, side=16):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('family', FAMILIES)
def test_every_score_of_every_layer_head_and_image(family):
    table = scores(classifier(family), images(3), layers=[0, -1])
    assert (table.network, table.layers, table.notes) == (family, [0, 3], [])
    assert table.layer_names == ['backbone.layers.0', 'backbone.layers.3']
    assert table.values.keys() == SCORES.keys()
    for name, values in table.values.items():
        heads = 3 if name in ATTENTION_SCORES else 1
        for value in values:
            assert value.shape == (3, heads), name
            assert value.dtype == torch.float32
            assert ((value >= SCORES[name].low - 1e-5) & (value <= SCORES[name].high + 1e-5)).all(), name
    assert [sinks.shape for sinks in table.sinks] == [(3, 3)] * 2


@pytest.mark.parametrize('family', FAMILIES)
def test_scores_of_attention_are_those_of_its_maps(family):
    model = classifier(family)
    with torch.no_grad(), record_values(network := open_network(model), [1]) as heads:
        network.run(images())
    expected = map_scores(attention_maps(model, images(), layers=[1])[1], True, heads[1].values)
    table = scores(model, images(), layers=[1])
    for name, value in expected.items():
        torch.testing.assert_close(table.values[name][0], value, rtol=1e-4, atol=1e-5)


def test_values_are_those_that_the_mixers_mix():
    model = classifier('DefocusViT').eval()
    mixer = model.backbone.layers[1].mixer
    mixed = []
    handle = mixer.out_proj.register_forward_pre_hook(lambda _, args: mixed.append(args[0]))
    with torch.no_grad(), record_values(network := open_network(model), [1]) as heads:
        network.run(images())
    handle.remove()
    maps = attention_maps(model, images(), layers=[1])[1]
    torch.testing.assert_close((maps @ heads[1].values).transpose(1, 2).flatten(2), mixed[0], rtol=1e-4, atol=1e-6)


def test_batches_of_images_change_nothing():
    model = classifier('DefocusViT')
    one, two = (scores(model, images(3), layers=[1], batch_size=size) for size in (1, 2))
    for name in SCORES:
        torch.testing.assert_close(one.values[name], two.values[name], rtol=1e-4, atol=1e-5)


def test_class_token_and_padding_are_no_image_tokens():
    # 5 x 5 patches of the image in 8 x 8 of the sequence, window by window, and the class token.
    model = classifier('DefocusMamba', token_order='window', pretrain_size=16)
    norms = torch.arange(65.0)
    norms[64] = 1e6

    def replace(module, args, output):
        return torch.nn.functional.normalize(output, dim=-1) * norms[:, None]

    model.backbone.layers[3].register_forward_hook(replace)
    (layer,) = scores(model, images(1, 20), layers=[3]).values['norm_outliers']
    assert layer.item() == 0
    of_image = sequence_to_image(norms[None, :64, None], (8, 8), 4)[0, :5, :5, 0]
    padding = sequence_to_image(norms[None, :64, None], (8, 8), 4)[0, 5:, 5:, 0]
    norms[[int(padding[0, 0]), int(of_image[4, 4])]] = 1e6
    (layer,) = scores(model, images(1, 20), layers=[3]).values['norm_outliers']
    assert layer.item() == pytest.approx(1 / 25)


def test_a_backbone_has_no_gradient_of_a_class():
    table = scores(classifier('DefocusViT').backbone, images(1), layers=[0, 1])
    assert all(value.isnan().all() for value in table.values['gradient_evenness'])
    assert all(value.isfinite().all() for value in table.values['entropy'])
    assert [note.split(':')[0] for note in table.notes] == ['layers 0, 1']
    assert 'class logits' in table.notes[0]


def test_a_logit_that_depends_on_nothing_is_noted():
    model = classifier('DefocusViT')
    model.head.fc.weight.data.zero_()
    table = scores(model, images(1), layers=[0])
    assert table.values['gradient_evenness'][0].isnan().all()
    assert 'layer 0: no gradient evenness: the class logit depends on no token, or there is a single one' in table.notes


def test_a_network_without_attention_has_the_other_scores():
    torch.manual_seed(0)
    table = scores(timm.create_model('resnet18'), images(1, 64), layers=[0, 5])
    assert all(value.isnan().all() for name in ATTENTION_SCORES for value in table.values[name])
    assert all(value.isfinite().all() for value in table.values['norm_outliers'] + table.values['gradient_evenness'])
    assert table.sinks == [None, None]
    assert [note.split(': ')[:2] for note in table.notes] == [['layer 0', 'no attention'], ['layer 5', 'no attention']]


def test_a_transformer_of_timm_has_kinds_of_sinks():
    torch.manual_seed(0)
    model = timm.create_model('deit_tiny_patch16_224', img_size=64, depth=2, num_classes=5)
    table = scores(model, images(1, 64))
    assert table.notes == []
    assert all(value.shape == (1, 3) and value.isfinite().all() for value in table.values['output_rank'])


def test_values_that_do_not_give_the_outputs_are_not_used():
    torch.manual_seed(0)
    model = timm.create_model('deit_tiny_patch16_224', img_size=64, depth=1, num_classes=5)
    model.blocks[0].attn.norm = torch.nn.LayerNorm(192)  # between map times values and projection
    table = scores(model, images(1, 64))
    assert table.values['output_rank'][0].isnan().all()
    assert table.values['entropy'][0].isfinite().all()
    assert table.notes == ['layer 0: no kind of sinks: the values of the heads are not known']


def test_nothing_is_left_behind():
    model = classifier('DefocusRetNet').train()
    model.backbone.layers[2].eval()
    scores(model, images(1), layers=[0])
    modes = [module.training for module in model.backbone.layers]
    assert modes == [True, True, False, True]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_errors():
    model = classifier('DefocusViT')
    with pytest.raises(AnalysisError, match=r'has the layers 0 to 3'):
        scores(model, images(), layers=[4])
    with pytest.raises(AnalysisError, match=r'expected images and a batch_size of at least 1, got 2 and 0'):
        scores(model, images(), batch_size=0)
    with pytest.raises(AnalysisError, match=r'got 0 and 1'):
        scores(model, images(0))


# The table


def toy_table():
    entropy = [torch.tensor([[0.1, 0.3], [0.5, 0.9]]), torch.tensor([[0.2, math.nan], [0.4, math.nan]])]
    outliers = [torch.full((2, 1), math.nan)] * 2
    values = {'entropy': entropy, 'norm_outliers': outliers}
    return ScoreTable('Toy', [3, 7], ['a', 'b'], values, [torch.tensor([[0, 1], [2, 3]]), None], ['layer 7: why'])


def test_mean_and_deviation_are_over_images_of_the_mean_over_heads():
    mean, std = toy_table().mean_std('entropy', 3)
    assert (mean, std) == pytest.approx((0.45, 0.25 * math.sqrt(2)))
    assert toy_table().mean_std('entropy', 7) == pytest.approx((0.3, 0.1 * math.sqrt(2)))
    assert all(map(math.isnan, toy_table().mean_std('norm_outliers', 3)))
    with pytest.raises(AnalysisError, match=r'layers \[3, 7\] and of the scores entropy, norm_outliers, got layer 4'):
        toy_table().mean_std('entropy', 4)


def test_one_image_has_no_deviation():
    table = toy_table()
    table.values = {'entropy': [value[:1] for value in table.values['entropy']]}
    assert table.mean_std('entropy', 3) == pytest.approx((0.2, math.nan), nan_ok=True)
    assert '| 3 | 0.200 |' in table.to_markdown()


def test_markdown():
    assert toy_table().to_markdown() == (
        '| layer | Entropy |\n| --: | --: |\n| 3 | 0.450 ± 0.354 |\n| 7 | 0.300 ± 0.141 |\n\nlayer 7: why\n'
    )


def test_json_is_complete_and_standard():
    content = json.loads(toy_table().to_json(), parse_constant=pytest.fail)
    assert (content['version'], content['network'], content['layers']) == (1, 'Toy', [3, 7])
    assert content['sinks'] == [[[0, 1], [2, 3]], None]
    assert content['notes'] == ['layer 7: why']
    entropy = content['scores']['entropy']
    assert entropy['formula'] == SCORES['entropy'].formula
    assert entropy['layers'][1]['values'] == [[pytest.approx(0.2), None], [pytest.approx(0.4), None]]
    first = entropy['layers'][0]
    assert first['mean'] == pytest.approx([0.3, 0.6])
    assert first['std'] == pytest.approx([0.2 * math.sqrt(2), 0.3 * math.sqrt(2)])
    assert first['all_heads'] == {'mean': pytest.approx(0.45), 'std': pytest.approx(0.25 * math.sqrt(2))}
    assert content['scores']['norm_outliers']['layers'][0]['all_heads'] == {'mean': None, 'std': None}
