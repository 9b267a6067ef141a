"""Scores of attention maps: closed forms, literal loops, and blocks of rows against whole maps."""

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.scores import SCORES, MapScores, map_scores
from mmdefocus.analysis.scores.senders import find_sinks

LENGTH = 20
BOTH = pytest.mark.parametrize('causal', [True, False])


def uniform(causal, length=LENGTH):
    ones = torch.ones(1, 2, length, length, dtype=torch.float64)
    return ones.tril() if causal else ones


def one_column(column, length=LENGTH, heads=2):
    """Every query attends to one token; queries before it, to themselves."""
    maps = torch.eye(length, dtype=torch.float64)
    maps[column:] = torch.eye(length, dtype=torch.float64)[column]
    return maps.expand(1, heads, -1, -1)


def random_maps(causal, length=LENGTH, heads=3, images=2):
    generator = torch.Generator().manual_seed(length)
    maps = torch.randn(images, heads, length, length, dtype=torch.float64, generator=generator)
    maps = maps**3  # uneven, with signs
    return maps.tril() if causal else maps


def the(scores, name):
    return scores[name].flatten().tolist()


@BOTH
def test_uniform_attention(causal):
    scores = map_scores(uniform(causal), causal)
    for name, value in dict(entropy=1, gini=0, query_irrelevance=1, head_irrelevance=1, sink_rate=0).items():
        assert the(scores, name) == pytest.approx([value] * 2, abs=1e-12), name
    visible = range(2, LENGTH + 1) if causal else [LENGTH] * LENGTH
    assert the(scores, 'top_mass') == pytest.approx([sum(1 / n for n in visible) / len(visible)] * 2)
    harmonic = sum(1 / n for n in range(1, LENGTH + 1))
    assert the(scores, 'sink_strength') == pytest.approx([harmonic / LENGTH if causal else 1 / LENGTH] * 2)
    if not causal:
        assert the(scores, 'sender_dominance') == pytest.approx([0, 0], abs=1e-12)
        assert the(scores, 'attention_diversity') == pytest.approx([0, 0], abs=1e-12)


def test_causality_alone_makes_half_of_the_sender_dominance_and_a_third_of_the_diversity():
    scores = map_scores(uniform(True, 400), True)
    assert the(scores, 'sender_dominance') == pytest.approx([0.5] * 2, abs=0.01)
    assert the(scores, 'attention_diversity') == pytest.approx([1 / 3] * 2, abs=0.01)


@BOTH
def test_attention_to_one_token(causal):
    scores = map_scores(one_column(0), causal)
    expected = dict(entropy=0, top_mass=1, sink_strength=1, sink_rate=1, query_irrelevance=1, head_irrelevance=1)
    for name, value in (expected | dict(attention_diversity=0, sender_dominance=1 - 1 / LENGTH)).items():
        assert the(scores, name) == pytest.approx([value] * 2, abs=1e-12), name
    visible = range(2, LENGTH + 1) if causal else [LENGTH] * LENGTH
    assert the(scores, 'gini') == pytest.approx([sum(1 - 1 / n for n in visible) / len(visible)] * 2)


@BOTH
def test_attention_of_every_token_to_itself(causal):
    scores = map_scores(torch.eye(LENGTH).expand(1, 2, -1, -1), causal)
    expected = dict(entropy=0, top_mass=1, query_irrelevance=0, attention_diversity=1, sender_dominance=0, sink_rate=0)
    for name, value in expected.items():
        assert the(scores, name) == pytest.approx([value] * 2, abs=1e-6), name


def test_entropy_of_visible_tokens_is_scipys():
    maps = random_maps(causal=True)
    rows = maps[0, 0].abs().numpy()
    values = [scipy_entropy(rows[i, : i + 1]) / math.log(i + 1) for i in range(1, LENGTH)]
    assert map_scores(maps, True)['entropy'][0, 0].item() == pytest.approx(sum(values) / len(values), rel=1e-12)


def gini_of(values):
    """Mean absolute difference of all pairs, divided by twice the mean."""
    n = len(values)
    return sum(abs(a - b) for a in values for b in values) / (2 * n * sum(values))


