// What the host functions share: views of tensors for the kernels, checks, and the division of the work.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "cpu/chunks.h"
#include "cpu/sequence.h"

namespace mmdefocus::cpu {

// Channels of a block: enough to share the horizontal sums of the backward pass, few enough to occupy all threads.
constexpr int64_t kChannelsPerBlock = 64;

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

// The tensor with its dimensions in the order batch, channels, time. What it lacks of these has stride 0.
struct Dimensions {
  int batch, channels, time;
};
constexpr Dimensions kBEL{0, 1, 2}, kBLE{0, 2, 1}, kEN{-1, 0, 1}, kE{-1, 0, -1}, kBE{0, 1, -1};

template <typename Byte>
Sequence<Byte> view(Byte* data, const at::Tensor& tensor, Dimensions order) {
  const auto stride = [&](int dimension) { return dimension < 0 ? 0 : tensor.stride(dimension); };
  return {data, element_type(tensor), stride(order.batch), stride(order.channels), stride(order.time)};
}

inline Input read(const at::Tensor& tensor, Dimensions order) {
  return view(static_cast<const char*>(tensor.const_data_ptr()), tensor, order);
}

inline Output write(const at::Tensor& tensor, Dimensions order) {
  return view(static_cast<char*>(tensor.mutable_data_ptr()), tensor, order);
}

inline Input read_if(const std::optional<at::Tensor>& tensor, Dimensions order) {
  return tensor.has_value() ? read(*tensor, order) : Input{nullptr, ElementType::kFloat, 0, 0, 0};
}

inline Output write_if(const at::Tensor& tensor, Dimensions order) {
  return tensor.defined() ? write(tensor, order) : Output{nullptr, ElementType::kFloat, 0, 0, 0};
}

// The type that is computed in: float64 for float64, else float32.
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

// Calls `run` with a value of the type that is computed in.
template <typename Run>
void with_compute_type(at::ScalarType type, const Run& run) {
  type == at::kDouble ? run(double{}) : run(float{});
}

}  // namespace mmdefocus::cpu
