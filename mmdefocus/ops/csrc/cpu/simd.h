// Vectors of the width that the including file was compiled for, and the exponential on them.
// Everything has internal linkage: the same source is compiled once per instruction set, and the linker must never
// merge the copies. For the same reason the standard headers come from std_headers.h, before the target is set.
#pragma once

#ifndef MMDEFOCUS_VECTOR_BYTES
#error "define MMDEFOCUS_VECTOR_BYTES (16, 32 or 64) before including simd.h"
#endif

namespace {

template <typename S>
struct Simd;

template <>
struct Simd<float> {
  typedef float Vector __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES)));
  typedef int32_t Bits __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES)));
  static constexpr int kMantissaBits = 23;
  static constexpr int kExponentBias = 127;
  static constexpr int kTaylorDegree = 7;          // remainder below 6e-9 on |r| <= ln(2) / 2
  static constexpr float kRounder = 12582912.0f;   // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kLn2High = 0.693359375f;  // 9 significant bits: n * kLn2High is exact
  static constexpr float kLn2Low = -2.12194440e-4f;
  static constexpr float kLowest = -88.0f;  // 2^-127 is written as 0
  static constexpr float kHighest = 88.8f;  // 2^128 is written as infinity
};

template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES)));
  typedef int64_t Bits __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES)));
  static constexpr int kMantissaBits = 52;
  static constexpr int kExponentBias = 1023;
  static constexpr int kTaylorDegree = 13;
  static constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 6.93147180369123816490e-01;
  static constexpr double kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kLowest = -709.4;
  static constexpr double kHighest = 709.9;
};

template <typename S>
using Vec = typename Simd<S>::Vector;

template <typename S>
constexpr int kLanes = MMDEFOCUS_VECTOR_BYTES / static_cast<int>(sizeof(S));

template <typename S>
inline __attribute__((always_inline)) Vec<S> splat(S value) {
  return Vec<S>{} + value;
}

constexpr double inverse_factorial(int k) { return k < 2 ? 1.0 : inverse_factorial(k - 1) / k; }

template <typename S, int K>
struct Taylor {
  static inline __attribute__((always_inline)) Vec<S> from(Vec<S> r) {
    return splat<S>(static_cast<S>(inverse_factorial(K))) + r * Taylor<S, K + 1>::from(r);
  }
};
template <>
struct Taylor<float, Simd<float>::kTaylorDegree> {
  static inline __attribute__((always_inline)) Vec<float> from(Vec<float>) {
    return splat<float>(static_cast<float>(inverse_factorial(Simd<float>::kTaylorDegree)));
  }
};
template <>
struct Taylor<double, Simd<double>::kTaylorDegree> {
  static inline __attribute__((always_inline)) Vec<double> from(Vec<double>) {
    return splat<double>(inverse_factorial(Simd<double>::kTaylorDegree));
  }
};

// exp(x) = 2^n exp(r), n = round(x / ln 2): about 1 ulp. Results below the smallest normal number are 0, results in
// the top binade (x > 88.37 in float, 709.43 in double) are infinity; NaN stays NaN.
template <typename S>
inline __attribute__((always_inline)) Vec<S> vector_exp(Vec<S> x) {
  using T = Simd<S>;
  x = x < T::kLowest ? splat<S>(T::kLowest) : x;
  x = x > T::kHighest ? splat<S>(T::kHighest) : x;
  const Vec<S> rounded = x * static_cast<S>(1.44269504088896340736) + T::kRounder;
  const Vec<S> n = rounded - T::kRounder;
  const Vec<S> r = (x - n * T::kLn2High) - n * T::kLn2Low;
  // The low bits of `rounded` hold n; shifting them into the exponent drops everything above.
  const typename T::Bits exponent = ((typename T::Bits)rounded + T::kExponentBias) << T::kMantissaBits;
  return Taylor<S, 0>::from(r) * (Vec<S>)exponent;
}

template <typename S>
inline S sum_of_lanes(Vec<S> v) {
  S total = 0;
  for (int i = 0; i < kLanes<S>; ++i) total += v[i];
  return total;
}

// Tiles are (time, lanes). Lanes beyond `lanes` are channels that do not exist: they are read as 0 and not written.
template <typename S>
inline void load_tile(const S* source, int64_t channel_stride, int64_t time_stride, int lanes, int length,
                      Vec<S>* tile) {
  constexpr int W = kLanes<S>;
  if (channel_stride == 1 && lanes == W) {
    for (int t = 0; t < length; ++t) std::memcpy(&tile[t], source + t * time_stride, sizeof(Vec<S>));
    return;
  }
  S* out = reinterpret_cast<S*>(tile);
  for (int i = 0; i < W; ++i) {
    if (i < lanes) {
      for (int t = 0; t < length; ++t) out[t * W + i] = source[i * channel_stride + t * time_stride];
    } else {
      for (int t = 0; t < length; ++t) out[t * W + i] = 0;
    }
  }
}

template <typename S>
inline void store_tile(const Vec<S>* tile, int64_t channel_stride, int64_t time_stride, int lanes, int length,
                       S* target) {
  constexpr int W = kLanes<S>;
  if (channel_stride == 1 && lanes == W) {
    for (int t = 0; t < length; ++t) std::memcpy(target + t * time_stride, &tile[t], sizeof(Vec<S>));
    return;
  }
  const S* in = reinterpret_cast<const S*>(tile);
  for (int i = 0; i < lanes; ++i) {
    for (int t = 0; t < length; ++t) target[i * channel_stride + t * time_stride] = in[t * W + i];
  }
}

}  // namespace
