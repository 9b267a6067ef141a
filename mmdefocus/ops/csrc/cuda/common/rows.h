// A view of a (batch, length, channels) tensor whose channels are neighbours in memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace mmdefocus::cuda {

template <typename T>
struct Rows {
  T* data;
  int64_t batch_stride, row_stride;

  __host__ __device__ T* at(int64_t batch, int64_t row, int64_t channel) const {
    return data + batch * batch_stride + row * row_stride + channel;
  }
};

}  // namespace mmdefocus::cuda
