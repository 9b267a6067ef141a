// Vectors of the width that the including file is compiled for, and elementary functions on them.
//
// The vector extensions of GCC and Clang express one source for all widths; intrinsics appear only where the extensions
// have no equivalent. Everything has internal linkage, because the same source is compiled once per instruction set and
// the linker must never merge the copies. Functions with external linkage come from untargeted_headers.h, which is
// included before the target is set. Shapes: a vector is (lanes).
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
  // 2^x is split into 2^n, where n has kTableBits fractional bits, and a Taylor series of 2^(x - n) with a relative
  // remainder below 1e-8. The table of 2^(i / lanes) fills one register, so a wider vector has a shorter series.
  static constexpr int kTableBits = MMDEFOCUS_VECTOR_BYTES == 64 ? 4 : MMDEFOCUS_VECTOR_BYTES == 32 ? 3 : 0;
  static constexpr int kTaylorDegree = MMDEFOCUS_VECTOR_BYTES == 64 ? 3 : MMDEFOCUS_VECTOR_BYTES == 32 ? 4 : 7;
  static constexpr int kArtanhTerms = 7;  // relative remainder below 2e-8 on 0 <= s <= 1 / 3
  static constexpr float kRounder =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer; 2^-n of it, to n fractional bits
  static constexpr float kLn2High = 0.693359375f;  // 9 significant bits: n * kLn2High is exact
  static constexpr float kLn2Low = -2.12194440e-4f;
  static constexpr float kLowest = -127.0f;  // the exponent bits of 2^-127 are those of 0
  static constexpr float kHighest = 128.0f;  // the exponent bits of 2^128 are those of infinity
};

template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES)));
  typedef int64_t Bits __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES)));
  static constexpr int kMantissaBits = 52;
  static constexpr int kTableBits = MMDEFOCUS_VECTOR_BYTES == 64 ? 3 : 0;
  static constexpr int kTaylorDegree = MMDEFOCUS_VECTOR_BYTES == 64 ? 8 : 13;
  static constexpr int kArtanhTerms = 17;
  static constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 6.93147180369123816490e-01;
  static constexpr double kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kLowest = -1023.0;
  static constexpr double kHighest = 1024.0;
};

template <typename S>
using Vec = typename Simd<S>::Vector;

template <typename S>
constexpr int kLanes = MMDEFOCUS_VECTOR_BYTES / static_cast<int>(sizeof(S));

// All lanes equal to `value`. x - 0 is x for every x, so the compiler drops the subtraction; x + 0 is not, for x = -0.
template <typename S>
inline __attribute__((always_inline)) Vec<S> splat(S value) {
  return value - Vec<S>{};
}

constexpr double kLn2 = 0.69314718055994530942, kLog2E = 1.44269504088896340736;

constexpr double series_coefficient(double log_base, int k) {
  return k == 0 ? 1.0 : series_coefficient(log_base, k - 1) * log_base / k;
}

// Taylor series of 2^r or e^r for small r, by Horner's rule. The recursion unrolls at compile time.
template <typename S, bool kBase2, int K = 0>
inline __attribute__((always_inline)) Vec<S> power_series(Vec<S> r) {
  constexpr S kCoefficient = static_cast<S>(series_coefficient(kBase2 ? kLn2 : 1.0, K));
  if constexpr (K == Simd<S>::kTaylorDegree) {
    return splat<S>(kCoefficient);
  } else {
    return splat<S>(kCoefficient) + r * power_series<S, kBase2, K + 1>(r);
  }
}

