// The CUDA implementations of the operators that ../registration.cpp declares.
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "cuda/common/kernel_image.h"
#include "cuda/operators.h"

namespace mmdefocus::cuda {

namespace {

// Returns the error of the CUDA runtime if the library has no kernels for a device, or an empty string.
std::string missing_kernels(int64_t device) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  const cudaError_t error = find_kernel_image();
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // clears the error, which torch would otherwise report after its next launch
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
