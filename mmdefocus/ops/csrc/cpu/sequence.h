// Views of tensors for the kernels. Legend: B batch, E channels, L time.
#pragma once

#include <cstdint>

namespace mmdefocus::cpu {

enum class ElementType { kDouble, kFloat, kHalf, kBFloat16 };

constexpr int64_t element_bytes(ElementType type) {
  return type == ElementType::kDouble ? 8 : type == ElementType::kFloat ? 4 : 2;
}

// A (B, E, L) tensor of any strides (in elements) and any floating type; `Byte` is char or const char.
// A (B, E, N) tensor of states is one too, with N in the place of L, and so is an (E, N) parameter, with stride 0 for
// B.
template <typename Byte>
struct Sequence {
  Byte* data;
  ElementType type;
  int64_t batch_stride, channel_stride, time_stride;

  // Inlined always: compiled once per instruction set, copies of it must not be merged.
  __attribute__((always_inline)) Byte* at(int64_t b, int64_t e, int64_t t) const {
    return data + (b * batch_stride + e * channel_stride + t * time_stride) * element_bytes(type);
  }
};

using Input = Sequence<const char>;
using Output = Sequence<char>;

}  // namespace mmdefocus::cpu
