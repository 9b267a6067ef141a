// Views of tensors of any strides and any floating type, as the kernels read and write them.
// Shapes: B batch, E channels, L time, N state.
#pragma once

#include <cstdint>

namespace mmdefocus::cpu {

enum class ElementType { kDouble, kFloat, kHalf, kBFloat16 };

constexpr int64_t element_bytes(ElementType type) {
  return type == ElementType::kDouble ? 8 : type == ElementType::kFloat ? 4 : 2;
}

// A (B, E, L) tensor; strides are in elements, and `Byte` is char or const char. The element type is a run-time value
// because the kernels convert on loading and storing only: a template parameter would multiply the compiled kernels by
// the number of types. Tensors of other meaning use the same view: a (B, E, N) state has N in the place of L, and an
// (E, N) parameter has a batch stride of 0.
template <typename Byte>
struct StridedView {
  Byte* data;
  ElementType type;
  int64_t batch_stride, channel_stride, time_stride;

  // Always inlined, because this header is compiled once per instruction set and the linker must not merge the copies.
  __attribute__((always_inline)) Byte* at(int64_t b, int64_t e, int64_t t) const {
    return data + (b * batch_stride + e * channel_stride + t * time_stride) * element_bytes(type);
  }
};

using InputView = StridedView<const char>;
using OutputView = StridedView<char>;

}  // namespace mmdefocus::cpu
