// A probe for kernels that the current device can run.
#include <cuda_runtime.h>

#include "cuda/common/kernel_image.h"

namespace mmdefocus::cuda {

namespace {

__global__ void empty_kernel() {}

}  // namespace

cudaError_t find_kernel_image() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, empty_kernel);
}

}  // namespace mmdefocus::cuda
