// The work of one thread block of the De-focus scan, as far as its forward and backward pass have it in common.
//
// A thread block takes up to 64 channels of one sequence, or of one segment of it, some steps at a time. Its threads
// map to this work in two ways, with shared memory between them:
// - by rows: a thread has eight neighbouring channels of one step, in the order of global memory. Everything that is
//   computed per channel happens here: softplus, norm, gate, and all access to activations.
// - by states: a thread has four states of two channels in registers and goes through the steps with them. Everything
//   that is computed per state happens here: the recurrence and its reverse-mode sweep.
// Steps past the end of the sequence get delta = u = B = C = 0, which leaves the state unchanged, so the loops over
// steps have constant bounds.
// Shapes: B batch, L tokens, E channels, N state, M segments per sequence.
#pragma once

#include <cuda_runtime.h>

#include "cuda/common/activations.cuh"
#include "cuda/defocus_scan/arguments.h"
#include "cuda/common/device.cuh"
#include "cuda/common/warp_sums.cuh"
#include "cuda/common/pack.cuh"
#include "cuda/defocus_scan/tile.h"

namespace mmdefocus::cuda {

constexpr int kThreadChannels = 2;
constexpr int kThreadStates = 4;
constexpr int kPackChannels = 8;
constexpr int kRowPacks = kBlockChannels / kPackChannels;

template <typename T>
using RowPack = Pack<T, kPackChannels>;
using States = float[kThreadChannels][kThreadStates];

// By states, kStateLanes neighbouring lanes share two channels, and the warps of the block share its 64 channels.
template <int kStates>
struct Layout {
  static constexpr int kStateLanes = kStates / kThreadStates;
  static constexpr int kChannelLanes = 32 / kStateLanes;
  static constexpr int kWarps = kBlockChannels / (kChannelLanes * kThreadChannels);
  static constexpr int kThreads = 32 * kWarps;
};

// The channels and steps of this thread block.
struct Slice {
  int batch, segment, channel_block;
  int first_channel, channels;
  int begin, end;  // steps

  __device__ __forceinline__ explicit Slice(const Sizes& sizes) {
    channel_block = blockIdx.x % sizes.channel_blocks;
    const int sequence = blockIdx.x / sizes.channel_blocks;
    segment = sequence % sizes.segments;
    batch = sequence / sizes.segments;
    first_channel = channel_block * sizes.block_channels;
    channels = min(sizes.block_channels, sizes.channels - first_channel);
    begin = segment * sizes.segment_steps;
    end = min(begin + sizes.segment_steps, sizes.length);
  }

  // Offset of its first channel in part `part` of a contiguous (B, parts, E, width) tensor.
  __device__ __forceinline__ int64_t offset(const Sizes& sizes, int parts, int part, int width) const {
    return ((static_cast<int64_t>(batch) * parts + part) * sizes.channels + first_channel) * width;
  }
};

// By rows: the packs of a thread. All have the same channels, so a thread loads parameters once.
template <int kSteps, int kThreads>
struct RowMapping {
  static constexpr int kPacks = (kSteps * kRowPacks + kThreads - 1) / kThreads;

  __device__ static __forceinline__ int channel() { return threadIdx.x % kRowPacks * kPackChannels; }
  __device__ static __forceinline__ int position() { return row_position(channel()); }
  __device__ static __forceinline__ int step(int pack) { return (threadIdx.x + pack * kThreads) / kRowPacks; }
};

// By states: the first channel and state of a thread, and the position of that channel in the rows of tiles.
template <int kStates>
struct StateMapping {
  int channel, position, state;

  __device__ __forceinline__ StateMapping() {
    constexpr int kLanes = Layout<kStates>::kStateLanes;
    channel = threadIdx.x / kLanes * kThreadChannels;
    position = row_position(channel);
    state = threadIdx.x % kLanes * kThreadStates;
  }
};

// Loads of 8 and 16 bytes: fewer instructions than single floats, and the hardware serves a quarter of a warp at a
// time, for which neighbouring addresses mean no bank conflict.
template <int kCount>
__device__ __forceinline__ void load_floats(float (&out)[kCount], const float* from) {
  if constexpr (kCount == 2) {
    const float2 two = *reinterpret_cast<const float2*>(from);
    out[0] = two.x;
    out[1] = two.y;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      out[i] = four.x;
      out[i + 1] = four.y;
      out[i + 2] = four.z;
      out[i + 3] = four.w;
    }
  }
}

