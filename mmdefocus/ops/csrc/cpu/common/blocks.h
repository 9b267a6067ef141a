// Division of a scan on CPU: chunks of time, blocks of channels, and segments of time.
//
// - A chunk is the unit of recomputation. The forward pass saves the state before every chunk, and the backward pass
//   recomputes the states of one chunk at a time, so that they fit in cache.
// - A block of channels of one sequence is the unit of parallel work.
// - Segments, of whole chunks, add parallelism where there are fewer blocks than threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/segments.h"

namespace mmdefocus::cpu {

// Steps of a chunk. Longer chunks save fewer states; at this length and N = 16, the states and decays of one vector
// of channels take 65 KiB with AVX-512, and those of a block of 64 channels fit in an L2 cache of 512 KiB.
constexpr int kChunk = 32;

// Steps of the shortest segment: below it, the second pass over the sequence outweighs the parallelism.
constexpr int kMinSegmentSteps = 8 * kChunk;

constexpr int64_t num_chunks(int64_t length) { return ceil_div(length, kChunk); }

// Blocks of channels of all sequences. Their size does not depend on the number of threads, so for a sequence that is
// not cut into segments neither do the partial sums, and the results are reproducible bit for bit.
struct ChannelBlocks {
  int64_t channels, block_channels, per_sequence, count;

  ChannelBlocks(int64_t batch, int64_t channels_, int64_t block_channels_)
      : channels(channels_), block_channels(block_channels_), per_sequence(ceil_div(channels_, block_channels_)),
        count(batch * per_sequence) {}
};

// Division of every sequence into `count` segments of `steps` steps; the last segment may be shorter.
struct Segmentation {
  int64_t steps, count;

  Segmentation(int64_t length, int64_t blocks, int64_t threads)
      : steps(cpu_segment_steps(length, blocks, threads, kChunk, kMinSegmentSteps)), count(ceil_div(length, steps)) {}
};

}  // namespace mmdefocus::cpu
