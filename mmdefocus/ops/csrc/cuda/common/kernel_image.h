// A probe for kernels that the current device can run.
#pragma once

#include <cuda_runtime_api.h>

namespace mmdefocus::cuda {

// Returns an error if the library holds no code for the architecture of the current device.
cudaError_t find_kernel_image();

}  // namespace mmdefocus::cuda
