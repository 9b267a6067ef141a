// What the host functions share: views of tensors for the kernels, and the division of the work.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "cpu/selective_scan.h"

namespace mmdefocus::cpu {

// Channels of a block: enough to share the horizontal sums of the backward pass, few enough to occupy all threads. It
// does not depend on the number of threads, so neither do the results.
constexpr int64_t kChannelsPerBlock = 32;

template <typename S>
Sequence<const S> read(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<S>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

template <typename S>
Sequence<S> write(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<S>(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

inline void check_float(const at::Tensor& tensor, const char* op) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble, op,
              ": the CPU kernel computes in float32 or float64, got ", tensor.scalar_type(),
              ". Call mmdefocus.ops, which converts half types.");
}

inline void check_like(const at::Tensor& tensor, const char* name, at::IntArrayRef sizes, const at::Tensor& model,
                       const char* op) {
  TORCH_CHECK(tensor.sizes() == sizes, op, ": expected ", name, " of shape ", sizes, ", got ", tensor.sizes());
  TORCH_CHECK(tensor.scalar_type() == model.scalar_type() && tensor.device() == model.device(), op, ": expected ", name,
              " as ", model.scalar_type(), " on ", model.device(), ", got ", tensor.scalar_type(), " on ",
              tensor.device());
}

}  // namespace mmdefocus::cpu
