// How a scan is cut: into chunks of time, whose first states the forward pass saves, and into blocks of channels.
#pragma once

#include <cstdint>

namespace mmdefocus::cpu {

// Steps of a chunk. The backward pass keeps the states of one chunk in cache and of no more.
constexpr int kChunk = 32;

constexpr int64_t chunks(int64_t length) { return (length + kChunk - 1) / kChunk; }

// Blocks of channels of one image are the unit of parallel work. They do not depend on the number of threads, so
// neither do the results. A block never crosses a group of channels, so that its partial gradients of B and C belong to
// one group.
struct Blocks {
  int64_t groups, channels_per_group, channels_per_block, per_group, count;

  Blocks(int64_t batch, int64_t channels, int64_t groups_, int64_t channels_per_block_)
      : groups(groups_), channels_per_group(channels / groups_), channels_per_block(channels_per_block_),
        per_group((channels_per_group + channels_per_block - 1) / channels_per_block),
        count(batch * groups * per_group) {}
};

}  // namespace mmdefocus::cpu