def cosine(a, b):
    product, norms = sum(x * y for x, y in zip(a, b, strict=True)), math.hypot(*a) * math.hypot(*b)
    return product / norms if norms else 0.0


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def loop_scores(maps, head, causal):
    """The scores of a head, element by element, from maps (K, L, L)."""
    length = len(maps[head])
    p = [[[abs(x) / sum(map(abs, row)) for x in row] for row in rows] for rows in maps]
    mine = p[head]
    seen = [i + 1 if causal else length for i in range(length)]
    queries = [i for i in range(length) if seen[i] > 1]
    columns = [sum(row[k] for row in mine) for k in range(length)]
    watchers = [sum(k < n for n in seen) for k in range(length)]
    return {
        'top_mass': mean(sum(sorted(mine[i])[-math.ceil(seen[i] / 100) :]) for i in queries),
        'gini': mean(gini_of(mine[i][: seen[i]]) for i in queries),
        'sink_strength': max(columns[k] / watchers[k] for k in range(length) if watchers[k] >= length / 4),
        'sender_dominance': gini_of(columns),
        'query_irrelevance': mean(
            cosine(mine[i][: seen[i]], mine[j][: seen[i]]) for i in queries for j in queries if i < j
        ),
        'head_irrelevance': mean(cosine(mine[i], rows[i]) for i in queries for rows in p if rows is not mine),
        'attention_diversity': 1 - mean(cosine(a, b) for a in mine for b in mine if a is not b),
    }


@BOTH
@pytest.mark.parametrize('length', [2, 3, 17])
def test_scores_against_literal_loops(causal, length):
    maps = random_maps(causal, length)
    scores = map_scores(maps, causal)
    for head in range(2):
        for name, value in loop_scores(maps[-1].tolist(), head, causal).items():
            assert scores[name][-1, head].item() == pytest.approx(value, rel=1e-10, abs=1e-12, nan_ok=True), name


@BOTH
def test_the_top_of_long_rows_has_several_tokens(causal):
    length = 230
    maps = random_maps(causal, length, heads=1, images=1)
    rows = maps[0, 0].abs() / maps[0, 0].abs().sum(-1, keepdim=True)
    seen = [i + 1 if causal else length for i in range(length)]
    tops = [row.sort().values[-math.ceil(n / 100) :].sum().item() for row, n in zip(rows, seen, strict=True) if n > 1]
    assert map_scores(maps, causal)['top_mass'].item() == pytest.approx(mean(tops), rel=1e-12)


@BOTH
@pytest.mark.parametrize('length', [5, 64, 300])
def test_blocks_of_rows_give_the_scores_of_the_whole_map(causal, length):
    maps = random_maps(causal, length, images=1)
    values = torch.randn(1, 3, length, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blocks = MapScores(length, causal, values)
    for start in range(0, length, 7):
        assert not blocks.complete
        blocks.add(start, maps[:, :, start : start + 7])
    whole, parts = map_scores(maps, causal, values), blocks.compute()
    assert whole.keys() == parts.keys() == SCORES.keys() - {'norm_outliers', 'gradient_evenness'}
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-10, atol=1e-12)


def test_long_sequences_use_256_evenly_spaced_queries_for_the_scores_of_rows():
    length = 1021  # 256 queries, every fourth token
    scores = MapScores(length, causal=False)
    assert scores.queries.tolist() == list(range(0, length, 4))
    maps = random_maps(False, length, heads=2, images=1).float()
    rows = maps[:, :, ::4].abs()
    expected = torch.special.entr(rows / rows.sum(-1, keepdim=True)).sum(-1).mean(-1) / math.log(length)
    torch.testing.assert_close(map_scores(maps, False)['entropy'], expected)
    assert MapScores(257, causal=True).queries.tolist() == list(range(1, 257))


def test_signs_and_scales_do_not_count():
    maps = random_maps(True)
    scaled = -maps * torch.rand(2, 3, LENGTH, 1, dtype=torch.float64)
    for name, value in map_scores(scaled, True).items():
        torch.testing.assert_close(value, map_scores(maps, True)[name], equal_nan=True)


def test_rows_of_zeros_are_left_out_of_the_scores_of_rows():
    maps = random_maps(True)
    maps[:, :, 5] = 0
    scores = map_scores(maps, True)
    rows = maps[0, 0].abs()
    values = [scipy_entropy(rows[i, : i + 1].numpy()) / math.log(i + 1) for i in range(1, LENGTH) if i != 5]
    assert scores['entropy'][0, 0].item() == pytest.approx(mean(values))
    assert all(scores[name].isfinite().all() for name in ('gini', 'sink_strength', 'query_irrelevance'))


