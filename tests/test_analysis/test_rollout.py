"""Attention rollout."""

import pytest
import torch
from toy_networks import build, images_of

from mmdefocus.analysis.attention_maps import attention_maps
from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.rollout import rollout


def test_rollout_is_the_product_of_normalised_maps_in_ascending_order():
    torch.manual_seed(0)
    maps = {7: torch.randn(2, 3, 4, 4, dtype=torch.float64), 2: torch.randn(2, 5, 4, 4, dtype=torch.float64)}
    rolled = rollout(maps)
    assert list(rolled) == [2, 7]
    for image in range(2):
        steps = []
        for layer in (2, 7):
            step = torch.eye(4, dtype=torch.float64) + sum(a.abs() for a in maps[layer][image]) / len(
                maps[layer][image]
            )
            steps.append(torch.stack([row / row.sum() for row in step]))
        torch.testing.assert_close(rolled[2][image], steps[0])
        torch.testing.assert_close(rolled[7][image], steps[1] @ steps[0])


@pytest.mark.parametrize('kind', ['mamba', 'vit', 'retnet'])
def test_rollout_of_causal_networks_is_causal_and_stochastic(kind):
    for rolled in rollout(attention_maps(build(kind), images_of())).values():
        assert rolled.shape == (2, 17, 17)
        assert (rolled.triu(1) == 0).all()
        assert (rolled >= 0).all()
        torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 17, dtype=torch.float64))


def test_rollout_of_nothing_is_nothing():
    assert rollout({}) == {}


@pytest.mark.parametrize(
    ('maps', 'message'),
    [
        ({0: torch.ones(1, 2, 3, 5)}, r'layer 0: a rollout needs all rows .* = \(1, 5, 5\), got \(1, 2, 3, 5\)'),
        ({0: torch.ones(1, 2, 3, 3), 4: torch.ones(1, 2, 5, 5)}, r'layer 4: .* = \(1, 3, 3\), got \(1, 2, 5, 5\)'),
    ],
)
def test_maps_that_cannot_be_multiplied(maps, message):
    with pytest.raises(AnalysisError, match=message):
        rollout(maps)
