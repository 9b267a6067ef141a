// Replaces the header of the same name: PTX instructions and shared memory.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include <cuda_runtime.h>

namespace mmdefocus::cuda {

// With a pseudo-random error of up to 2 ulp, as large as that of the GPU instruction.
inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  if (y < FLT_MIN) return 0.0f;
  if (!(y < FLT_MAX) || x == 0.0f) return y;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const float noise = static_cast<float>(bits * 2654435761u >> 8) * 0x1p-23f - 1.0f;
  return y + 2.0f * noise * (y - std::nextafter(y, 0.0f));
}

template <typename S>
S& shared_memory() {
  static_assert(sizeof(S) <= emulation::kMostSharedBytes);
  return *reinterpret_cast<S*>(emulation::shared);
}

}  // namespace mmdefocus::cuda