def test_one_token_has_no_distribution_and_one_head_no_other():
    scores = map_scores(torch.ones(1, 1, 1, 1), True)
    assert all(scores[name].isnan().all() for name in ('entropy', 'gini', 'query_irrelevance', 'attention_diversity'))
    assert map_scores(uniform(True)[:, :1], True)['head_irrelevance'].isnan().all()


# Sinks


def test_position_of_a_sink():
    for column in (0, 7):
        scores = MapScores(LENGTH, causal=True)
        scores.add(0, one_column(column))
        assert scores.sinks().tolist() == [[column, column]]


def test_the_last_tokens_of_a_causal_map_are_no_sinks():
    columns = torch.ones(LENGTH)  # every token attends to itself: the last token gets all of its single query
    strength, position = find_sinks(columns, causal=True)
    assert position == LENGTH - LENGTH // 4
    assert strength == pytest.approx(4 / LENGTH)
    strength, _ = find_sinks(columns, causal=False)
    assert strength == pytest.approx(1 / LENGTH)


@pytest.mark.parametrize(('length', 'rate'), [(12, 1), (13, 0)])
def test_short_sequences_have_sinks_by_chance(length, rate):
    assert the(map_scores(torch.eye(length).expand(1, 1, -1, -1), True), 'sink_rate') == [rate]


def test_a_sink_needs_more_than_0_3():
    def rate(share):
        maps = torch.full((1, 1, LENGTH, LENGTH), (1 - share) / (LENGTH - 1), dtype=torch.float64)
        maps[..., 3] = share
        return map_scores(maps, False)['sink_rate'].item()

    assert rate(0.29) == 0
    assert rate(0.31) == 1


@pytest.mark.parametrize(('factor', 'kind'), [(0.1, (1, 0)), (1.0, (0, 1)), (0.3, (0, 0))])
def test_kind_of_a_sink(factor, kind):
    values = torch.zeros(1, 1, LENGTH, 4, dtype=torch.float64)
    values[..., 0] = 1.0
    values[..., 0, :] = torch.tensor([0.0, factor, 0.0, 0.0])
    scores = map_scores(one_column(0, heads=1), True, values)
    assert scores['sink_value_norm'].item() == pytest.approx(factor)
    assert scores['output_rank'].item() == pytest.approx(1)
    assert (scores['silent_sink_rate'].item(), scores['broadcasting_sink_rate'].item()) == kind


def test_without_a_sink_there_is_neither_kind_and_without_values_no_answer():
    values = torch.randn(1, 2, LENGTH, 4, dtype=torch.float64)
    scores = map_scores(torch.eye(LENGTH, dtype=torch.float64).expand(1, 2, -1, -1), False, values)
    assert the(scores, 'silent_sink_rate') == the(scores, 'broadcasting_sink_rate') == [0, 0]
    names = ('sink_value_norm', 'output_rank', 'silent_sink_rate', 'broadcasting_sink_rate')
    assert all(map_scores(uniform(True), True)[name].isnan().all() for name in names)


def test_output_rank_is_the_stable_rank_of_map_times_values():
    maps, values = random_maps(True), torch.randn(2, 3, LENGTH, 4, dtype=torch.float64)
    singular = torch.linalg.svdvals(maps @ values)
    expected = singular.square().sum(-1) / singular[..., 0].square()
    torch.testing.assert_close(map_scores(maps, True, values)['output_rank'], expected)


# Errors


def test_errors():
    maps = random_maps(False)
    with pytest.raises(AnalysisError, match=r'queries 0 to 19 attend to later tokens, expected a causal map'):
        map_scores(maps, True)
    with pytest.raises(AnalysisError, match=r'\(images, heads, tokens, tokens\), got the shape \(2, 3, 19, 20\)'):
        map_scores(maps[:, :, 1:], False)
    maps[0, 0, 3, 4] = torch.nan
    with pytest.raises(AnalysisError, match=r'attention of queries 0 to 19 is not finite'):
        map_scores(maps, False)
    blocks = MapScores(LENGTH, causal=False)
    with pytest.raises(AnalysisError, match=r'from row 0 on, got rows 4 to 5 of 20 tokens'):
        blocks.add(4, maps[:, :, 4:6])
    blocks.add(0, maps[:, :, :2])
    with pytest.raises(AnalysisError, match=r'expected 20 rows, got 2'):
        blocks.compute()
