// Sums over the groups of channels of a tile, for the group RMS norm and its gradient.
// Shapes: a tile is (vectors, kChunk) vectors of channels.
#pragma once

#include "cpu/common/scan_chunk.h"

namespace {

// Replaces every element of `tile` by `finish` of the sum over its group at its step. The channels of the block are
// whole groups.
template <typename S, typename Finish>
inline void reduce_groups(Vec<S>* tile, const Block<S>& block, int64_t group_size, int length, const Finish& finish) {
  constexpr int W = kLanes<S>;
  const int channels = static_cast<int>(block.end_channel - block.first_channel);
  if (channels == group_size) {
    // One group per block, as in the models: vectors are added first, and lanes once at the end. Lanes past the last
    // channel hold zeros, so they can join the sum.
    Vec<S> sums[kChunk];
    for (int t = 0; t < kChunk; ++t) {
      sums[t] = tile[t];
      for (int v = 1; v < block.vectors; ++v) sums[t] += tile[v * kChunk + t];
    }
    alignas(sizeof(Vec<S>)) S totals[kChunk];
    reduce_lanes<S, 1>(sums, 0, 1, length, totals);
    for (int t = 0; t < length; ++t) {
      const Vec<S> result = splat<S>(finish(totals[t]));
      for (int v = 0; v < block.vectors; ++v) tile[v * kChunk + t] = result;
    }
    return;
  }
  // Groups that do not coincide with vectors are summed element by element.
  S* elements = reinterpret_cast<S*>(tile);
  for (int t = 0; t < length; ++t) {
    const auto element = [&](int c) -> S& { return elements[(c / W * kChunk + t) * W + c % W]; };
    for (int first = 0; first < channels; first += static_cast<int>(group_size)) {
      S sum = 0;
      for (int c = first; c < first + group_size; ++c) sum += element(c);
      const S result = finish(sum);
      for (int c = first; c < first + group_size; ++c) element(c) = result;
    }
  }
}

// 1 / sqrt(mean square + eps) of a group, from its sum of squares.
template <typename S>
struct InverseRms {
  int64_t group_size;
  S eps;
  S operator()(S sum_of_squares) const { return 1 / std::sqrt(sum_of_squares / group_size + eps); }
};

}  // namespace
