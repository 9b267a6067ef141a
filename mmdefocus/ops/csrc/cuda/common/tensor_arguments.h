// Tensor arguments of the CUDA operators: checks, memory layout, views, and dispatch on the type.
// Shapes: B batch, L tokens, E channels.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "cuda/common/rows.h"

namespace mmdefocus::cuda {

constexpr int64_t kPackBytes = 16;  // the widest memory access of a thread

inline void check_like(const at::Tensor& tensor, const char* name, at::IntArrayRef sizes, at::ScalarType type,
                       at::Device device, const char* op) {
  TORCH_CHECK(tensor.sizes() == sizes, op, ": expected ", name, " of shape ", sizes, ", got ", tensor.sizes());
  TORCH_CHECK(tensor.scalar_type() == type && tensor.device() == device, op, ": expected ", name, " as ", type, " on ",
              device, ", got ", tensor.scalar_type(), " on ", tensor.device());
}

// True if the channels of a (B, L, E) tensor are neighbours in memory.
inline bool has_dense_channels(const at::Tensor& tensor) { return tensor.stride(2) == 1 || tensor.size(2) == 1; }

// The tensor itself, or a copy if its channels are not neighbours.
inline at::Tensor with_dense_channels(const at::Tensor& tensor) {
  return has_dense_channels(tensor) ? tensor : tensor.contiguous();
}

// A contiguous tensor that begins at a multiple of 16 bytes; a slice of a parameter may be contiguous and not aligned.
inline at::Tensor contiguous_and_aligned(const at::Tensor& tensor) {
  const at::Tensor contiguous = tensor.contiguous();
  const bool aligned = reinterpret_cast<uintptr_t>(contiguous.const_data_ptr()) % kPackBytes == 0;
  return aligned ? contiguous : contiguous.clone();
}

template <typename T>
Rows<const T> input_rows(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<T>(), tensor.stride(0), tensor.stride(1)};
}

template <typename T>
Rows<T> output_rows(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<T>(), tensor.stride(0), tensor.stride(1)};
}

// True if all rows of a tensor begin at multiples of 16 bytes.
inline bool rows_are_aligned(const at::Tensor& tensor) {
  bool aligned = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % kPackBytes == 0;
  for (int64_t d = 0; d + 1 < tensor.dim(); ++d) {
    aligned &= tensor.size(d) == 1 || tensor.stride(d) * tensor.element_size() % kPackBytes == 0;
  }
  return aligned;
}

// Calls `run` with a zero of the type T of the activations.
template <typename Run>
void with_type(at::ScalarType type, const char* op, const Run& run) {
  switch (type) {
    case at::kFloat:
      return run(float{});
    case at::kHalf:
      return run(c10::Half{});
    case at::kBFloat16:
      return run(c10::BFloat16{});
    default:
      TORCH_CHECK(false, op, ": the CUDA kernels take float16, bfloat16 or float32, got ", type);
  }
}

}  // namespace mmdefocus::cuda
