// How a thread block of the De-focus scan divides its work, and what its forward and backward pass share.
//
// A thread block takes up to 64 channels of one sequence, or of one segment of it, some steps at a time. It sees them
// in two ways. By rows, as memory has them, a thread takes eight neighbouring channels of one step: here happens what
// goes channel by channel. By states, a thread takes four states of two channels and goes through all steps with them.
// Steps after the end of the sequence get delta = u = B = C = 0, which leaves the state as it is.
#pragma once

#include <cuda_runtime.h>

#include "cuda/common/activations.cuh"
#include "cuda/defocus_scan/arguments.h"
#include "cuda/common/device.cuh"
#include "cuda/common/warp_sums.cuh"
#include "cuda/common/pack.cuh"

namespace mmdefocus::cuda {

constexpr int kThreadChannels = 2;
constexpr int kThreadStates = 4;
constexpr int kPackChannels = 8;
constexpr int kRowPacks = kBlockChannels / kPackChannels;
// Eight floats more than there are channels: lanes that read four neighbouring steps meet no bank twice.
constexpr int kRowFloats = kBlockChannels + 8;

template <typename T>
using RowPack = Pack<T, kPackChannels>;
template <int kSteps>
using Tile = float[kSteps][kRowFloats];
using States = float[kThreadChannels][kThreadStates];

template <int kStates>
struct Layout {
  static constexpr int kStateLanes = kStates / kThreadStates;
  static constexpr int kChannelLanes = 32 / kStateLanes;
  static constexpr int kWarps = kBlockChannels / (kChannelLanes * kThreadChannels);
  static constexpr int kThreads = 32 * kWarps;
};

// The part of the work that belongs to this thread block.
struct Share {
  int batch, segment, channel_block;
  int first_channel, channels;
  int begin, end;  // steps

  __device__ __forceinline__ explicit Share(const Sizes& sizes) {
    channel_block = blockIdx.x % sizes.channel_blocks;
    const int sequence = blockIdx.x / sizes.channel_blocks;
    segment = sequence % sizes.segments;
    batch = sequence / sizes.segments;
    first_channel = channel_block * sizes.block_channels;
    channels = min(sizes.block_channels, sizes.channels - first_channel);
    begin = segment * sizes.segment_steps;
    end = min(begin + sizes.segment_steps, sizes.length);
  }

  // Where its channels begin in a (B, parts, E, width) tensor.
  __device__ __forceinline__ int64_t offset(const Sizes& sizes, int parts, int part, int width) const {
    return ((static_cast<int64_t>(batch) * parts + part) * sizes.channels + first_channel) * width;
  }
};

// A thread's packs by rows; all have the same channels.
template <int kSteps, int kThreads>
struct ByRows {
  static constexpr int kPacks = (kSteps * kRowPacks + kThreads - 1) / kThreads;

  __device__ static __forceinline__ int channel() { return threadIdx.x % kRowPacks * kPackChannels; }
  __device__ static __forceinline__ int step(int pack) { return (threadIdx.x + pack * kThreads) / kRowPacks; }
};

// A thread's first channel and state by states; neighbouring lanes share the channels.
template <int kStates>
struct ByStates {
  int channel, state;

  __device__ __forceinline__ ByStates() {
    constexpr int kLanes = Layout<kStates>::kStateLanes;
    channel = threadIdx.x / kLanes * kThreadChannels;
    state = threadIdx.x % kLanes * kThreadStates;
  }
};

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

// `slab` (channels, N) begins with the first channel of the thread block; null stands for zeros. What lies outside of
// it is zero too, which is neutral.
template <int kStates>
__device__ __forceinline__ void load_states(States& out, const float* slab, const ByStates<kStates>& place,
                                            int channels, int states) {
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
    const bool present = slab != nullptr && place.channel + c < channels;
    const float* from = slab + (place.channel + c) * states + place.state;
    if (present && states % kThreadStates == 0 && place.state < states) {
      load_floats(out[c], from);
    } else {
#pragma unroll
      for (int s = 0; s < kThreadStates; ++s) out[c][s] = present && place.state + s < states ? from[s] : 0.0f;
    }
  }
}

template <int kStates>
__device__ __forceinline__ void store_states(float* slab, const States& in, const ByStates<kStates>& place,
                                             int channels, int states) {
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
    if (place.channel + c >= channels) continue;
    float* to = slab + (place.channel + c) * states + place.state;
    if (states % kThreadStates == 0 && place.state < states) {
      store_floats(to, in[c]);
    } else {
#pragma unroll
      for (int s = 0; s < kThreadStates; ++s) {
        if (place.state + s < states) to[s] = in[c][s];
      }
    }
  }
}

// A log2(e), so that the decay of a step is 2 to the power of it times delta.
template <int kStates>
__device__ __forceinline__ void load_rates(States& rates, const float* A, const Share& share,
                                           const ByStates<kStates>& place, int states) {
  load_states(rates, A + static_cast<int64_t>(share.first_channel) * states, place, share.channels, states);
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
    for (int s = 0; s < kThreadStates; ++s) rates[c][s] *= kLog2E;
  }
}

