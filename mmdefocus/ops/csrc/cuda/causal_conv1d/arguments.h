// Arguments of the kernels of the depthwise causal convolution.
// Legend: B batch, L tokens, E channels, K width, S strips of consecutive tokens. All but activations is float32.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/causal_conv1d/limits.h"
#include "cuda/common/rows.h"

namespace mmdefocus::cuda {

// Tokens that a thread takes. Longer strips read fewer tokens twice, and leave fewer partial sums; shorter ones keep
// more threads busy.
constexpr int kForwardStrip = 16;
constexpr int kBackwardStrip = 32;

template <typename T>
struct ConvInputs {
  int batch, length, channels, width;
  bool silu, aligned;
  Rows<const T> x;
  const float *weight, *bias;  // (E, K), (E) or null
};

template <typename T>
struct ConvGradients {
  Rows<const T> y;  // incoming
  Rows<T> x;
  float* parameters;  // (B, S, kMaxWidth + 1, E): of the taps, the newest last, and of the bias; partial sums
};

__host__ __device__ inline int64_t strip_count(int64_t length, int strip) { return (length + strip - 1) / strip; }

template <typename T>
cudaError_t launch_conv_forward(const ConvInputs<T>& inputs, const Rows<T>& y, cudaStream_t stream);
template <typename T>
cudaError_t launch_conv_backward(const ConvInputs<T>& inputs, const ConvGradients<T>& gradients, cudaStream_t stream);

}  // namespace mmdefocus::cuda
