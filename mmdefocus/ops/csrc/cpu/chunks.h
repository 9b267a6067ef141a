// How a scan is cut: into chunks of time, whose first states the forward pass saves, into blocks of channels, and,
// where these are fewer than the threads, into segments of time.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mmdefocus::cpu {

// Steps of a chunk. The backward pass keeps the states of one chunk in cache and of no more.
constexpr int kChunk = 32;

constexpr int64_t chunks(int64_t length) { return (length + kChunk - 1) / kChunk; }

// Blocks of channels of one image are the unit of parallel work. They do not depend on the number of threads, so
// neither do the results, without segments. A block never crosses a group of channels, so that its partial gradients of
// B and C belong to one group.
struct Blocks {
  int64_t groups, channels_per_group, channels_per_block, per_group, count;

  Blocks(int64_t batch, int64_t channels, int64_t groups_, int64_t channels_per_block_)
      : groups(groups_), channels_per_group(channels / groups_), channels_per_block(channels_per_block_),
        per_group((channels_per_group + channels_per_block - 1) / channels_per_block),
        count(batch * groups * per_group) {}
};

// Segments of a sequence, of whole chunks. They can be scanned at the same time once it is known how each begins, which
// takes a first pass over them all. So there is only one where three or more would not find threads.
struct Segments {
  static constexpr int64_t kShortest = 8 * kChunk, kFewest = 3;
  int64_t count = 1, length;

  Segments(int64_t steps, int64_t blocks, int64_t threads) : length(steps) {
    const int64_t wanted = std::min(threads / std::max<int64_t>(1, blocks), steps / kShortest);
    if (wanted >= kFewest) {
      length = (chunks(steps) + wanted - 1) / wanted * kChunk;
      count = (steps + length - 1) / length;
    }
  }
};

}  // namespace mmdefocus::cpu