// By rows: zeros after the end of the segment.
template <typename Place, typename T, int kPacks>
__device__ __forceinline__ void load_rows(RowPack<T> (&out)[kPacks], const Rows<const T>& rows, const Share& share,
                                          int first_step, bool aligned) {
  const int channel = share.first_channel + Place::channel();
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int t = first_step + Place::step(p);
    const int count = t < share.end ? share.channels - Place::channel() : 0;
    out[p] = load_pack<kPackChannels>(rows.at(share.batch, t, channel), count, aligned);
  }
}

// By rows: delta and what drives the states, delta u.
template <typename Place, typename T, int kPacks, int kSteps>
__device__ __forceinline__ void fill_drives(Tile<kSteps>& delta, Tile<kSteps>& drive, const RowPack<T> (&u)[kPacks],
                                            const RowPack<T> (&dt)[kPacks], const float* dt_bias, const Share& share,
                                            int first_step, const Sizes& sizes) {
  const RowPack<float> bias = load_pack<kPackChannels>(dt_bias + share.first_channel + Place::channel(),
                                                       share.channels - Place::channel(), sizes.aligned);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int step = Place::step(p);
    if (step >= kSteps) continue;
    const bool present = first_step + step < share.end;
    float deltas[kPackChannels], drives[kPackChannels];
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) {
      deltas[i] = present ? softplus(dt[p][i] + bias[i]) * sizes.delta_factor : 0.0f;
      drives[i] = deltas[i] * u[p][i];
    }
    store_floats(&delta[step][Place::channel()], deltas);
    store_floats(&drive[step][Place::channel()], drives);
  }
}

// B and C after the rotation: zeros after the end of the segment.
template <int kStates, int kSteps>
__device__ __forceinline__ void load_projections(float (&out)[kSteps][2 * kStates], const float* rotated,
                                                 const Share& share, int first_step, const Sizes& sizes) {
  const int64_t row = static_cast<int64_t>(share.batch) * sizes.length + first_step;
  for (int i = 4 * threadIdx.x; i < kSteps * 2 * kStates; i += 4 * Layout<kStates>::kThreads) {
    float four[4] = {};
    if (first_step + i / (2 * kStates) < share.end) load_floats(four, rotated + row * 2 * kStates + i);
    store_floats(&out[0][0] + i, four);
  }
}

// By states: one step of the recurrence.
__device__ __forceinline__ void advance(States& h, const States& rates, const float (&delta)[kThreadChannels],
                                        const float (&drive)[kThreadChannels], const float (&B)[kThreadStates]) {
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
    for (int s = 0; s < kThreadStates; ++s) {
      h[c][s] = exp2_approx(delta[c] * rates[c][s]) * h[c][s] + drive[c] * B[s];
    }
  }
}

// By states: kCount steps from `first` on. `y` may be the drive itself.
template <int kCount, int kStates, int kSteps>
__device__ __forceinline__ void scan_steps(States& h, const States& rates, int first, const Tile<kSteps>& delta,
                                           const Tile<kSteps>& drive, Tile<kSteps>& y,
                                           const float (&rotated)[kSteps][2 * kStates],
                                           const ByStates<kStates>& place) {
  constexpr int kLanes = Layout<kStates>::kStateLanes;
  constexpr int kTogether = kLanes / kThreadChannels;  // steps whose y are summed at once, one per lane
  static_assert(kCount % kTogether == 0);
#pragma unroll(4 / kTogether)
  for (int begin = first; begin < first + kCount; begin += kTogether) {
    float sums[kLanes];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int step = begin + k;
      float deltas[kThreadChannels], drives[kThreadChannels], B[kThreadStates], C[kThreadStates];
      load_floats(deltas, &delta[step][place.channel]);
      load_floats(drives, &drive[step][place.channel]);
      load_floats(B, &rotated[step][place.state]);
      load_floats(C, &rotated[step][kStates + place.state]);
      advance(h, rates, deltas, drives, B);
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
    __syncwarp();  // all lanes have read the drives
    y[begin + k / kThreadChannels][place.channel + k % kThreadChannels] = sums[0];
  }
}

// The values of the groups to which eight channels belong.
__device__ __forceinline__ void spread_groups(float (&out)[kPackChannels], const float (&of_groups)[kBlockGroups],
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

template <int kStates>
__device__ __forceinline__ void store_summary(const SegmentSummaries& out, const States& states,
                                              const float (&deltas)[kThreadChannels], const Share& share,
                                              const ByStates<kStates>& place, const Sizes& sizes) {
  const int64_t slab = share.offset(sizes, sizes.segments, share.segment, sizes.state);
  store_states(out.states + slab, states, place, share.channels, sizes.state);
  float* to = out.deltas + share.offset(sizes, sizes.segments, share.segment, 1) + place.channel;
#pragma unroll
  for (int c = 0; c < kThreadChannels; ++c) {
    if (place.state == 0 && place.channel + c < share.channels) to[c] = deltas[c];
  }
}

inline int64_t blocks(const Sizes& sizes) {
  return static_cast<int64_t>(sizes.batch) * sizes.segments * sizes.channel_blocks;
}

}  // namespace mmdefocus::cuda
