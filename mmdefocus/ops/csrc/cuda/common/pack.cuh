// Packs of neighbouring channels of a row: the unit in which the kernels read and write activations. A pack moves in
// words of up to 16 bytes, the widest access of a thread, and neighbouring threads move neighbouring packs, so that
// every byte of a memory transaction is used.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <type_traits>

namespace mmdefocus::cuda {

// Values stay in the storage type until they are used, because half types then take half as many registers.
template <typename T, int kCount>
struct Pack {
  static constexpr int kBytes = kCount * sizeof(T);
  using Word = std::conditional_t<kBytes % sizeof(uint4) == 0, uint4, uint2>;
  static constexpr int kWords = kBytes / sizeof(Word);
  static_assert(kBytes % sizeof(Word) == 0);

  Word words[kWords];

  // memcpy is the reinterpretation that the aliasing rules allow; it compiles to register moves.
  __device__ __forceinline__ float operator[](int i) const {
    T value;
    memcpy(&value, reinterpret_cast<const char*>(words) + i * sizeof(T), sizeof(T));
    return static_cast<float>(value);
  }

  __device__ __forceinline__ void set(int i, float x) {
    const T value = static_cast<T>(x);
    memcpy(reinterpret_cast<char*>(words) + i * sizeof(T), &value, sizeof(T));
  }
};

// Reads the first `count` channels and sets the others to zero. `aligned` promises that rows begin at multiples of the
// word size; only whole packs use word accesses, so nothing past the last channel is touched.
template <int kCount, typename T>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T* from, int count, bool aligned) {
  using Result = Pack<T, kCount>;
  Result pack{};
  if (aligned && count >= kCount) {
#pragma unroll
    for (int w = 0; w < Result::kWords; ++w) pack.words[w] = reinterpret_cast<const typename Result::Word*>(from)[w];
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < count) pack.set(i, static_cast<float>(from[i]));
    }
  }
  return pack;
}

// Writes the first `count` channels.
template <int kCount, typename T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, kCount>& pack, int count, bool aligned) {
  using Word = typename Pack<T, kCount>::Word;
  if (aligned && count >= kCount) {
#pragma unroll
    for (int w = 0; w < Pack<T, kCount>::kWords; ++w) reinterpret_cast<Word*>(to)[w] = pack.words[w];
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < count) to[i] = static_cast<T>(pack[i]);
    }
  }
}

}  // namespace mmdefocus::cuda
