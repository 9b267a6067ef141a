// The RMS norm of rows and its gradient for the instruction set of the including file.
//
//   y = r x w,   r = 1 / sqrt(mean of x^2 + eps)
//   grad_x = r (g - r^2 mean of (g x) x) with g = grad_y w,   grad_w = sum over rows of r grad_y x
//
// Shapes: R rows, C channels; a row is ceil(C / lanes) vectors, with zeros past the last channel.
#pragma once

#include "cpu/common/tile.h"
#include "cpu/rms_norm/arguments.h"

namespace {

// Calls `run` with the first vector, the number of lanes and the number of vectors: for the full vectors of a row, and
// for the last one if it is not full.
template <typename S, typename Run>
inline void for_row_parts(int64_t channels, const Run& run) {
  constexpr int W = kLanes<S>;
  const int full = static_cast<int>(channels / W), rest = static_cast<int>(channels % W);
  if (full) run(0, W, full);
  if (rest) run(full, rest, 1);
}

template <typename S>
inline void load_row(const InputView& x, int64_t row, int64_t channels, Vec<S>* vectors) {
  for_row_parts<S>(channels, [&](int first, int lanes, int count) {
    load_tile<S>(x, row, 0, first, lanes, count, vectors + first);
  });
}

template <typename S>
inline void store_row(const Vec<S>* vectors, int64_t row, int64_t channels, const OutputView& x) {
  for_row_parts<S>(channels, [&](int first, int lanes, int count) {
    store_tile<S>(vectors + first, row, 0, first, lanes, count, x);
  });
}

// The view of a matrix that steps through a row vector by vector.
template <typename Byte>
inline StridedView<Byte> by_vectors(StridedView<Byte> matrix, int lanes) {
  matrix.time_stride = lanes * matrix.channel_stride;
  return matrix;
}

template <typename S>
inline S sum_of_lanes(Vec<S> v) {
  S sum = 0;
  for (int i = 0; i < kLanes<S>; ++i) sum += v[i];
  return sum;
}

// The sum over a row of the products of two vectors. Four sums hide the latency of the additions.
template <typename S>
inline S dot(const Vec<S>* a, const Vec<S>* b, int count) {
  Vec<S> sums[4] = {};
  for (int i = 0; i < count; ++i) sums[i % 4] += a[i] * b[i];
  return sum_of_lanes<S>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <typename S>
inline int vectors_per_row(int64_t channels) {
  return static_cast<int>((channels + kLanes<S> - 1) / kLanes<S>);
}

template <typename S>
void norm_forward(const NormInputs& in, S eps, const OutputView& y, S* inverse_rms, int64_t begin, int64_t end) {
  const int count = vectors_per_row<S>(in.channels);
  Scratch<S> scratch(2 * count);
  Vec<S>* weight = scratch.take(count);
  Vec<S>* x = scratch.take(count);
  const InputView rows = by_vectors(in.x, kLanes<S>);
  const OutputView results = by_vectors(y, kLanes<S>);
  load_row<S>(by_vectors(in.weight, kLanes<S>), 0, in.channels, weight);
  for (int64_t row = begin; row < end; ++row) {
    load_row<S>(rows, row, in.channels, x);
    const S r = 1 / std::sqrt(dot<S>(x, x, count) / static_cast<S>(in.channels) + eps);
    inverse_rms[row] = r;
    for (int i = 0; i < count; ++i) x[i] *= r * weight[i];
    store_row<S>(x, row, in.channels, results);
  }
}

template <typename S>
void norm_backward(const NormInputs& in, const InputView& grad_y, const S* inverse_rms, int64_t rows,
                   const OutputView& grad_x, const OutputView& grad_weight, int64_t begin, int64_t end) {
  const int count = vectors_per_row<S>(in.channels);
  Scratch<S> scratch(4 * count);
  Vec<S>* weight = scratch.take(count);
  Vec<S>* x = scratch.take(count);
  Vec<S>* grad = scratch.take(count);
  Vec<S>* weight_sum = scratch.take(count);
  const InputView x_rows = by_vectors(in.x, kLanes<S>), grad_rows = by_vectors(grad_y, kLanes<S>);
  const OutputView grad_x_rows = by_vectors(grad_x, kLanes<S>), sums = by_vectors(grad_weight, kLanes<S>);
  load_row<S>(by_vectors(in.weight, kLanes<S>), 0, in.channels, weight);
  for (int64_t sum = begin; sum < end; ++sum) {
    std::fill_n(weight_sum, count, Vec<S>{});
    for (int64_t row = sum * kRowsPerSum; row < std::min((sum + 1) * kRowsPerSum, rows); ++row) {
      load_row<S>(x_rows, row, in.channels, x);
      load_row<S>(grad_rows, row, in.channels, grad);
      const S r = inverse_rms[row];
      for (int i = 0; i < count; ++i) {
        weight_sum[i] += grad[i] * x[i] * r;
        grad[i] *= weight[i];
      }
      const S mean = dot<S>(grad, x, count) / static_cast<S>(in.channels) * r * r;
      for (int i = 0; i < count; ++i) grad[i] = r * (grad[i] - mean * x[i]);
      store_row<S>(grad, row, in.channels, grad_x_rows);
    }
    store_row<S>(weight_sum, sum, in.channels, sums);
  }
}

}  // namespace
