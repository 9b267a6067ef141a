// Forward pass of band-pass attention for the instruction set of the including file.
//
// A tile of queries goes through the keys tile by tile. Maximum and sum of the exponentials of a query so far rescale
// what it has gathered (online softmax), so that no row of logits is ever complete in memory.
// Shapes: see tiles.h.
#pragma once

#include "cpu/bandpass/queries.h"

namespace {

// Replaces the logits of `rows` keys by exp(logit - maximum), and updates maximum and sum of every query; `rescale`
// becomes the factor of what was summed before. In the lower half of a square, later keys have the weight 0.
template <typename S>
inline void online_softmax(int keys, bool lower_half, int vectors_of_queries, Vec<S>* logits, Vec<S>* maximum,
                           Vec<S>* sum, Vec<S>* rescale) {
  constexpr int V = kTileVectors<S>;
  for (int v = 0; v < vectors_of_queries; ++v) {
    const int rows = lower_half ? std::min(keys, (v * kLanes<S> / kDiagonalSquare<S> + 1) * kDiagonalSquare<S>) : keys;
    for (int s = rows; s < keys; ++s) logits[s * V + v] = Vec<S>{};
    // Rows of a block are independent chains of operations.
    Vec<S> largest[kBlockRows];
    std::fill_n(largest, kBlockRows, maximum[v]);
    for (int s = 0; s < rows; s += kBlockRows) {
#pragma GCC unroll 4
      for (int r = 0; r < kBlockRows; ++r) {
        const Vec<S> logit = logits[(s + r) * V + v];
        largest[r] = logit > largest[r] ? logit : largest[r];
      }
    }
    for (int r = 1; r < kBlockRows; ++r) largest[0] = largest[r] > largest[0] ? largest[r] : largest[0];
    rescale[v] = vector_exp<S>(maximum[v] - largest[0]);
    maximum[v] = largest[0];
    Vec<S> sums[kBlockRows] = {};
    for (int s = 0; s < rows; s += kBlockRows) {
#pragma GCC unroll 4
      for (int r = 0; r < kBlockRows; ++r) {
        Vec<S>& logit = logits[(s + r) * V + v];
        logit = vector_exp<S>(logit - maximum[v]);
        sums[r] += logit;
      }
    }
    for (int r = 1; r < kBlockRows; ++r) sums[0] += sums[r];
    sum[v] = sum[v] * rescale[v] + sums[0];
  }
}

template <typename S>
void attention_forward(const BandpassInputs<S>& in, const AttentionOutputs<S>& out, int64_t begin, int64_t end) {
  constexpr int V = kTileVectors<S>;
  const BandpassSizes& sizes = in.sizes;
  const int64_t W = sizes.padded_values;
  Scratch<S> scratch(PackedKeys<S>::scratch_vectors(sizes, sizes.tiles) + Queries<S>::scratch_vectors(sizes) +
                     (kTile + 2 * W + 3) * V);
  PackedKeys<S> packed(in, sizes.tiles, scratch);
  Queries<S> queries(in, scratch);
  Vec<S>* weights = scratch.take(kTile * V);
  Vec<S>* gathered = scratch.take(W * V);  // (W, N)
  Vec<S>* rows = scratch.take(W * V);      // (N, W)
  Vec<S>* maximum = scratch.take(V);
  Vec<S>* sum = scratch.take(V);
  Vec<S>* rescale = scratch.take(V);
  for (int64_t index = begin; index < end; ++index) {
    const TileIndex tile(sizes, index);
    const int64_t end_of_keys = in.causal ? tile.i + 1 : sizes.tiles;
    packed.pack_head(tile.head, end_of_keys);
    queries.load(tile);
    std::fill_n(gathered, W * V, Vec<S>{});
    std::fill_n(maximum, V, splat<S>(-HUGE_VAL));
    std::fill_n(sum, V, Vec<S>{});
    for (int64_t j = 0; j < end_of_keys; ++j) {
      const bool lower_half = in.causal && j == tile.i;
      const int count = queries.logits(packed, j, TileIndex(sizes, tile.head, j), -HUGE_VAL, weights);
      online_softmax<S>(count, lower_half, queries.vectors_of_queries(), weights, maximum, sum, rescale);
      multiply_values<S>(
          static_cast<int>((sizes.values + 3) / 4 * 4), queries.vectors_of_queries(), count, lower_half,
          packed.values(j), W, weights,
          [=](int r, int v, Vec<S> sum) { gathered[r * V + v] = gathered[r * V + v] * rescale[v] + sum; },
          [=](int r, int v, Vec<S> sum) { gathered[r * V + v] += sum; });
    }
    for (int64_t w = 0; w < sizes.values; ++w) {
      for (int v = 0; v < queries.vectors_of_queries(); ++v) gathered[w * V + v] /= sum[v];
    }
    transpose<S>(gathered, static_cast<int>(W / kLanes<S>), queries.vectors_of_queries(), V, W / kLanes<S>, rows);
    store_rows_of_tile<S>(rows, tile, sizes.values, W / kLanes<S>, out.y);
    const S *largest = numbers<S>(maximum), *total = numbers<S>(sum);
    for (int t = 0; t < tile.tokens; ++t) {
      out.lse[tile.head * sizes.length + tile.start + t] = largest[t] + std::log(total[t]);
    }
  }
}

}  // namespace
