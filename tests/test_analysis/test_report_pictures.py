"""Tests of the pictures of a report: which exist, their names, what they show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm
from PIL import Image
from report_examples import example_reports, invented_network, network_without_attention, raster_layout, window_layout

from mmdefocus.analysis.report import write_pictures
from mmdefocus.analysis.report.palettes import magnitudes, signed, table
from mmdefocus.analysis.report.picture_maps import KINDS, CellMap
from mmdefocus.analysis.report.pictures import CENTRE, _render, _scale, unique_stems
from mmdefocus.analysis.report.selection import CLASS_TOKEN

BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    reports = example_reports('a flower/Blüte.png')
    for report in reports:
        report.layers = report.layers[::2]
    return write_pictures(reports, tmp_path_factory.mktemp('pictures') / 'new')


def test_every_kind_has_its_file(pictures: list[Path]) -> None:
    by_query = ('attention-row', 'signed-attention-row', 'rollout', 'gradient', 'receptive-field')
    expected = {'attention-matrix', 'class-gradient', 'scores'}
    expected |= {f'{kind}_{query}' for kind in by_query for query in ('centre', 'class-token')}
    assert {path.name for path in pictures} == {f'a-flower-Blute_{name}.png' for name in expected}
    assert {path.name for path in pictures} == {path.name for path in pictures[0].parent.iterdir()}


def test_pictures_are_small_and_not_empty(pictures: list[Path]) -> None:
    for path in pictures:
        assert path.stat().st_size < 500_000
        picture = Image.open(path).convert('RGB')
        pixels = np.asarray(picture)
        assert 300 < pixels.shape[0] < 900
        assert 500 < pixels.shape[1] < 1200
        assert len(picture.getcolors(pixels.size)) > 50


def test_kinds_that_no_network_has_are_left_out(tmp_path: Path) -> None:
    report = network_without_attention('a.png')
    report.scores = {}
    names = {path.name for path in write_pictures([report], tmp_path)}
    assert names == {'a_class-gradient.png', 'a_gradient_centre.png'}


def test_labels_and_names_are_no_formulas(tmp_path: Path) -> None:
    report = invented_network('$\\frac{', raster_layout(3, 3, causal=True), '$x_^{', [0], 1)
    report.layers[0].attention = None
    report.layers[0].attention_note = '$y_^{'
    report.scores = {'$z_^{': [torch.zeros(2)]}
    assert write_pictures([report], tmp_path, [CENTRE])


def test_file_names_are_safe_and_differ() -> None:
    names = ['a b', 'a/b', 'A?B', '..', '猫', '../x', 'a-b-2', 'x' * 300]
    stems = unique_stems(names)
    assert stems == ['a-b', 'a-b-2', 'A-B-3', 'image', 'image-2', 'x', 'a-b-2-2', 'x' * 80]
    assert len({stem.lower() for stem in stems}) == len(names)


def test_row_lies_where_its_tokens_lie() -> None:
    report = invented_network('net', window_layout(5, 7, 3), 'a.png', [0], 1)
    layer = report.layers[0]
    cells = BY_NAME['attention row'].make(layer, (0.5, 0.5))
    assert isinstance(cells, CellMap)
    query = layer.layout.token_at(2, 3)
    row = layer.attention[:, query].abs().mean(0)
    for y, x in ((0, 0), (2, 3), (1, 6), (4, 6)):
        token = layer.layout.token_at(y, x)
        assert cells.values[y, x] == pytest.approx(float(row[token] / row.sum()))
        assert cells.visible[y, x] == (token <= query)
    assert cells.query == (2, 3)
    everything = BY_NAME['attention row'].make(layer, CLASS_TOKEN)
    assert everything.visible.all()
    assert float(everything.values.sum()) + everything.outside == pytest.approx(1)
    assert everything.query is None


def test_matrix_has_no_padding() -> None:
    layer = invented_network('net', window_layout(5, 7, 3), 'a.png', [0], 1).layers[0]
    cells = BY_NAME['attention matrix'].make(layer, CENTRE)
    assert cells.values.shape == (36, 36)  # 5 · 7 tokens and the class token
    assert (cells.visible == torch.ones(36, 36).tril().bool()).all()
    assert (cells.values[~cells.visible] == 0).all()


def test_layers_without_a_map_say_why() -> None:
    layer = network_without_attention('a.png').layers[0]
    assert BY_NAME['attention row'].make(layer, CENTRE) == 'no attention: the layer is a convolution'
    assert BY_NAME['attention matrix'].make(layer, CENTRE) == 'no attention: the layer is a convolution'
    assert BY_NAME['rollout'].make(layer, CENTRE) == 'no attention: the layer is a convolution'
    assert BY_NAME['gradient'].make(layer, CLASS_TOKEN) == 'no class token enters this layer'
    assert BY_NAME['receptive field'].make(layer, CENTRE) == 'not computed'


def test_hidden_cells_are_hatched_and_visible_zeros_are_not() -> None:
    visible = torch.tensor([[True, True], [False, True]])
    cells = CellMap(torch.tensor([[1.0, 0.0], [0.0, 0.1]]), visible)
    picture = _render(cells, LogNorm(1e-4, 1), magnitudes(), None)
    half = picture.shape[0] // 2
    np.testing.assert_allclose(picture[:half, :half], np.broadcast_to(magnitudes()(1.0)[:3], (half, half, 3)))
    np.testing.assert_allclose(picture[:half, half:], np.broadcast_to(magnitudes()(0.0)[:3], (half, half, 3)))
    assert set(np.unique(picture[half:, :half])) == {0.58, 0.71}


@pytest.mark.parametrize(('smallest', 'low'), [(0.5, 0.05), (0.02, 0.02), (1e-7, 5e-5), (0.0, 5e-5)])
def test_scale_ends_at_the_smallest_visible_value_and_spans_one_to_four_decades(smallest: float, low: float) -> None:
    cells = CellMap(torch.tensor([[0.5, smallest, 0.0]]), torch.tensor([[True, True, False]]))
    norm, _ = _scale([cells], False)
    assert (norm.vmin, norm.vmax) == (pytest.approx(low), 0.5)


def test_colours_grow_monotonically_and_zero_is_the_middle() -> None:
    def luminance(colours: np.ndarray) -> np.ndarray:
        return colours.astype(float) @ (0.2126, 0.7152, 0.0722)

    assert (np.diff(luminance(table(magnitudes()))) > -0.5).all()
    diverging = luminance(table(signed()))
    assert diverging.argmax() == 127
    assert (np.diff(diverging[:128]) > -0.5).all()
    assert (np.diff(diverging[127:]) < 0.5).all()
    blue, orange = table(signed())[0], table(signed())[-1]
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
