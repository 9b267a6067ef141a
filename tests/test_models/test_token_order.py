import pytest
import torch

from mmdefocus.models.token_order import image_to_sequence, sequence_to_image


def test_raster_order_is_row_by_row():
    grid = torch.arange(6.0).view(1, 2, 3, 1)
    assert image_to_sequence(grid).flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_window_order_is_window_by_window():
    grid = torch.arange(24).view(1, 4, 6, 1)
    expected = [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, 12, 13, 18, 19, 14, 15, 20, 21, 16, 17, 22, 23]
    assert image_to_sequence(grid, window=2).flatten().tolist() == expected


@pytest.mark.parametrize('grid', [(4, 4), (4, 8), (12, 4)])
@pytest.mark.parametrize('window', [None, 1, 2, 4])
def test_the_way_back_restores_the_image(grid, window):
    image = torch.randn(2, *grid, 3)
    assert torch.equal(sequence_to_image(image_to_sequence(image, window), grid, window), image)


def test_one_window_is_raster_order():
    image = torch.randn(2, 3, 3, 5)
    assert torch.equal(image_to_sequence(image, window=3), image_to_sequence(image))


def test_grid_that_windows_do_not_fill_is_refused():
    with pytest.raises(ValueError, match='multiples of the window side 2, got 4 x 5'):
        image_to_sequence(torch.randn(1, 4, 5, 1), window=2)
    with pytest.raises(ValueError, match='multiples of the window side 3, got 4 x 3'):
        sequence_to_image(torch.randn(1, 12, 1), (4, 3), window=3)


def test_sequence_with_the_class_token_is_refused():
    with pytest.raises(ValueError, match=r'2 \* 3 = 6 tokens for the grid 2 x 3, got 7; leave the class token out'):
        sequence_to_image(torch.randn(1, 7, 4), (2, 3))
