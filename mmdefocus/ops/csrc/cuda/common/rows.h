// A view of a tensor whose channels are neighbours in memory.
// Shapes: B batch, L tokens, E channels; the view is (B, L, E).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mmdefocus::cuda {

template <typename T>
struct Rows {
  T* data;
  int64_t batch_stride, row_stride;  // in elements; 64 bits, since tensors may exceed 2^31 elements

  __host__ __device__ T* at(int64_t batch, int64_t row, int64_t channel) const {
    return data + batch * batch_stride + row * row_stride + channel;
  }
};

}  // namespace mmdefocus::cuda
