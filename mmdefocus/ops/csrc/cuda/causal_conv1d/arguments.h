// Arguments of the kernels of the depthwise causal convolution.
// Shapes: B batch, L tokens, E channels, K kernel width, S strips of consecutive tokens. Activations have type T, all
// else is float32.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/causal_conv1d/limits.h"
#include "cuda/common/rows.h"

namespace mmdefocus::cuda {

// Tokens per thread. Longer strips read fewer tokens twice and leave fewer partial sums; shorter ones give more
// threads, which hide the latency of memory.
constexpr int kForwardStrip = 16;
constexpr int kBackwardStrip = 32;

template <typename T>
struct ConvInputs {
  int batch, length, channels, width;
  bool silu, aligned;
  Rows<const T> x;             // (B, L, E)
  const float *weight, *bias;  // (E, K), (E) or null; they begin at multiples of 16 bytes
};

template <typename T>
struct ConvGradients {
  Rows<const T> grad_y;    // (B, L, E)
  Rows<T> grad_x;          // (B, L, E)
  float* grad_parameters;  // (B, S, kMaxWidth + 1, E): partial sums for the taps, newest last, and for the bias
};

__host__ __device__ inline int64_t num_strips(int64_t length, int strip) { return (length + strip - 1) / strip; }

template <typename T>
cudaError_t launch_conv_forward(const ConvInputs<T>& inputs, const Rows<T>& y, cudaStream_t stream);
template <typename T>
cudaError_t launch_conv_backward(const ConvInputs<T>& inputs, const ConvGradients<T>& gradients, cudaStream_t stream);

}  // namespace mmdefocus::cuda
