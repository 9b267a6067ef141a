// Host functions of the RMS norm on CPU.
// Shapes: R rows, C channels.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "common/segments.h"
#include "cpu/common/instruction_sets.h"
#include "cpu/common/tensor_arguments.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::rms_norm";
// Rows below which another thread costs more than it saves.
constexpr int64_t kGrain = 16;

template <typename S>
const NormKernels<S>& norm_kernels() {
  if constexpr (std::is_same_v<S, float>) {
    return kernels().norm_float;
  } else {
    return kernels().norm_double;
  }
}

constexpr Dimensions kRC{0, 1, -1}, kC{-1, 0, -1};

void check(const Tensor& x, const Tensor& weight, at::ScalarType type) {
  TORCH_CHECK(x.dim() > 0 && x.size(-1) > 0 && x.is_contiguous(), kOp, ": expected a contiguous x (…, C), got ",
              x.sizes());
  check_tensor(weight, "weight", {x.size(-1)}, type, kOp);
}

Tensor as_rows(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

NormInputs norm_inputs(const Tensor& rows, const Tensor& weight) {
  return {rows.size(1), input_view(rows, kRC), input_view(weight, kC)};
}

std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& weight, double eps, at::ScalarType dtype) {
  const at::ScalarType type = compute_type(x, kOp);
  check(x, weight, type);
  const Tensor rows = as_rows(x), y = at::empty(x.sizes(), x.options().dtype(dtype));
  compute_type(y, kOp);
  const Tensor inverse_rms = at::empty({rows.size(0)}, weight.options());
  const NormInputs in = norm_inputs(rows, weight);
  const OutputView out = output_view(as_rows(y), kRC);
  with_compute_type(type, [&](auto scalar) {
    using S = decltype(scalar);
    S* r = inverse_rms.mutable_data_ptr<S>();
    at::parallel_for(0, rows.size(0), kGrain, [&](int64_t begin, int64_t end) {
      norm_kernels<S>().forward(in, static_cast<S>(eps), out, r, begin, end);
    });
  });
  return {y, inverse_rms};
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                    const Tensor& inverse_rms) {
  const at::ScalarType type = compute_type(x, kOp);
  check(x, weight, type);
  const Tensor rows = as_rows(x), grad_rows = as_rows(grad_y.contiguous()), grad_x = at::empty_like(x);
  compute_type(grad_y, kOp);
  check_tensor(grad_y, "grad_y", x.sizes(), grad_y.scalar_type(), kOp);
  check_tensor(inverse_rms, "inverse_rms", {rows.size(0)}, type, kOp);
  const int64_t sums = ceil_div(rows.size(0), kRowsPerSum);
  const Tensor r = inverse_rms.contiguous(), grad_weight = at::empty({sums, rows.size(1)}, weight.options());
  const NormInputs in = norm_inputs(rows, weight);
  const InputView grad = input_view(grad_rows, kRC);
  const OutputView out = output_view(as_rows(grad_x), kRC), weight_out = output_view(grad_weight, kRC);
  with_compute_type(type, [&](auto scalar) {
    using S = decltype(scalar);
    at::parallel_for(0, sums, 1, [&](int64_t begin, int64_t end) {
      norm_kernels<S>().backward(in, grad, r.const_data_ptr<S>(), rows.size(0), out, weight_out, begin, end);
    });
  });
  return {grad_x, grad_weight.sum(0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("rms_norm", &forward);
  m.impl("rms_norm_backward", &backward);
}

}  // namespace mmdefocus::cpu