// clamp limits x to [lowest, highest] and keeps NaN: max and min return their second operand if one is NaN.
// table_lookup permutes `table` by the low bits of `index`. The masked forms with a full mask avoid a false warning of
// GCC 12 about uninitialised values in the unmasked ones.
#if MMDEFOCUS_VECTOR_BYTES == 64
inline __attribute__((always_inline)) Vec<float> clamp(Vec<float> x, float lowest, float highest) {
  x = _mm512_maskz_max_ps(0xffff, splat<float>(lowest), x);
  return _mm512_maskz_min_ps(0xffff, splat<float>(highest), x);
}
inline __attribute__((always_inline)) Vec<double> clamp(Vec<double> x, double lowest, double highest) {
  x = _mm512_maskz_max_pd(0xff, splat<double>(lowest), x);
  return _mm512_maskz_min_pd(0xff, splat<double>(highest), x);
}
inline __attribute__((always_inline)) Vec<float> table_lookup(Vec<float> table, Simd<float>::Bits index) {
  return _mm512_maskz_permutexvar_ps(0xffff, (__m512i)index, table);
}
inline __attribute__((always_inline)) Vec<double> table_lookup(Vec<double> table, Simd<double>::Bits index) {
  return _mm512_maskz_permutexvar_pd(0xff, (__m512i)index, table);
}
#else
template <typename V, typename S>
inline __attribute__((always_inline)) V clamp(V x, S lowest, S highest) {
  x = x < lowest ? V{} + lowest : x;
  return x > highest ? V{} + highest : x;
}
#if MMDEFOCUS_VECTOR_BYTES == 32
inline __attribute__((always_inline)) Vec<float> table_lookup(Vec<float> table, Simd<float>::Bits index) {
  return _mm256_permutevar8x32_ps(table, (__m256i)index);
}
#endif
#endif

// 2^n for a multiple n of 2^-kTableBits, held in the low bits of `rounded`. Shifting them to the exponent moves the
// fractional bits of n into the mantissa; the entries of the table have these bits subtracted, so that the sum of both
// bit patterns is 2^n.
template <typename S, int... I>
inline __attribute__((always_inline)) Vec<S> power_of_2(Vec<S> rounded, std::integer_sequence<int, I...>) {
  using T = Simd<S>;
  using Bits = typename T::Bits;
  constexpr int kShift = T::kMantissaBits - T::kTableBits;
  const Bits bits = (Bits)rounded;
  Vec<S> mantissa = splat<S>(1);
  if constexpr (T::kTableBits) {
    const Vec<S> powers = {static_cast<S>(__builtin_exp2(static_cast<double>(I) / sizeof...(I)))...};
    mantissa = table_lookup((Vec<S>)((Bits)powers - (Bits{I...} << kShift)), bits);
  }
  return (Vec<S>)((Bits)mantissa + (bits << kShift));
}

template <typename S>
inline __attribute__((always_inline)) Vec<S> power_of_2(Vec<S> rounded) {
  return power_of_2<S>(rounded, std::make_integer_sequence<int, kLanes<S>>{});
}

// exp(x) = 2^n exp(r) with r = x - n ln 2, to about 1 ulp. ln 2 is split into a high part, whose product with n is
// exact, and a low part, so that r has no cancellation error. Subnormal results are inexact by less than the smallest
// normal number, results in the top binade may be infinity, and NaN stays NaN.
template <typename S>
inline __attribute__((always_inline)) Vec<S> vector_exp(Vec<S> x) {
  using T = Simd<S>;
  constexpr S kRounder = T::kRounder / (1 << T::kTableBits);
  x = clamp(x, static_cast<S>(T::kLowest * kLn2), static_cast<S>(T::kHighest * kLn2));
  const Vec<S> rounded = x * static_cast<S>(kLog2E) + kRounder;
  const Vec<S> n = rounded - kRounder;
  const Vec<S> r = (x - n * T::kLn2High) - n * T::kLn2Low;
  return power_series<S, false>(r) * power_of_2<S>(rounded);
}

// 2^x, with the same accuracy and limits as vector_exp. n is exact here, so the argument needs no split constant.
template <typename S>
inline __attribute__((always_inline)) Vec<S> vector_exp2(Vec<S> x) {
  using T = Simd<S>;
  constexpr S kRounder = T::kRounder / (1 << T::kTableBits);
  x = clamp(x, T::kLowest, T::kHighest);
  const Vec<S> rounded = x + kRounder;
  return power_series<S, true>(x - (rounded - kRounder)) * power_of_2<S>(rounded);
}

// a / d for d >= 1.
template <typename S>
inline __attribute__((always_inline)) Vec<S> divide(Vec<S> a, Vec<S> d) {
  return a / d;
}