template <int kCount>
__device__ __forceinline__ void store_floats(float* to, const float (&in)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    *reinterpret_cast<float4*>(to + i) = make_float4(in[i], in[i + 1], in[i + 2], in[i + 3]);
  }
}

// Loads the states of a thread from `slab` (E, N), which points at the first channel of the thread block; null means
// zeros. States from N on and channels past the last are zero: they stay zero and add nothing to any sum.
template <int kStates>
__device__ __forceinline__ void load_states(States& out, const float* slab, const StateMapping<kStates>& mapping,
                                            int channels, int states) {
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
    const bool present = slab != nullptr && mapping.channel + c < channels;
    const float* from = slab + (mapping.channel + c) * states + mapping.state;
    if (present && states % kThreadStates == 0 && mapping.state < states) {
      load_floats(out[c], from);
    } else {
#pragma unroll
      for (int s = 0; s < kThreadStates; ++s) out[c][s] = present && mapping.state + s < states ? from[s] : 0.0f;
    }
  }
}

template <int kStates>
__device__ __forceinline__ void store_states(float* slab, const States& in, const StateMapping<kStates>& mapping,
                                             int channels, int states) {
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
    if (mapping.channel + c >= channels) continue;
    float* to = slab + (mapping.channel + c) * states + mapping.state;
    if (states % kThreadStates == 0 && mapping.state < states) {
      store_floats(to, in[c]);
    } else {
#pragma unroll
      for (int s = 0; s < kThreadStates; ++s) {
        if (mapping.state + s < states) to[s] = in[c][s];
      }
    }
  }
}

// Decay rates A log2(e): the decay of a step is then exp2(rate * delta), one multiplication and one ex2 instruction.
template <int kStates>
__device__ __forceinline__ void load_rates(States& rates, const float* A, const Slice& slice,
                                           const StateMapping<kStates>& mapping, int states) {
  load_states(rates, A + static_cast<int64_t>(slice.first_channel) * states, mapping, slice.channels, states);
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
    for (int s = 0; s < kThreadStates; ++s) rates[c][s] *= kLog2E;
  }
}

// By rows: activations, with zeros past the end of the segment.
template <typename Mapping, typename T, int kPacks>
__device__ __forceinline__ void load_rows(RowPack<T> (&out)[kPacks], const Rows<const T>& rows, const Slice& slice,
                                          int first_step, bool aligned) {
  const int channel = slice.first_channel + Mapping::channel();
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int t = first_step + Mapping::step(p);
    const int count = t < slice.end ? slice.channels - Mapping::channel() : 0;
    out[p] = load_pack<kPackChannels>(rows.at(slice.batch, t, channel), count, aligned);
  }
}

// By rows: delta = softplus(dt + bias) / delta_scale, and the drive of the states, delta u.
template <typename Mapping, typename T, int kPacks, int kSteps>
__device__ __forceinline__ void compute_drives(Tile<kSteps>& delta, Tile<kSteps>& drive, const RowPack<T> (&u)[kPacks],
                                               const RowPack<T> (&dt)[kPacks], const float* dt_bias, const Slice& slice,
                                               int first_step, const Sizes& sizes) {
  const RowPack<float> bias = load_pack<kPackChannels>(dt_bias + slice.first_channel + Mapping::channel(),
                                                       slice.channels - Mapping::channel(), sizes.aligned);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int step = Mapping::step(p);
    if (step >= kSteps) continue;
    const bool present = first_step + step < slice.end;
    float deltas[kPackChannels], drives[kPackChannels];
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) {
      deltas[i] = present ? softplus(dt[p][i] + bias[i]) * sizes.inverse_delta_scale : 0.0f;
      drives[i] = deltas[i] * u[p][i];
    }
    store_floats(&delta[step][Mapping::position()], deltas);
    store_floats(&drive[step][Mapping::position()], drives);
  }
}

// B and C after the rotation, with zeros past the end of the segment.
template <int kStates, int kSteps>
__device__ __forceinline__ void load_projections(float (&out)[kSteps][2 * kStates], const float* rotated,
                                                 const Slice& slice, int first_step, const Sizes& sizes) {
  const int64_t row = static_cast<int64_t>(slice.batch) * sizes.length + first_step;
  for (int i = 4 * threadIdx.x; i < kSteps * 2 * kStates; i += 4 * Layout<kStates>::kThreads) {
    float four[4] = {};
    if (first_step + i / (2 * kStates) < slice.end) load_floats(four, rotated + row * 2 * kStates + i);
    store_floats(&out[0][0] + i, four);
  }
}

