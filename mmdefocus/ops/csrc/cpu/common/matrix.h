// Products of small matrices in the compute type, and transposition.
//
// The right matrix and the result consist of rows of vectors; the left one is read number by number, so it may lie in
// either order.
#pragma once

#include "cpu/common/simd.h"

namespace {

// A block of the result stays in registers: 16 of the 32 of AVX-512, or 8 of 16. Narrow blocks are higher, because the
// latency of an addition takes as many independent sums.
constexpr int kBlockRows = 4;
constexpr int kBlockVectors = MMDEFOCUS_VECTOR_BYTES == 64 ? 4 : 2;
constexpr int block_rows(int vectors) { return kBlockRows * (vectors < 3 ? kBlockVectors / vectors : 1); }

// Order of the left matrix: its rows, or its columns, are contiguous.
enum class Left { kRows, kColumns };

template <typename S, Left kLeft, int kRows, int kVectors, typename Use>
inline __attribute__((always_inline)) void multiply_block(int depth, const S* a, int64_t a_stride, const Vec<S>* b,
                                                          int64_t b_stride, int row, int vector, const Use& use) {
  Vec<S> sums[kRows][kVectors] = {};
  for (int k = 0; k < depth; ++k) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec<S> factor = splat<S>(kLeft == Left::kRows ? a[r * a_stride + k] : a[k * a_stride + r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] += factor * b[k * b_stride + v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) use(row + r, vector + v, sums[r][v]);
  }
}

template <typename S, Left kLeft, int kVectors, typename Use>
inline void multiply_columns(int rows, int depth, const S* a, int64_t a_stride, const Vec<S>* b, int64_t b_stride,
                             int vector, const Use& use) {
  constexpr int kRows = block_rows(kVectors);
  const int64_t row_stride = kLeft == Left::kRows ? a_stride : 1;
  int row = 0;
  for (; row + kRows <= rows; row += kRows) {
    multiply_block<S, kLeft, kRows, kVectors>(depth, a + row * row_stride, a_stride, b, b_stride, row, vector, use);
  }
  for (; kRows > kBlockRows && row < rows; row += kBlockRows) {
    multiply_block<S, kLeft, kBlockRows, kVectors>(depth, a + row * row_stride, a_stride, b, b_stride, row, vector,
                                                   use);
  }
}

// Computes the product of a (rows, depth) and b (depth, vectors), and calls use(row, vector, sum) for every vector of
// it. `rows` is a multiple of kBlockRows; a_stride is the distance between rows, or columns, of a in numbers, b_stride
// that of rows of b in vectors.
template <typename S, Left kLeft, typename Use>
inline void multiply(int rows, int vectors, int depth, const S* a, int64_t a_stride, const Vec<S>* b, int64_t b_stride,
                     const Use& use) {
  int v = 0;
  for (; v + kBlockVectors <= vectors; v += kBlockVectors) {
    multiply_columns<S, kLeft, kBlockVectors>(rows, depth, a, a_stride, b + v, b_stride, v, use);
  }
  const int rest = vectors - v;
  if (kBlockVectors > 3 && rest == 3) multiply_columns<S, kLeft, 3>(rows, depth, a, a_stride, b + v, b_stride, v, use);
  if (kBlockVectors > 2 && rest == 2) multiply_columns<S, kLeft, 2>(rows, depth, a, a_stride, b + v, b_stride, v, use);
  if (rest == 1) multiply_columns<S, kLeft, 1>(rows, depth, a, a_stride, b + v, b_stride, v, use);
}

// Exchanges the lanes i | kHalf of `a` with the lanes i of `b`, for i without the bit kHalf.
template <typename S, int kHalf, int... I>
inline __attribute__((always_inline)) void exchange_lanes(Vec<S>& a, Vec<S>& b, std::integer_sequence<int, I...>) {
  constexpr int W = sizeof...(I);
  const Vec<S> first = MMDEFOCUS_SHUFFLE(a, b, (I & kHalf ? W + I - kHalf : I)...);
  b = MMDEFOCUS_SHUFFLE(a, b, (I & kHalf ? W + I : I + kHalf)...);
  a = first;
}

// Transposes a square of kLanes vectors in place, by squares of half the size.
template <typename S, int kHalf = kLanes<S> / 2>
inline __attribute__((always_inline)) void transpose_square(Vec<S>* square) {
  if constexpr (kHalf > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<S>; ++i) {
      if (!(i & kHalf)) {
        exchange_lanes<S, kHalf>(square[i], square[i + kHalf], std::make_integer_sequence<int, kLanes<S>>{});
      }
    }
    transpose_square<S, kHalf / 2>(square);
  }
}

// Transposes `from`, squares x vectors squares of numbers with a row every `stride` vectors, to rows of `to_stride`
// vectors.
template <typename S>
inline void transpose(const Vec<S>* from, int squares, int vectors, int64_t stride, int64_t to_stride, Vec<S>* to) {
  constexpr int W = kLanes<S>;
  Vec<S> square[W];
  for (int row = 0; row < squares; ++row) {
    for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) square[i] = from[(row * W + i) * stride + v];
      transpose_square<S>(square);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) to[(v * W + i) * to_stride + row] = square[i];
    }
  }
}

}  // namespace
