// Sums over the groups of channels of a tile, for the group norm and its gradient.
#pragma once

#include "cpu/scan_chunk.h"

namespace {

// Replaces every element of `tile` (vectors, kChunk) by `finish` of the sum over its group at its step. The block's
// channels are whole groups.
template <typename S, typename Finish>
inline void reduce_groups(Vec<S>* tile, const Block<S>& block, int64_t group_size, int length, const Finish& finish) {
  constexpr int W = kLanes<S>;
  const int channels = static_cast<int>(block.end_channel - block.first_channel);
  if (channels == group_size) {
    // Lanes without a channel hold zeros and join the sum.
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

// Of a sum of squares.
template <typename S>
struct NormFactor {
  int64_t group_size;
  S eps;
  S operator()(S sum) const { return 1 / std::sqrt(sum / group_size + eps); }
};

}  // namespace
