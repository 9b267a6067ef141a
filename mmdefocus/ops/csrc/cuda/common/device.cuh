// Instructions and memory that exist on a GPU only. The emulation in the tests replaces this header.
#pragma once

#include <cuda_runtime.h>

namespace mmdefocus::cuda {

// 2^x to 2 ulp, in one instruction; results below the smallest normal number are 0 (ftz), since subnormal support would
// add a comparison and two multiplications to every exponential.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The dynamic shared memory of the kernel, as the struct whose size it is launched with. Static shared memory is
// limited to 48 KiB. float4 gives the alignment that vector loads need.
template <typename S>
__device__ __forceinline__ S& shared_memory() {
  extern __shared__ float4 memory[];
  return *reinterpret_cast<S*>(memory);
}

}  // namespace mmdefocus::cuda
