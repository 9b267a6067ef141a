"""Reports on networks and images, compared with the functions of the analysis."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmdefocus.analysis.attention_maps import attention_maps
from mmdefocus.analysis.errors import AnalysisError, NoAttention
from mmdefocus.analysis.gradient_maps import gradient_maps
from mmdefocus.analysis.receptive_field import receptive_field
from mmdefocus.analysis.rollout import rollout
from mmdefocus.analysis.scores import scores
from mmdefocus.analysis.token_layout import OUTSIDE, TokenLayout, grid_queries
from mmdefocus.apis import layer_attention, over_focus_report
from mmdefocus.apis.analysis_models import load_network
from mmdefocus.apis.analysis_words import parse_model
from mmdefocus.apis.over_focus_report import (
    STEPS,
    ReportOptions,
    check_network,
    paired_queries,
    report_network,
)

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
OPTIONS = ReportOptions()


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('images') / 'noise.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture(scope='module')
def vit(image):
    """A De-focus ViT with random weights, and an image for it."""
    network = load_network(parse_model(str(CONFIGS / 'defocus_vit_nano_digits.py')), random_weights=True)
    return network, network.prepare(image)


@pytest.fixture(scope='module')
def mamba(image):
    """A De-focus Mamba with random weights, and an image for it."""
    network = load_network(parse_model(str(CONFIGS / 'defocus_mamba_nano_digits.py')), random_weights=True)
    return network, network.prepare(image)


def test_a_report_holds_what_the_functions_of_the_analysis_return(vit):
    network, image = vit
    steps = []
    (report,), table = report_network(network, [image], ReportOptions(layers=[-1, 1]), steps.append)
    assert steps == list(STEPS)
    assert [layer.index for layer in report.layers] == [1, 3]
    assert (report.label, report.image_name, report.layer_count, report.notes) == (network.label, 'noise.png', 4, [])
    maps = attention_maps(network.network, image.inputs)
    rolled = rollout(maps)
    classes = gradient_maps(network.network, image.inputs, of='class')
    for layer in report.layers:
        assert layer.name == f'backbone.layers.{layer.index}'
        assert layer.queries == list(range(65))
        torch.testing.assert_close(layer.attention, maps[layer.index][0])
        torch.testing.assert_close(layer.matrix, maps[layer.index][0].abs().mean(0))
        torch.testing.assert_close(layer.rollout, rolled[layer.index][0])
        queries = layer.gradient_queries
        assert queries[0] == layer.layout.class_token == 64
        assert len(queries) == 10
        gradients = gradient_maps(network.network, image.inputs, [layer.index], queries)[layer.index]
        torch.testing.assert_close(layer.gradient, gradients[0])
        torch.testing.assert_close(layer.class_gradient, classes[layer.index][0, 0])
        fields = receptive_field(network.network, image.inputs, [layer.index], queries)[layer.index].fields
        torch.testing.assert_close(layer.receptive_fields, fields.float())
    expected = scores(network.network, image.inputs, [1, 3])
    assert report.scores.keys() == table.values.keys() == expected.values.keys()
    torch.testing.assert_close(report.scores['entropy'], [values[0] for values in expected.values['entropy']])
    probabilities = network.network.run(image.inputs)[0].softmax(0)
    assert report.predicted == f'{int(probabilities.argmax())} ({float(probabilities.max()):.2f})'
    torch.testing.assert_close(torch.from_numpy(report.image), torch.from_numpy(image.picture))


def test_the_predicted_class_has_its_name(vit):
    network, image = vit
    named = replace(network, classes=[f'digit {number}' for number in range(10)])
    (report,), _ = report_network(named, [image], ReportOptions(layers=[0]))
    assert report.predicted.startswith('digit ')


def test_the_table_holds_all_images(vit, image):
    network, first = vit
    second = replace(first, name='other', inputs=first.inputs.flip(-1))
    reports, table = report_network(network, [first, second], ReportOptions(layers=[2]))
    assert [report.image_name for report in reports] == ['noise.png', 'other']
    expected = scores(network.network, torch.cat([first.inputs, second.inputs]), [2])
    for name, values in expected.values.items():
        torch.testing.assert_close(table.values[name], values, equal_nan=True)
    assert torch.equal(table.sinks[0], expected.sinks[0])
    torch.testing.assert_close(reports[1].scores['gini'][0], expected.values['gini'][0][1])


def test_long_sequences_keep_some_queries_and_a_reduced_matrix(mamba, monkeypatch):
    monkeypatch.setattr(over_focus_report, 'MOST_QUERIES', 64)
    monkeypatch.setattr(over_focus_report, 'GRID_QUERIES', 4)
    monkeypatch.setattr(layer_attention, 'MATRIX_SIDE', 13)  # 65 tokens are 13 areas of 5
    monkeypatch.setattr(layer_attention, 'MAX_TOKENS', 64)
    monkeypatch.setattr(over_focus_report, 'MAX_TOKENS', 64)
    network, image = mamba
    (report,), _ = report_network(network, [image], ReportOptions(layers=[2]))
    (layer,) = report.layers
    assert len(layer.queries) == 17
    assert layer.layout.class_token in layer.queries
    places = {divmod(int(layer.layout.cells[query]), 8) for query in layer.queries if query != 64}
    assert places == {(row, column) for row in (1, 3, 5, 7) for column in (1, 3, 5, 7)}
    maps = attention_maps(network.network, image.inputs, [2])[2][0]
    torch.testing.assert_close(layer.attention, maps[:, layer.queries])
    expected = maps.abs().mean(0).unflatten(0, (13, 5)).unflatten(2, (13, 5)).mean((1, 3))
    torch.testing.assert_close(layer.matrix, expected)
    assert layer.rollout is None
    assert report.notes == ['no rollout of more than 64 tokens']


def test_uneven_areas_are_means_too(vit, monkeypatch):
    monkeypatch.setattr(layer_attention, 'MATRIX_SIDE', 20)
    network, image = vit
    (report,), _ = report_network(network, [image], ReportOptions(layers=[0]))
    areas = torch.arange(65) * 20 // 65
    whole = attention_maps(network.network, image.inputs, [0])[0][0].abs().mean(0)
    expected = [[whole[areas == row][:, areas == column].mean() for column in range(20)] for row in range(20)]
    torch.testing.assert_close(report.layers[0].matrix, torch.tensor(expected))


def test_neighbouring_heads_are_averaged_where_they_are_too_many(mamba, monkeypatch):
    network, image = mamba
    whole = attention_maps(network.network, image.inputs, [1])[1][0]
    assert len(whole) == 3
    monkeypatch.setattr(layer_attention, 'MOST_VALUES', 2 * 65 * 65)  # 2 does not divide 3
    (report,), _ = report_network(network, [image], ReportOptions(layers=[1, 2]))
    torch.testing.assert_close(report.layers[0].attention, whole.mean(0, keepdim=True))
    torch.testing.assert_close(report.layers[0].matrix, whole.abs().mean(0))
    assert report.notes == ['the 3 heads or groups of a layer are averaged to 1, to save memory']


def test_deep_networks_have_fewer_queries_of_gradients(vit, monkeypatch):
    monkeypatch.setattr(over_focus_report, 'MOST_PASSES', 99)
    network, image = vit
    for layers, count in (([0, 1, 2], 10), (None, 2)):
        (report,), _ = report_network(network, [image], ReportOptions(layers))
        assert [len(layer.gradient_queries) for layer in report.layers] == [count] * len(report.layers)
    assert report.layers[0].gradient_queries == [64, 4 * 8 + 4]


def test_options_of_the_maps(mamba):
    network, image = mamba
    (report,), _ = report_network(network, [image], ReportOptions([1], 'mean', ('conv', 'gate')))
    expected = attention_maps(network.network, image.inputs, [1], 'mean', ('conv', 'gate'))[1][0]
    torch.testing.assert_close(report.layers[0].attention, expected)


def test_a_network_without_attention_has_all_the_rest(image):
    network = load_network(parse_model('timm:test_resnet'), random_weights=True)
    prepared = network.prepare(image)
    (report,), table = report_network(network, [prepared], OPTIONS)
    for layer in report.layers:
        assert layer.attention is None
        assert f'layer {layer.index} ' in layer.attention_note
        assert layer.gradient.shape == (9, layer.layout.length)
        assert layer.class_gradient.shape == (layer.layout.length,)
        assert layer.receptive_fields.shape == (9, *report.layers[0].layout.image_grid)
        assert max(layer.gradient_queries) < layer.layout.length
    assert report.predicted
    assert all(value.isnan().all() for value in table.values['entropy'])
    assert all(value.isfinite().all() for value in table.values['gradient_evenness'])
    # The maxima of gradients of a convolution lie at their query, also where a layer reduces the grid.
    reduced = next(layer for layer in report.layers[1:] if layer.layout.grid != report.layers[0].layout.grid)
    before = report.layers[reduced.index - 1]
    rows, columns = before.layout.grid
    for query, gradient in zip(before.gradient_queries, before.gradient, strict=True):
        top = int(gradient.argmax())
        assert abs(top // columns - query // columns) <= rows / 4
        assert abs(top % columns - query % columns) <= columns / 4


def test_a_layer_without_attention_is_left_out(vit, monkeypatch):
    network, image = vit
    blocks = layer_attention.attention_blocks

    def without_layer_1(network, images, layers, *options):
        yield from blocks(network, images, [layer for layer in layers if layer < 1], *options)
        if 1 in layers:
            raise NoAttention(1, 'it is a toy')
        yield from blocks(network, images, [layer for layer in layers if layer > 1], *options)

    monkeypatch.setattr(layer_attention, 'attention_blocks', without_layer_1)
    (report,), _ = report_network(network, [image], OPTIONS)
    assert [layer.attention is None for layer in report.layers] == [False, True, False, False]
    assert 'it is a toy' in report.layers[1].attention_note
    assert [layer.rollout is None for layer in report.layers] == [False, True, True, True]
    assert report.notes == ['no rollout from layer 1 on: it has no attention']
    assert all(layer.gradient is not None for layer in report.layers)


def test_a_detector_has_no_class_gradients(image):
    config = CONFIGS.parent / 'dino' / 'defocus_vit_nano_digits.py'
    network = load_network(parse_model(str(config)), random_weights=True, size=64)
    (report,), _ = report_network(network, [network.prepare(image)], ReportOptions(layers=[0]))
    assert report.layers[0].class_gradient is None
    assert report.predicted == ''
    assert any(note.startswith("no class gradient: of='class' needs class logits") for note in report.notes)
    assert report.layers[0].attention is not None


def test_queries_are_paired_by_their_place():
    cells = torch.arange(64)
    entering = TokenLayout((8, 8), torch.cat((torch.tensor([OUTSIDE]), cells)), (8, 8), 0, causal=False)
    leaving = TokenLayout((4, 4), torch.cat((cells[:16], torch.tensor([OUTSIDE]))), (4, 4), 16, causal=False)
    pairs = paired_queries(leaving, entering, 3)
    assert pairs[16] == 0  # the class tokens
    assert pairs[2 * 4 + 0] == 1 + 5 * 8 + 1  # row 2 and column 0 of four are rows 4, 5 and columns 0, 1 of eight
    assert paired_queries(leaving, leaving, 3) == {query: query for query in pairs}
    without = TokenLayout((8, 8), cells, (8, 8), None, causal=False)
    assert 16 not in paired_queries(leaving, without, 3)


def test_queries_of_small_and_padded_grids():
    layout = TokenLayout((4, 4), torch.arange(16).flip(0), (2, 3), None, causal=True)
    assert sorted(int(layout.cells[query]) for query in grid_queries(layout, 14)) == [0, 1, 2, 4, 5, 6]


def test_images_of_a_size_that_a_network_does_not_take(image):
    network = load_network(parse_model('timm:test_vit'), random_weights=True)
    prepared = network.prepare(image)
    check_network(network, prepared, None, ())
    wrong = replace(prepared, inputs=prepared.inputs[..., :8])
    with pytest.raises(AnalysisError, match=r"'test_vit' cannot take an image of 160 x 8 pixels \(.*another --size"):
        check_network(network, wrong, None, ())


def test_parts_that_a_network_does_not_have(vit, mamba):
    check_network(*mamba, None, ('conv', 'gate'))
    with pytest.raises(AnalysisError, match=r'has no attention that can include conv: .*omit --include'):
        check_network(*vit, None, ('conv',))


def test_nothing_is_left_behind(vit):
    network, image = vit
    report_network(network, [image], ReportOptions(layers=[1]))
    model = network.network.model
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(module.training for module in model.modules())
