// The rotation of B and C before the De-focus scan, and its gradient.
//
// Every thread block of the scan needs the same rotated rows, so they are computed once here instead of once per block.
// A thread takes one pair of states of one row, in both projections, and evaluates its sine and cosine once for both.
// Shapes: B batch, L tokens, N state, P state padded to 16 or 32, `blocks` blocks of channels.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cuda/defocus_scan/arguments.h"
#include "cuda/common/device.cuh"
#include "cuda/common/launch.cuh"

namespace mmdefocus::cuda {

namespace {

template <int kStates>
struct Pair {
  int64_t row;
  int batch, t, first;  // row = batch * L + t; the pair is the states `first` and `first` + 1

  template <typename T>
  __device__ explicit Pair(const Projections<T>& projections) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kRotaryThreads + threadIdx.x;
    row = index / (kStates / 2);
    batch = static_cast<int>(row / projections.sizes.length);
    t = static_cast<int>(row % projections.sizes.length);
    first = static_cast<int>(index % (kStates / 2)) * 2;
  }
};

struct Phases {
  float cos[2] = {1.0f, 1.0f}, sin[2] = {};
};

template <typename T, int kStates>
__device__ Phases phases_of(const Projections<T>& projections, const Pair<kStates>& pair) {
  Phases phases;
  if (projections.freq != nullptr) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (pair.first + i >= projections.sizes.state) continue;
      // The exact function: the hardware approximation is accurate in [-pi, pi] only, and phases grow with positions.
      sincosf(projections.positions[pair.t] * projections.freq[pair.first + i], &phases.sin[i], &phases.cos[i]);
    }
  }
  return phases;
}

// The pair before the rotation, zero from N on.
template <typename T, int kStates>
__device__ float2 load_pair(const T* from, const int64_t (&strides)[3], const Pair<kStates>& pair, int states) {
  const T* at = from + pair.batch * strides[0] + pair.t * strides[1] + pair.first * strides[2];
  return make_float2(pair.first < states ? static_cast<float>(at[0]) : 0.0f,
                     pair.first + 1 < states ? static_cast<float>(at[strides[2]]) : 0.0f);
}

template <typename T, int kStates>
__global__ void rotate_kernel(const Projections<T> projections, float* rotated) {
  const Pair<kStates> pair(projections);
  if (pair.batch >= projections.sizes.batch) return;
  const Phases phases = phases_of(projections, pair);
  const float2 B = load_pair(projections.B, projections.B_strides, pair, projections.sizes.state);
  const float2 C = load_pair(projections.C, projections.C_strides, pair, projections.sizes.state);
  float* to = rotated + pair.row * 2 * kStates + pair.first;
  const auto rotate = [&](const float2& x) {
    return make_float2(x.x * phases.cos[0] - x.y * phases.sin[0], x.y * phases.cos[1] + x.x * phases.sin[1]);
  };
  *reinterpret_cast<float2*>(to) = rotate(B);
  *reinterpret_cast<float2*>(to + kStates) = rotate(C);
}

template <typename T, int kStates>
__global__ void rotate_backward_kernel(const Projections<T> projections, const RotaryGradients<T> gradients) {
  auto& thread_sums = shared_memory<float2[kRotaryThreads]>();
  const Pair<kStates> pair(projections);
  float2 sum = make_float2(0.0f, 0.0f);
  if (pair.batch < projections.sizes.batch) {
    const Phases phases = phases_of(projections, pair);
    const auto rotate_back = [&](const T* from, const int64_t (&strides)[3], int column, T* to) {
      float2 gradient = make_float2(0.0f, 0.0f);
      for (int block = 0; block < projections.sizes.channel_blocks; ++block) {
        const int64_t index = (pair.row * projections.sizes.channel_blocks + block) * 2 * kStates + column + pair.first;
        const float2 part = *reinterpret_cast<const float2*>(gradients.grad_rotated + index);
        gradient.x += part.x;
        gradient.y += part.y;
      }
      T* at = to + pair.row * projections.sizes.state + pair.first;
      if (pair.first < projections.sizes.state) {
        at[0] = static_cast<T>(gradient.x * phases.cos[0] + gradient.y * phases.sin[1]);
      }
      if (pair.first + 1 < projections.sizes.state) {
        at[1] = static_cast<T>(gradient.y * phases.cos[1] - gradient.x * phases.sin[0]);
      }
      const float2 x = load_pair(from, strides, pair, projections.sizes.state);
      sum.x -= gradient.x * (x.x * phases.sin[0] + x.y * phases.cos[0]);
      sum.y += gradient.y * (x.x * phases.cos[1] - x.y * phases.sin[1]);
    };
    rotate_back(projections.B, projections.B_strides, 0, gradients.grad_B);
    rotate_back(projections.C, projections.C_strides, kStates, gradients.grad_C);
    if (projections.freq != nullptr) {
      sum.x *= projections.positions[pair.t];
      sum.y *= projections.positions[pair.t];
    }
  }
  // Partial sums of grad_freq per thread block; the host adds them up. Atomics would make the order, and with it the
  // last bits, depend on the schedule. All threads reach the barrier: none of them returns before it on its own.
  if (projections.freq == nullptr) return;
  thread_sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= projections.sizes.state) return;
  float total = 0.0f;
  for (int i = threadIdx.x / 2; i < kRotaryThreads; i += kStates / 2) {
    total += threadIdx.x % 2 == 0 ? thread_sums[i].x : thread_sums[i].y;
  }
  gradients.grad_freq[static_cast<int64_t>(blockIdx.x) * projections.sizes.state + threadIdx.x] = total;
}

}  // namespace

template <typename T>
cudaError_t launch_rotate(const Projections<T>& projections, float* rotated, cudaStream_t stream) {
  const auto kernel = padded_state(projections.sizes.state) == 16 ? rotate_kernel<T, 16> : rotate_kernel<T, 32>;
  return launch(kernel, rotary_blocks(projections.sizes), kRotaryThreads, 0, stream, projections, rotated);
}

template <typename T>
cudaError_t launch_rotate_backward(const Projections<T>& projections, const RotaryGradients<T>& gradients,
                                   cudaStream_t stream) {
  const auto kernel =
      padded_state(projections.sizes.state) == 16 ? rotate_backward_kernel<T, 16> : rotate_backward_kernel<T, 32>;
  return launch(kernel, rotary_blocks(projections.sizes), kRotaryThreads, kRotaryThreads * sizeof(float2), stream,
                projections, gradients);
}

#define INSTANTIATE(T)                                                                \
  template cudaError_t launch_rotate<T>(const Projections<T>&, float*, cudaStream_t); \
  template cudaError_t launch_rotate_backward<T>(const Projections<T>&, const RotaryGradients<T>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(c10::Half)
INSTANTIATE(c10::BFloat16)
#undef INSTANTIATE

}  // namespace mmdefocus::cuda
