"""Attention maps: the matrices over the tokens that turn a layer's values into its output.

Shapes: B batch, L tokens, K maps of a layer, Q queries, T rows of a block, H heads.
"""

from collections.abc import Iterator, Sequence
from typing import cast, get_args

from torch import Tensor, nn

from .errors import AnalysisError, NoAttention
from .foreign_maps import foreign_maps
from .maps import MixerCall, Reduce, open_maps, record_mixer_calls
from .networks import TokenNetwork, open_network

_PARTS = ('conv', 'gate')


def attention_maps(
    model: nn.Module | TokenNetwork,
    images: Tensor,
    layers: Sequence[int] | None = None,
    reduce: str = 'group',
    include: Sequence[str] = (),
    queries: Sequence[int] | None = None,
) -> dict[int, Tensor]:
    """Return the exact, signed attention maps of layers: row i says what the output of token i takes from each token.

    The implicit attention of a selective scan as in arXiv 2403.01590, with the parts around it as in arXiv 2405.16504;
    of retention, q kᵀ with its band-pass; of attention, its softmax. ``docs/attention-maps.md`` has the formulas. For
    networks of this package, the maps are compared with the layers' own outputs.

    Args:
        model: A network of this package, or another one whose attention is known
            (:mod:`mmdefocus.analysis.foreign_attention`).
        images: Normalised images (B, 3, height, width).
        layers: Numbers of the layers from 0, or negative from the last; by default all that have attention.
        reduce: Mean over the signed maps of channels. ``'none'``: a map per channel. ``'group'``: a map per head, or
            per group of De-focus Mamba's group norm. ``'mean'``: one map. Other networks have no maps per channel.
        include: Parts of the mixer around its core. ``'conv'``: convolution and SiLU before the selective scan.
            ``'gate'``: norm scale, skip connection D and gate after the scan; norm scale and gate after retention.
        queries: Positions whose rows are returned, in this order, negative from the last; all by default.

    Returns:
        By number of the layer (B, K, Q, L), float32 (float64 for float64), in token order. Entries after the query are
        exactly 0 in causal networks.

    Raises:
        AnalysisError: A layer, query or part that does not exist, or an unknown ``reduce``.
        NoAttention: One of ``layers`` exposes no attention, or, by default, none of all.
        RuntimeError: The maps do not reproduce the layer's own output.
    """
    network, indices, reduction = _check(model, layers, reduce, include)
    if not network.is_defocus:
        maps = foreign_maps(network, images, indices, reduction, include, every_layer=layers is not None)
        return {layer: rows[..., _positions(queries, rows.shape[-1]), :] for layer, rows in maps.items()}
    calls = record_mixer_calls(network, images, indices)
    result = {}
    for layer in indices:
        source = open_maps(calls.pop(layer), reduction, include)
        result[layer] = source.rows_at(_positions(queries, source.length))
    return result


def attention_blocks(
    model: nn.Module | TokenNetwork,
    images: Tensor,
    layers: Sequence[int] | None = None,
    reduce: str = 'group',
    include: Sequence[str] = (),
) -> Iterator[tuple[int, int, Tensor]]:
    """Iterate over the maps of :func:`attention_maps` by blocks of rows, for sequences whose L × L maps do not fit.

    A network of this package runs once, in this call. Any other network runs once per layer, and the whole map of a
    layer is one block.

    Args:
        model, images, layers, reduce, include: As for :func:`attention_maps`.

    Yields:
        Number of the layer, number of the first row, rows (B, K, T, L) of at most about 64 MiB or one row.

    Raises:
        AnalysisError, NoAttention, RuntimeError: As for :func:`attention_maps`.
    """
    network, indices, reduction = _check(model, layers, reduce, include)
    if not network.is_defocus:
        return _foreign_blocks(network, images, indices, reduction, include, every_layer=layers is not None)
    return _blocks(record_mixer_calls(network, images, indices), reduction, include)


def _foreign_blocks(
    network: TokenNetwork,
    images: Tensor,
    layers: Sequence[int],
    reduce: Reduce,
    include: Sequence[str],
    every_layer: bool,
) -> Iterator[tuple[int, int, Tensor]]:
    missing: list[NoAttention] = []
    for layer in layers:
        try:
            rows = foreign_maps(network, images, [layer], reduce, include, every_layer=True)[layer]
        except NoAttention as error:
            missing.append(error)
            if every_layer or len(missing) == len(layers):
                raise missing[0] from None
        else:
            yield layer, 0, rows


def _blocks(calls: dict[int, MixerCall], reduce: Reduce, include: Sequence[str]) -> Iterator[tuple[int, int, Tensor]]:
    for layer in list(calls):
        for start, rows in open_maps(calls.pop(layer), reduce, include).blocks():
            yield layer, start, rows


def _check(
    model: nn.Module | TokenNetwork, layers: Sequence[int] | None, reduce: str, include: Sequence[str]
) -> tuple[TokenNetwork, list[int], Reduce]:
    if reduce not in get_args(Reduce):
        raise AnalysisError(f'expected reduce to be one of {", ".join(get_args(Reduce))}, got {reduce!r}')
    if isinstance(include, str) or not set(include) <= set(_PARTS):
        raise AnalysisError(f'expected include as a sequence of {" and ".join(_PARTS)}, got {include!r}')
    network = open_network(model)
    return network, list(dict.fromkeys(network.select(layers))), cast(Reduce, reduce)


def _positions(queries: Sequence[int] | None, length: int) -> list[int]:
    if queries is None:
        return list(range(length))
    if not queries:
        raise AnalysisError('expected at least one query, got none; None selects all')
    for query in queries:
        if not -length <= query < length:
            raise AnalysisError(f'expected queries from {-length} to {length - 1} for {length} tokens, got {query}')
    return [query % length for query in queries]
