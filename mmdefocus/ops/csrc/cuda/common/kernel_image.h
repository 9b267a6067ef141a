#pragma once

#include <cuda_runtime_api.h>

namespace mmdefocus::cuda {

// An error where the library was compiled for other architectures than that of the current device.
cudaError_t find_kernel_image();

}  // namespace mmdefocus::cuda
