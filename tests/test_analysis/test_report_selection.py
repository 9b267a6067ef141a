"""Tests of which layers and tokens of several networks are compared."""

import pytest
import torch
from report_examples import example_reports, invented_network, raster_layout, window_layout

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.report.selection import (
    CLASS_TOKEN,
    group_by_image,
    image_cells,
    layer_at_depth,
    nearest_query,
    relative_depth,
    shown_depths,
)


def test_cells_agree_with_the_layout() -> None:
    layout = window_layout(5, 7, 3)
    cells = image_cells(layout)
    positions = torch.arange(layout.length)
    grid = layout.to_grid(positions).flatten()  # token of every cell
    for token, cell in enumerate(cells.tolist()):
        assert cell < 0 or grid[cell] == token
    assert (cells >= 0).sum() == 35
    assert cells[layout.class_token] == -1
    assert (cells == -2).sum() == 6 * 9 - 35


def test_depths_compare_networks_of_different_depths() -> None:
    windows, causal, convolutional = example_reports()
    assert [relative_depth(causal, layer) for layer in causal.layers] == [2 / 6, 4 / 6, 1]
    assert shown_depths([causal, windows], 2) == [0.5, 1]  # of the network with four layers
    assert shown_depths([causal], 4) == [2 / 6, 4 / 6, 1]
    assert layer_at_depth(causal, 0.75).index == 3
    assert layer_at_depth(convolutional, 0.25).index == 0
    causal.layer_count = None
    assert relative_depth(causal, causal.layers[0]) == 2 / 6  # layer 5 is the last one known


def test_query_is_the_token_at_the_same_place_of_every_grid() -> None:
    for layout in (window_layout(5, 7, 3), raster_layout(6, 8, causal=False)):
        rows, columns = layout.image_grid
        queries = list(range(layout.length))
        for row in range(rows):
            for column in range(columns):
                place = ((row + 0.5) / rows, (column + 0.5) / columns)
                assert nearest_query(layout, queries, place) == layout.token_at(row, column)
    # On the corner of four cells it is the last of them.
    layout = raster_layout(6, 8, causal=False)
    assert nearest_query(layout, list(range(49)), (0.5, 0.5)) == layout.token_at(3, 4)


def test_only_queries_that_exist_are_found() -> None:
    layout = raster_layout(4, 4, causal=True)
    assert nearest_query(layout, [0, 16], (0.9, 0.9)) == 0  # the class token has no place
    assert nearest_query(layout, [0, 16], CLASS_TOKEN) == 1
    assert nearest_query(layout, [0, 5], CLASS_TOKEN) is None
    assert nearest_query(layout, [16], (0.5, 0.5)) is None
    assert nearest_query(layout, [], (0.5, 0.5)) is None
    assert nearest_query(raster_layout(4, 4, causal=False, class_token=False), [0], CLASS_TOKEN) is None


def test_reports_are_grouped_by_image() -> None:
    reports = [*example_reports('a.png'), *example_reports('b.png')]
    groups = group_by_image(reports)
    assert list(groups) == ['a.png', 'b.png']
    assert groups['b.png'] == reports[3:]


def test_ambiguous_or_missing_reports_are_refused() -> None:
    with pytest.raises(AnalysisError, match=r'at least one network and image, got none'):
        group_by_image([])
    report = invented_network('net', raster_layout(3, 3, causal=True), 'a.png', [0], 1)
    with pytest.raises(AnalysisError, match=r"image 'a.png' have the label 'net'; give every network a label"):
        group_by_image([report, report])
    report.layers = []
    with pytest.raises(AnalysisError, match=r"report of 'net' has no layers"):
        group_by_image([report])
