// The CUDA implementations of the operators that ../registration.cpp declares.
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "cuda/common/kernel_image.h"
#include "cuda/operators.h"

namespace mmdefocus::cuda {

namespace {

// What the CUDA runtime says when it looks for kernels that run on a device; empty where it finds them.
std::string missing_kernels(int64_t device) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  const cudaError_t error = find_kernel_image();
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // or torch would find it after its next kernel
  return cudaGetErrorString(error);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmdefocus, m) { m.def("missing_cuda_kernels(int device) -> str", &missing_kernels); }

TORCH_LIBRARY_IMPL(mmdefocus, CUDA, m) {
  m.impl("defocus_scan", &defocus_scan);
  m.impl("defocus_scan_backward", &defocus_scan_backward);
  m.impl("causal_conv1d", &causal_conv1d);
  m.impl("causal_conv1d_backward", &causal_conv1d_backward);
}

}  // namespace mmdefocus::cuda
