"""Tests of the data of the page: values, budget for heads, and input that is refused."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from report_examples import MEANINGS, example_reports, invented_network, network_without_attention, raster_layout

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.report.packing import pack_reports
from mmdefocus.analysis.report.quantisation import PackedArray, unpack_array

PLENTY = 10**8


def restore(entry: dict) -> np.ndarray:
    scales = np.frombuffer(base64.b64decode(entry['scales']), '<f4')
    return unpack_array(
        PackedArray(entry['bits'], (entry['rows'], entry['columns']), scales, base64.b64decode(entry['codes']))
    )


def test_values_round_trip() -> None:
    reports = example_reports()
    data = json.loads(json.dumps(pack_reports(reports, MEANINGS, PLENTY), allow_nan=False))
    assert data['headStep'] == 1
    for report, entry in zip(reports[:2], data['reports'], strict=False):
        for layer, packed in zip(report.layers, entry['layers'], strict=True):
            mean = layer.attention.abs().mean(0).numpy()
            np.testing.assert_allclose(restore(packed['attention']['magnitude']), mean, atol=4e-5 * mean.max())
            for number, head in packed['attention']['heads'].items():
                exact = layer.attention[int(number)].numpy()
                np.testing.assert_allclose(restore(head), exact, atol=0.008 * np.abs(exact).max())
                assert (restore(head)[exact == 0] == 0).all()
            np.testing.assert_allclose(restore(packed['rollout']), layer.rollout, atol=4e-5)
            np.testing.assert_allclose(
                restore(packed['classGradient'])[0], layer.class_gradient, atol=4e-5 * float(layer.class_gradient.max())
            )
            rows, columns = packed['fieldGrid']
            fields = restore(packed['fields']).reshape(-1, rows, columns)
            np.testing.assert_allclose(fields, layer.receptive_fields, atol=4e-5)
    signed = [packed['attention']['signed'] is not None for packed in data['reports'][0]['layers']]
    assert signed == [True] * 4
    assert data['reports'][1]['layers'][0]['attention']['signed'] is None  # softmax: nothing is negative


def test_scores_are_means_over_the_heads_that_have_them() -> None:
    report = example_reports()[1]
    report.scores = {'entropy': [torch.tensor([1.0, 3.0]), torch.tensor([5.0, torch.nan]), torch.tensor([torch.nan])]}
    packed = pack_reports([report], {}, PLENTY)['reports'][0]['scores']
    assert packed == {'entropy': {'mean': [2, 5, None], 'std': [1, 0, None]}}


def test_image_is_embedded_once_for_all_networks() -> None:
    reports = example_reports()
    data = pack_reports([reports[2], network_without_attention('other.png')], {}, PLENTY)
    assert len(data['pictures']) == 1
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data['pictures'][0]))))
    assert np.abs(decoded.astype(int) - reports[2].image).mean() < 3


def test_matrix_is_packed_only_where_the_rows_do_not_give_it() -> None:
    layout = raster_layout(4, 4, causal=True)
    for every_query in (True, False):
        report = invented_network('net', layout, 'a.png', [0], 1, all_queries=every_query)
        packed = pack_reports([report], {}, PLENTY)['reports'][0]['layers'][0]
        assert (packed['matrix'] is None) == every_query


def test_heads_are_thinned_out_evenly_to_the_limit() -> None:
    layout = raster_layout(6, 6, causal=True)
    reports = [invented_network(name, layout, 'a.png', [0, 1], 2, heads=12, signed=True) for name in ('a', 'b')]

    def kept(limit: int) -> tuple[int, list[list[str]], int]:
        data = pack_reports(reports, {}, limit)
        layers = [layer for report in data['reports'] for layer in report['layers']]
        size = sum(
            len(entry['codes']) + len(entry['scales'])
            for layer in layers
            for entry in [
                *layer['attention']['heads'].values(),
                *(layer['attention'][name] for name in ('magnitude', 'signed')),
                *(layer[name] for name in ('rollout', 'gradient', 'classGradient', 'fields')),
            ]
        )
        return data['headStep'], [list(layer['attention']['heads']) for layer in layers], size

    _, _, everything = kept(PLENTY)
    _, _, means = kept(0)
    limit = (everything + means) // 2
    step, heads, size = kept(limit)
    assert 2 <= step <= 3
    assert heads == [list(range(0, 12, step))] * 4
    assert size <= limit + 500  # 500: base64 pads every array to four characters
    assert kept(0)[:2] == (0, [[]] * 4)


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('field', ['attention', 'rollout', 'gradient', 'class_gradient', 'receptive_fields'])
def test_values_that_are_not_finite_are_refused(field: str, value: float) -> None:
    reports = example_reports()
    getattr(reports[0].layers[2], field)[..., 3] = value
    name = {'class_gradient': 'class gradient', 'receptive_fields': 'receptive fields'}.get(field, field)
    with pytest.raises(AnalysisError, match=rf"the {name} of layer 2 of 'De-focus Mamba, windows' has NaN or inf"):
        pack_reports(reports, {}, PLENTY)


def test_infinite_scores_are_refused() -> None:
    reports = example_reports()
    reports[0].scores['entropy'][1] = torch.tensor([torch.inf])
    with pytest.raises(AnalysisError, match=r"the score entropy of 'De-focus Mamba, windows' is infinite"):
        pack_reports(reports, {}, PLENTY)


def test_maps_that_do_not_fit_the_tokens_are_refused() -> None:
    reports = example_reports()
    reports[0].layers[1].attention = reports[0].layers[1].attention[:, :-1]
    with pytest.raises(AnalysisError, match=r'expected the shape \(55, 55\) .* attention of layer 1 .* got \(54, 55\)'):
        pack_reports(reports, {}, PLENTY)
