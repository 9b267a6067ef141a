"""Scores of attention maps, computed from blocks of rows, so that long sequences need no L × L map.

Shapes: B images, K heads or groups of channels, T rows of a block, L tokens, Q sampled queries, d channels of a value.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import AnalysisError
from .distribution import entropy, gini, top_mass
from .senders import SINK_THRESHOLD, find_sinks, sender_dominance
from .similarity import diversity, head_irrelevance, query_irrelevance
from .sink_kind import sink_kinds, sink_value_norm, stable_rank

MAX_QUERIES = 256
ROW_SCORES = ('entropy', 'top_mass', 'gini', 'head_irrelevance', 'query_irrelevance')
VALUE_SCORES = ('sink_value_norm', 'output_rank', 'silent_sink_rate', 'broadcasting_sink_rate')


class MapScores:
    """Scores of attention maps (B, K, L, L) that arrive as blocks of consecutive rows, from the first to the last.

    Scores of columns (sinks, sender dominance, diversity) and the output rank use all rows. Scores of rows (entropy,
    top 1 %, Gini, query and head irrelevance) use at most 256 evenly spaced queries, so all rows of sequences of up to
    256 tokens (257 if causal); queries that see a single token are left out. Rows of zeros have no distribution: they
    are left out of entropy, top 1 % and Gini, and count as attention to no token elsewhere. For the formulas, see
    :mod:`mmdefocus.analysis.scores.registry`.

    Args:
        length: L.
        causal: Whether a query sees only itself and earlier tokens.
        values: Values that the maps mix (B, K, L, d); None leaves the scores of the kind of a sink NaN.
    """

    def __init__(self, length: int, causal: bool, values: Tensor | None = None) -> None:
        self.length, self.causal, self.values = length, causal, values
        self.queries = _sample_queries(length, causal)
        self._next = 0
        self._totals: list[Tensor] = []  # column sums and sums of unit rows (B, K, 2, L), their number (B, K), Yᵀ Y
        self._rows: list[Tensor] = []  # of the sampled queries, (B, K, T, L)
        self._row_scores: list[Tensor] = []  # of the sampled queries, (4, B, K, T)

    @property
    def complete(self) -> bool:
        """Whether all rows have arrived."""
        return self._next == self.length

    def add(self, start: int, rows: Tensor) -> None:
        """Take the rows of the queries ``start``, ``start + 1``, ….

        Args:
            start: Position of the first row.
            rows: Signed attention (B, K, T, L), floating point.

        Raises:
            AnalysisError: The rows do not follow those before, have the wrong length, are not finite, or attend to
                later tokens although the map is causal.
        """
        stop = start + rows.shape[-2]
        if start != self._next or rows.shape[-1] != self.length or stop > self.length:
            raise AnalysisError(
                f'expected rows of {self.length} tokens from row {self._next} on, got rows {start} to {stop - 1} of '
                f'{rows.shape[-1]} tokens; feed the blocks of one map in order'
            )
        rows = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
        if self.causal:
            if rows[..., start:].triu(1).any():
                raise AnalysisError(
                    f'queries {start} to {stop - 1} attend to later tokens, expected a causal map; pass causal=False'
                )
            rows = rows[..., :stop]  # saves half of the work
        mass = rows.abs().sum(-1, keepdim=True)
        if not mass.isfinite().all():
            raise AnalysisError(f'the attention of queries {start} to {stop - 1} is not finite; check the weights')
        p = rows.abs().div_(mass.masked_fill(mass == 0, 1))
        self._sample(start, p, mass[..., 0] > 0)

        norms = p.norm(dim=-1)  # (B, K, T)
        weights = torch.stack((torch.ones_like(norms), (1 / norms).nan_to_num(posinf=0.0)), dim=-2)  # (B, K, 2, T)
        totals = [pad(weights @ p, (0, self.length - p.shape[-1])), (norms > 0).sum(-1)]
        if self.values is not None:
            outputs = rows @ self.values[..., : rows.shape[-1], :].to(rows)  # (B, K, T, d)
            totals.append(outputs.mT @ outputs)  # (B, K, d, d)
        self._totals = [a + b for a, b in zip(self._totals, totals, strict=True)] if self._totals else totals
        self._next = stop

    def _sample(self, start: int, p: Tensor, valid: Tensor) -> None:
        """Score the rows of the sampled queries, and keep them for the comparison of queries."""
        queries = self.queries[(self.queries >= start) & (self.queries < start + p.shape[-2])].to(p.device)
        if not len(queries):
            return
        visible = queries + 1 if self.causal else torch.full_like(queries, self.length)
        p, valid = p[..., queries - start, :], valid[..., queries - start]
        distribution = [score(p, visible).where(valid, torch.nan) for score in (entropy, top_mass, gini)]
        self._row_scores.append(torch.stack((*distribution, head_irrelevance(p))))
        self._rows.append(pad(p, (0, self.length - p.shape[-1])))

    def compute(self) -> dict[str, Tensor]:
        """Return the scores by name, (B, K) each; NaN where a score does not exist.

        Raises:
            AnalysisError: Rows are missing.
        """
        sums, unit_rows, *grams = self._complete_totals()
        columns, unit_sum = sums.unbind(-2)
        strength, position = find_sinks(columns, self.causal)
        nan = torch.full_like(strength, torch.nan)
        kind: tuple[Tensor, ...] = (nan,) * len(VALUE_SCORES)
        if self.values is not None:
            value_norm = sink_value_norm(self.values.to(strength).norm(dim=-1), position)
            rank = stable_rank(grams[0])
            kind = (value_norm, rank, *sink_kinds(strength, value_norm, rank))
        of_rows: tuple[Tensor, ...] = (nan,) * len(ROW_SCORES)
        if self._rows:
            rows = torch.cat(self._rows, dim=-2)  # (B, K, Q, L)
            irrelevance = query_irrelevance(rows, self.queries.to(rows.device), self.causal)
            of_rows = (*torch.cat(self._row_scores, dim=-1).nanmean(-1), irrelevance)
        return {
            **dict(zip(ROW_SCORES, of_rows, strict=True)),
            'sink_strength': strength,
            'sink_rate': (strength > SINK_THRESHOLD).to(strength.dtype),
            **dict(zip(VALUE_SCORES, kind, strict=True)),
            'sender_dominance': sender_dominance(columns),
            'attention_diversity': diversity(unit_sum, unit_rows, self.length),
        }

    def sinks(self) -> Tensor:
        """Return the position of the most attended token of every head, (B, K); ``sink_rate`` says if it is a sink.

        Raises:
            AnalysisError: Rows are missing.
        """
        return find_sinks(self._complete_totals()[0][..., 0, :], self.causal)[1]

    def _complete_totals(self) -> list[Tensor]:
        if not self.complete:
            raise AnalysisError(f'expected {self.length} rows, got {self._next}; add the remaining ones')
        return self._totals


def map_scores(maps: Tensor, causal: bool, values: Tensor | None = None) -> dict[str, Tensor]:
    """Compute the scores of whole attention maps.

    Args:
        maps: Signed attention (B, K, L, L), floating point; row i is query i.
        causal: Whether a query sees only itself and earlier tokens.
        values: Values that the maps mix (B, K, L, d); None leaves the scores of the kind of a sink NaN.

    Returns:
        The scores by name, (B, K) each; see :class:`MapScores`.

    Raises:
        AnalysisError: The maps are not square, not finite, or not causal although ``causal`` says so.
    """
    if maps.dim() != 4 or maps.shape[-1] != maps.shape[-2]:
        raise AnalysisError(f'expected maps (images, heads, tokens, tokens), got the shape {tuple(maps.shape)}')
    scores = MapScores(maps.shape[-1], causal, values)
    scores.add(0, maps)
    return scores.compute()


def _sample_queries(length: int, causal: bool) -> Tensor:
    """Return at most 256 evenly spaced queries that see at least two tokens, ascending."""
    first = 1 if causal or length == 1 else 0
    count = min(length - first, MAX_QUERIES)
    return torch.linspace(first, length - 1, count, dtype=torch.float64).round().long()
