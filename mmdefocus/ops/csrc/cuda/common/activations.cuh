// Activation functions in float32, by the approximate instructions of the special function unit: their error of a few
// ulp is below the rounding of half types, and the exact functions of the CUDA library take several times as long.
#pragma once

#include "cuda/common/device.cuh"

namespace mmdefocus::cuda {

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

__device__ __forceinline__ float exp_approx(float x) { return exp2_approx(x * kLog2E); }

// log(1 + exp(x)) = max(x, 0) + log(1 + e) with e = exp(-|x|), which cannot overflow. The minimax polynomial of degree
// 8 for log(1 + e) / e on [0, 1] has an error of 3e-8 and, unlike log1pf, no branches that diverge within a warp.
__device__ __forceinline__ float softplus(float x) {
  const float e = exp_approx(-fabsf(x));
  float quotient = 5.232690834e-3f;
  quotient = quotient * e - 2.950522862e-2f;
  quotient = quotient * e + 7.822594792e-2f;
  quotient = quotient * e - 1.366324574e-1f;
  quotient = quotient * e + 1.910600811e-1f;
  quotient = quotient * e - 2.484298199e-1f;
  quotient = quotient * e + 3.331909776e-1f;
  quotient = quotient * e - 4.999949336e-1f;
  quotient = quotient * e + 9.999999404e-1f;
  return (x > 0.0f ? x : 0.0f) + e * quotient;
}

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + exp_approx(-x)); }

__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

__device__ __forceinline__ float silu_derivative(float x) {
  const float gate = sigmoid(x);
  return gate * (1.0f + x * (1.0f - gate));
}

}  // namespace mmdefocus::cuda
