// Arguments of the RMS norm on CPU, shared by the host function and the kernels of every instruction set.
// Shapes: R rows, C channels.
#pragma once

#include "cpu/common/strided_view.h"

namespace mmdefocus::cpu {

// Rows of which the gradient of the weight is summed before all partial sums are added.
constexpr int64_t kRowsPerSum = 64;

// A view of an (R, C) matrix has R in the place of batch and C in the place of channels.
struct NormInputs {
  int64_t channels;
  InputView x;       // (R, C)
  InputView weight;  // (C)
};

// Work on the rows begin .. end, in float or in double.
template <typename S>
struct NormKernels {
  void (*forward)(const NormInputs&, S eps, const OutputView& y, S* inverse_rms, int64_t begin, int64_t end);
  // Here begin .. end are sums of kRowsPerSum rows, grad_weight is (sums, C), and inverse_rms (R) is an input.
  void (*backward)(const NormInputs&, const InputView& grad_y, const S* inverse_rms, int64_t rows,
                   const OutputView& grad_x, const OutputView& grad_weight, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
