// Tensor arguments of the CPU operators: checks, and views for the kernels.
// Shapes: B batch, E channels, L time, N state.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "cpu/common/blocks.h"
#include "cpu/common/strided_view.h"

namespace mmdefocus::cpu {

// Channels of a block: enough to amortise the horizontal sums of the backward pass over several vectors, and few
// enough to give every thread a block at the usual widths of a model.
constexpr int64_t kBlockChannels = 64;

inline ElementType element_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return ElementType::kDouble;
    case at::kHalf:
      return ElementType::kHalf;
    case at::kBFloat16:
      return ElementType::kBFloat16;
    default:
      return ElementType::kFloat;
  }
}

// The dimensions of a tensor that serve as batch, channels and time of its view; -1 for none, which has stride 0.
struct Dimensions {
  int batch, channels, time;
};
constexpr Dimensions kBEL{0, 1, 2}, kBLE{0, 2, 1}, kEN{-1, 0, 1}, kE{-1, 0, -1}, kBE{0, 1, -1};

template <typename Byte>
StridedView<Byte> strided_view(Byte* data, const at::Tensor& tensor, Dimensions order) {
  const auto stride = [&](int dimension) { return dimension < 0 ? 0 : tensor.stride(dimension); };
  return {data, element_type(tensor), stride(order.batch), stride(order.channels), stride(order.time)};
}

inline InputView input_view(const at::Tensor& tensor, Dimensions order) {
  return strided_view(static_cast<const char*>(tensor.const_data_ptr()), tensor, order);
}

inline OutputView output_view(const at::Tensor& tensor, Dimensions order) {
  return strided_view(static_cast<char*>(tensor.mutable_data_ptr()), tensor, order);
}

inline InputView optional_input_view(const std::optional<at::Tensor>& tensor, Dimensions order) {
  return tensor.has_value() ? input_view(*tensor, order) : InputView{nullptr, ElementType::kFloat, 0, 0, 0};
}

inline OutputView optional_output_view(const at::Tensor& tensor, Dimensions order) {
  return tensor.defined() ? output_view(tensor, order) : OutputView{nullptr, ElementType::kFloat, 0, 0, 0};
}

// float64 for float64, else float32: the error of a recurrence grows with its length, so half types are storage only.
inline at::ScalarType compute_type(const at::Tensor& tensor, const char* op) {
  const at::ScalarType type = tensor.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16, op,
              ": expected float16, bfloat16, float32 or float64, got ", type);
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

inline void check_tensor(const at::Tensor& tensor, const char* name, at::IntArrayRef sizes, at::ScalarType type,
                         const char* op) {
  TORCH_CHECK(tensor.sizes() == sizes, op, ": expected ", name, " of shape ", sizes, ", got ", tensor.sizes());
  TORCH_CHECK(tensor.scalar_type() == type && tensor.device().is_cpu(), op, ": expected ", name, " as ", type,
              " on cpu, got ", tensor.scalar_type(), " on ", tensor.device());
}

// Calls `run` with a zero of the compute type.
template <typename Run>
void with_compute_type(at::ScalarType type, const Run& run) {
  type == at::kDouble ? run(double{}) : run(float{});
}

}  // namespace mmdefocus::cpu
