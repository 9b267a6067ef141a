"""The scores: names, titles, meanings, formulas and sources, for tables, pages and documents.

Symbols: A the signed attention map of a head; p_i row i of |A| divided by its sum, over the n_i tokens that query i
sees (i + 1 with causality, L without); N_k the number of queries that see token k; v_k the head's value of token k;
x_i token i as it leaves the layer; g_j the norm of the gradient of the class logit with respect to token j as it enters
the layer.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Score:
    """Description of a score.

    Attributes:
        name: Key in tables.
        title: Short heading.
        meaning: What it measures, in one line.
        formula: How it is computed, in the symbols of this module.
        source: Where the definition comes from.
        low, high: Its range.
        over_focused: The end of the range that an over-focused network tends to; empty if neither end means that.
    """

    name: str
    title: str
    meaning: str
    formula: str
    source: str
    low: float
    high: float
    over_focused: Literal['low', 'high', '']


INFINITY = float('inf')

ALL_SCORES = (
    Score(
        'entropy',
        'Entropy',
        'how evenly a query spreads its attention: 1 evenly, 0 on one token',
        'mean_i of -Σ_j p_ij log p_ij / log n_i',
        'Shannon entropy, divided by its maximum',
        0.0,
        1.0,
        'low',
    ),
    Score(
        'top_mass',
        'Top 1 %',
        'share of the attention on the strongest 1 % of the tokens that a query sees',
        'mean_i of the sum of the ⌈n_i / 100⌉ largest p_ij',
        'defined here',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'gini',
        'Gini',
        'how unevenly a query spreads its attention: 0 evenly, near 1 on one token',
        'mean_i of 1 - 2 Σ_k p_i(k) (n_i - k + ½) / n_i, p_i(1) ≤ p_i(2) ≤ …',
        'Hurley and Rickard, Comparing Measures of Sparsity (2009, arXiv 0811.4706)',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'sink_strength',
        'Sink strength',
        'average attention that the most attended token gets from the queries that see it',
        'max_k of Σ_i p_ik / N_k, over the tokens that at least a quarter of the queries see',
        'importance score of Gu et al. (arXiv 2410.10781), section 3',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'sink_rate',
        'Sink rate',
        'share of heads with a sink: a token that gets more than 0.3 of the attention on average',
        '1 if sink strength > 0.3, else 0',
        'Gu et al. (arXiv 2410.10781), section 3, ε = 0.3',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'sink_value_norm',
        'Sink value',
        "norm of the most attended token's value, relative to the other tokens: near 0 if attending to it adds nothing",
        '‖v_s‖ / mean_{k ≠ s} ‖v_k‖, s the token of sink strength',
        'arXiv 2606.08105, in the space of the head',
        0.0,
        INFINITY,
        '',
    ),
    Score(
        'output_rank',
        'Output rank',
        "effective (stable) rank of the head's output: 1 if all tokens receive multiples of one vector",
        '‖A v‖²_F / σ₁(A v)²',
        'arXiv 2606.08105',
        1.0,
        INFINITY,
        'low',
    ),
    Score(
        'silent_sink_rate',
        'Silent sinks',
        'share of heads with a sink whose value is almost zero: the head switches itself off',
        '1 if sink strength > 0.3 and sink value ≤ 0.2, else 0',
        'no-operation sinks of arXiv 2606.08105, with the limits of its code',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'broadcasting_sink_rate',
        'Broadcasting sinks',
        'share of heads with a sink that sends one vector to all tokens',
        '1 if sink strength > 0.3, sink value ≥ 0.5 and output rank ≤ 1.5, else 0',
        'broadcast sinks of arXiv 2606.08105, with the limits of its code',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'sender_dominance',
        'Sender dominance',
        'how unequally tokens are attended to in total: 0 all alike, near 1 a single sender',
        'Gini of the column sums Σ_i p_ik',
        'column sums of DependencyViT (arXiv 2304.03282)',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'query_irrelevance',
        'Query irrelevance',
        'similarity of the attention of different queries: 1 if it does not depend on the query',
        'mean_{i < j} of cos(p_i, p_j), on the tokens that both see',
        'first claim of Ma et al., A Close Look at Spatial Modeling (2022)',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'head_irrelevance',
        'Head irrelevance',
        'similarity of the attention of different heads for one query: 1 if all heads do the same',
        'mean over i and g ≠ h of cos(p_i of head h, p_i of head g)',
        'first claim of Ma et al., A Close Look at Spatial Modeling (2022)',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'attention_diversity',
        'Diversity',
        'difference of the whole rows of different queries: 0 if all are the same',
        '1 - mean_{i ≠ j} of cos(p_i, p_j), all tokens',
        'penalised similarity of Guo et al., Robustifying Token Attention (ICCV 2023)',
        0.0,
        1.0,
        'low',
    ),
    Score(
        'norm_outliers',
        'Norm outliers',
        'share of image tokens with an outstandingly large norm after the layer',
        'share of i with ‖x_i‖ > m + 6 · median of abs(‖x_i‖ - m), m the median of ‖x_i‖',
        'artefacts of Mamba® (arXiv 2405.14858)',
        0.0,
        1.0,
        'high',
    ),
    Score(
        'gradient_evenness',
        'Gradient evenness',
        'how evenly the class logit depends on the image tokens that enter the layer: 1 evenly, 0 on one token',
        '-Σ_j q_j log q_j / log n, q = g / Σ g, n image tokens',
        'gradient maps of De-focus Attention Networks (arXiv 2406.04342), figures 1 and 3',
        0.0,
        1.0,
        'low',
    ),
)  # fmt: skip

SCORES = {score.name: score for score in ALL_SCORES}
