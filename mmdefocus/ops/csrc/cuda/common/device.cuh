// What only a GPU has: its special functions, and memory that the threads of a block share.
#pragma once

#include <cuda_runtime.h>

namespace mmdefocus::cuda {

// 2^x to 2 ulp; results below the smallest normal number are 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The dynamic shared memory of the kernel, as the type whose size it was launched with.
template <typename S>
__device__ __forceinline__ S& shared_memory() {
  extern __shared__ float4 memory[];
  return *reinterpret_cast<S*>(memory);
}

}  // namespace mmdefocus::cuda
