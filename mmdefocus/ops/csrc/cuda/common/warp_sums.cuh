// Sums over the lanes of a warp.
#pragma once

#include <cuda_runtime.h>

namespace mmdefocus::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// Sums each of the values over kLanes lanes, those whose indices differ in the bits kStride, 2 kStride, …, and scatters
// the totals over these lanes: values[i] of lane k becomes the total of values[k + i kLanes]. With fewer values than
// lanes, lane k holds the total of values[k modulo kValues]. At every step, two lanes exchange one half of their values
// and each keeps summing the other half. This takes kValues - 1 shuffles; separate butterfly sums would take
// kValues log2(kLanes). The order of the additions is fixed, so results are reproducible bit for bit.
template <int kLanes, int kStride, int kValues>
__device__ __forceinline__ void reduce_scatter(float (&values)[kValues], int lane) {
  if constexpr (kLanes > 1) {
    if constexpr (kValues > 1) {
      // Selecting by value instead of by index keeps the array in registers.
      const bool odd = lane & kStride;
      float kept[kValues / 2];
#pragma unroll
      for (int i = 0; i < kValues / 2; ++i) {
        const float sent = odd ? values[2 * i] : values[2 * i + 1];
        kept[i] = (odd ? values[2 * i + 1] : values[2 * i]) + __shfl_xor_sync(kAllLanes, sent, kStride);
      }
      reduce_scatter<kLanes / 2, kStride * 2>(kept, lane);
#pragma unroll
      for (int i = 0; i < kValues / 2; ++i) values[i] = kept[i];
    } else {
      values[0] += __shfl_xor_sync(kAllLanes, values[0], kStride);
      reduce_scatter<kLanes / 2, kStride * 2>(values, lane);
    }
  }
}

// The sum over eight neighbouring lanes, returned to each of them (a butterfly).
__device__ __forceinline__ float sum_of_eight_lanes(float value) {
#pragma unroll
  for (int stride = 1; stride < 8; stride *= 2) value += __shfl_xor_sync(kAllLanes, value, stride);
  return value;
}

}  // namespace mmdefocus::cuda
