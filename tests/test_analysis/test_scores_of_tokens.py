"""Scores of tokens and gradients."""

import pytest
import torch
from scipy.stats import entropy, median_abs_deviation

from mmdefocus.analysis.scores.tokens import gradient_evenness, norm_outliers


def test_norm_outliers_exceed_the_median_by_six_deviations():
    norms = torch.randn(3, 101, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).abs() + 10
    norms[1, :7] = 100
    limits = norms.median(1).values + 6 * torch.from_numpy(median_abs_deviation(norms.numpy(), axis=1))
    torch.testing.assert_close(norm_outliers(norms), (norms > limits[:, None]).double().mean(1))
    assert norm_outliers(norms)[1] == pytest.approx(7 / 101)
    assert norm_outliers(torch.full((1, 9), 2.0)) == 0


def test_gradient_evenness_is_a_normalised_entropy():
    gradients = torch.rand(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [entropy(row.numpy(), base=30) for row in gradients]
    assert gradient_evenness(gradients).tolist() == pytest.approx(expected)
    assert gradient_evenness(torch.full((1, 30), 3.0)) == pytest.approx(1)
    assert gradient_evenness(torch.eye(30)[:1]) == 0


def test_no_gradient_has_no_evenness():
    assert gradient_evenness(torch.zeros(1, 5)).isnan()
    assert gradient_evenness(torch.ones(1, 1)).isnan()
