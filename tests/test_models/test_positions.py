import pytest
import torch

from mmdefocus.models.positions import initial_frequencies, token_positions


@pytest.mark.parametrize('count', [2, 16])
def test_initial_frequencies_follow_the_formula(count):
    expected = [(100 ** (-j / count) - 0.01) / 0.99 for j in range(1, count + 1)]
    torch.testing.assert_close(initial_frequencies(count), torch.tensor(expected), rtol=1e-5, atol=1e-7)


def test_last_frequency_is_zero():
    assert initial_frequencies(16)[-1] == 0


def test_positions_are_divided_by_the_scale():
    assert token_positions(5, 4.0, like=torch.empty(0)).tolist() == [0, 0.25, 0.5, 0.75, 1.0]


def test_positions_count_past_256_and_keep_float64():
    assert token_positions(4706, 1.0, like=torch.empty(0))[-1] == 4705
    assert token_positions(3, 3.0, like=torch.empty(0, dtype=torch.float64)).dtype == torch.float64