#if MMDEFOCUS_VECTOR_BYTES == 64
// The scan spends most of its time here. AVX-512 splits x into the nearest integer and the rest in one instruction, and
// scales by 2^n in one, without limits for x: 9 instructions where the table takes 12. The polynomial has the smallest
// largest relative error on |r| <= 1 / 2, 9.2e-8, of those that are exact at 0, where products of many decays need it.
// Results below the smallest normal number are 0: arithmetic on subnormal numbers is a hundred times slower.
template <>
inline __attribute__((always_inline)) Vec<float> vector_exp2<float>(Vec<float> x) {
  const Vec<float> r = _mm512_maskz_reduce_ps(0xffff, x, _MM_FROUND_TO_NEAREST_INT);
  const __mmask16 normal_or_nan = _mm512_cmp_ps_mask(x, splat<float>(-126.0f), _CMP_NLT_UQ);
  Vec<float> series = splat<float>(0.0013264727f);
  for (float coefficient : {0.0096715127f, 0.0555073374f, 0.2402224209f, 0.6931469776f, 1.0f}) {
    series = series * r + coefficient;
  }
  return _mm512_maskz_scalef_ps(normal_or_nan, series, x - r);
}

// The division instruction takes 16 cycles. An approximate reciprocal, corrected once, and a corrected quotient take 7
// instructions. The limit of d keeps 0 * infinity away.
template <>
inline __attribute__((always_inline)) Vec<float> divide<float>(Vec<float> a, Vec<float> d) {
  d = _mm512_maskz_min_ps(0xffff, splat<float>(0x1p126f), d);
  Vec<float> reciprocal = _mm512_maskz_rcp14_ps(0xffff, d);
  reciprocal += reciprocal * (1.0f - d * reciprocal);
  const Vec<float> quotient = a * reciprocal;
  return quotient + reciprocal * (a - d * quotient);
}
#endif

// log(1 + x) for 0 <= x <= 1, as 2 artanh(s) with s = x / (2 + x). Small x keep their full relative accuracy: no low
// bits are rounded away as in 1 + x.
template <typename S>
inline __attribute__((always_inline)) Vec<S> vector_log1p(Vec<S> x) {
  constexpr int kTerms = Simd<S>::kArtanhTerms;
  const Vec<S> s = divide<S>(x, x + S(2)), square = s * s;
  Vec<S> series = splat<S>(S(2) / (2 * kTerms - 1));
#pragma GCC unroll 32
  for (int k = kTerms - 2; k >= 0; --k) series = series * square + S(2) / (2 * k + 1);
  return series * s;
}

template <typename S>
inline __attribute__((always_inline)) Vec<S> vector_sigmoid(Vec<S> x) {
  return divide<S>(splat<S>(S(1)), S(1) + vector_exp<S>(-x));
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), which cannot overflow, and its derivative sigmoid(x) if wanted.
template <typename S>
inline __attribute__((always_inline)) Vec<S> vector_softplus(Vec<S> x, Vec<S>* derivative = nullptr) {
  const Vec<S> e = vector_exp<S>(x < S(0) ? x : -x);
  if (derivative) *derivative = divide<S>(x < S(0) ? e : splat<S>(S(1)), e + S(1));
  return (x > S(0) ? x : Vec<S>{}) + vector_log1p<S>(e);
}

#if defined(__clang__)
#define MMDEFOCUS_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MMDEFOCUS_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, typename Simd<S>::Bits{__VA_ARGS__})
#endif

// Sums of neighbouring lanes, first of a, then of b.
template <typename S, int... I>
inline __attribute__((always_inline)) Vec<S> sums_of_pairs(Vec<S> a, Vec<S> b, std::integer_sequence<int, I...>) {
  return MMDEFOCUS_SHUFFLE(a, b, (2 * I)...) + MMDEFOCUS_SHUFFLE(a, b, (2 * I + 1)...);
}

// Lane i of the result is the sum of all lanes of v[i]. Summing pairs of vectors as a tree takes lanes - 1 shuffled
// additions for all of them, where separate horizontal sums would take lanes * log2(lanes).
template <typename S, int kCount = kLanes<S>>
inline __attribute__((always_inline)) Vec<S> sums_of_lanes(const Vec<S>* v) {
  if constexpr (kCount == 1) {
    return *v;
  } else {
    return sums_of_pairs<S>(sums_of_lanes<S, kCount / 2>(v), sums_of_lanes<S, kCount / 2>(v + kCount / 2),
                            std::make_integer_sequence<int, kLanes<S>>{});
  }
}

}  // namespace
