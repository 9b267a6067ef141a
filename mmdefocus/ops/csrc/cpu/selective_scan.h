// Arguments of the selective scan on CPU, shared by the host function and the kernels of every instruction set.
// Legend: B batch, E channels, L time, N state, G groups of channels that share B and C.
#pragma once

#include <cstdint>

namespace mmdefocus::cpu {

// A (B, E, L) tensor of any strides.
template <typename S>
struct Sequence {
  S* data;
  int64_t batch_stride, channel_stride, time_stride;

  S* at(int64_t b, int64_t e, int64_t t) const {
    return data + b * batch_stride + e * channel_stride + t * time_stride;
  }
};

// The projections B and C are (B, G, L, N) when they depend on the input and (N, E) when constant; all are contiguous.
template <typename S>
struct ScanInputs {
  int64_t batch, channels, length, groups, state;
  bool input_dependent_B, input_dependent_C;
  Sequence<const S> u, delta;
  const S* A;  // (N, E)
  const S* B;
  const S* C;
};

template <typename S>
struct ScanOutputs {
  Sequence<S> y;
  S* last_state;    // (B, N, E)
  S* chunk_states;  // (B, chunks, N, E): the state before the first step of every chunk
};

template <typename S>
struct ScanGradients {
  Sequence<const S> y;    // incoming
  const S* last_state;    // incoming, (B, N, E), or null
  const S* chunk_states;  // saved by the forward pass
  Sequence<S> u, delta;
  S* A;  // (B, N, E)
  S* B;  // input-dependent: (B, G, channel blocks of a group, L, N), one partial sum per block; constant: (B, N, E)
  S* C;  // as B
};

// Steps of a chunk. The backward pass keeps the states of one chunk in cache and of no more.
constexpr int kChunk = 32;

inline int64_t chunks(int64_t length) { return (length + kChunk - 1) / kChunk; }

// Channel blocks are the unit of parallel work. A block never crosses a group, so that its partial gradients of B and C
// belong to one group.
struct Blocks {
  int64_t channels_per_group, channels_per_block, per_group, count;

  Blocks(int64_t batch, int64_t channels, int64_t groups, int64_t channels_per_block_)
      : channels_per_group(channels / groups), channels_per_block(channels_per_block_),
        per_group((channels_per_group + channels_per_block - 1) / channels_per_block),
        count(batch * groups * per_group) {}
};

// Work on the blocks begin..end.
template <typename S>
struct ScanKernels {
  void (*forward)(const ScanInputs<S>&, const ScanOutputs<S>&, const Blocks&, int64_t begin, int64_t end);
  void (*backward)(const ScanInputs<S>&, const ScanGradients<S>&, const Blocks&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
