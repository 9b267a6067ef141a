// Activation functions in float32.
#pragma once

#include "cuda/device.cuh"

namespace mmdefocus::cuda {

__device__ __forceinline__ float exp_approx(float x) { return exp2_approx(x * kLog2E); }

// As in torch, the identity above 20.
__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(exp_approx(x)); }

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + exp_approx(-x)); }

__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

__device__ __forceinline__ float silu_slope(float x) {
  const float gate = sigmoid(x);
  return gate * (1.0f + x * (1.0f - gate));
}

}  // namespace mmdefocus::cuda