// By states: one step of the recurrence.
__device__ __forceinline__ void step_states(States& h, const States& rates, const float (&delta)[kThreadChannels],
                                            const float (&drive)[kThreadChannels], const float (&B)[kThreadStates]) {
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
    for (int s = 0; s < kThreadStates; ++s) {
      h[c][s] = exp2_approx(delta[c] * rates[c][s]) * h[c][s] + drive[c] * B[s];
    }
  }
}

// By states: kCount steps from `first` on. `y` may alias `drive`: a warp reads the drives of its channels before it
// writes y there, and no other warp touches these channels.
//
// y is a sum over states, hence over kStateLanes lanes. The sums of kBatchedSteps steps are reduced together, so that
// every lane ends up with one total: fewer shuffles than one reduction per step and channel.
template <int kCount, int kStates, int kSteps>
__device__ __forceinline__ void scan_steps(States& h, const States& rates, int first, const Tile<kSteps>& delta,
                                           const Tile<kSteps>& drive, Tile<kSteps>& y,
                                           const float (&rotated)[kSteps][2 * kStates],
                                           const StateMapping<kStates>& mapping) {
  constexpr int kLanes = Layout<kStates>::kStateLanes;
  constexpr int kBatchedSteps = kLanes / kThreadChannels;
  static_assert(kCount % kBatchedSteps == 0);
#pragma unroll(4 / kBatchedSteps)
  for (int begin = first; begin < first + kCount; begin += kBatchedSteps) {
    float sums[kLanes];
#pragma unroll
    for (int k = 0; k < kBatchedSteps; ++k) {
      const int step = begin + k;
      float deltas[kThreadChannels], drives[kThreadChannels], B[kThreadStates], C[kThreadStates];
      load_floats(deltas, &delta[step][mapping.position]);
      load_floats(drives, &drive[step][mapping.position]);
      load_floats(B, &rotated[step][mapping.state]);
      load_floats(C, &rotated[step][kStates + mapping.state]);
      step_states(h, rates, deltas, drives, B);
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
        float sum = 0.0f;
#pragma unroll
        for (int s = 0; s < kThreadStates; ++s) sum += C[s] * h[c][s];
        sums[k * kThreadChannels + c] = sum;
      }
    }
    reduce_scatter<kLanes, 1>(sums, threadIdx.x);
    const int k = threadIdx.x % kLanes;
    __syncwarp();  // all lanes have read the drives that y overwrites
    y[begin + k / kThreadChannels][mapping.position + k % kThreadChannels] = sums[0];
  }
}

// By rows, for groups of 2^group_shift channels: the sum over the lanes whose packs belong to the same group.
__device__ __forceinline__ float sum_over_group(float value, int group_shift) {
#pragma unroll
  for (int stride = 1; stride < kRowPacks; stride *= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, stride);
    if (stride * kPackChannels < 1 << group_shift) value += other;
  }
  return value;
}

// By rows: copies the value of each group to those of the eight channels that belong to it.
__device__ __forceinline__ void broadcast_groups(float (&out)[kPackChannels], const float (&of_groups)[kBlockGroups],
                                                 int first_channel, int group_size) {
  if (group_size % kPackChannels == 0) {
    const float value = of_groups[first_channel / group_size];
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) out[i] = value;
  } else {
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) out[i] = of_groups[(first_channel + i) / group_size];
  }
}

// By states: the local states of the segment and the sum of delta over its steps.
template <int kStates>
__device__ __forceinline__ void store_local_states(const LocalStates& out, const States& states,
                                                   const float (&total_delta)[kThreadChannels], const Slice& slice,
                                                   const StateMapping<kStates>& mapping, const Sizes& sizes) {
  const int64_t slab = slice.offset(sizes, sizes.segments, slice.segment, sizes.state);
  store_states(out.states + slab, states, mapping, slice.channels, sizes.state);
  float* to = out.total_delta + slice.offset(sizes, sizes.segments, slice.segment, 1) + mapping.channel;
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
    if (mapping.state == 0 && mapping.channel + c < slice.channels) to[c] = total_delta[c];
  }
}

inline int64_t thread_blocks(const Sizes& sizes) {
  return static_cast<int64_t>(sizes.batch) * sizes.segments * sizes.channel_blocks;
}

}  // namespace mmdefocus::cuda
