// Host functions of the depthwise causal convolution with CUDA.
// Shapes: B batch, L tokens, E channels, K kernel width.
#include <ATen/Functions.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <limits>

#include "cuda/causal_conv1d/arguments.h"
#include "cuda/common/tensor_arguments.h"
#include "cuda/operators.h"

namespace mmdefocus::cuda {

namespace {

using at::Tensor;

// The checked arguments. x is transposed to (B, L, E): in the models it is a slice of a channels-last projection, so
// the transpose is a view whose channels are neighbours.
struct ConvArguments {
  static constexpr const char* kOp = "mmdefocus::causal_conv1d";
  Tensor x, weight, bias;  // (B, L, E), (E, K), (E)
  bool silu;

  ConvArguments(const Tensor& x_, const Tensor& weight_, const std::optional<Tensor>& bias_, bool silu_) : silu(silu_) {
    TORCH_CHECK(x_.dim() == 3 && x_.size(1) > 0 && x_.size(2) > 0, kOp,
                ": expected x of shape (B, E, L) with E > 0 and L > 0, got ", x_.sizes());
    TORCH_CHECK(weight_.dim() == 2 && 0 < weight_.size(1) && weight_.size(1) <= kMaxWidth, kOp,
                ": the CUDA kernels take a weight of shape (E, K) with K of 1 to ", kMaxWidth, ", got ",
                weight_.sizes());
    check_like(weight_, "weight", {x_.size(1), weight_.size(1)}, at::kFloat, x_.device(), kOp);
    if (bias_.has_value()) check_like(*bias_, "bias", {x_.size(1)}, at::kFloat, x_.device(), kOp);
    constexpr int64_t kMaxSize = std::numeric_limits<int>::max() - kBackwardStrip;
    for (const int64_t size : x_.sizes()) {
      TORCH_CHECK(size <= kMaxSize, kOp, ": expected sizes below 2^31, got ", x_.sizes());
    }
    x = with_dense_channels(x_.transpose(1, 2));
    weight = contiguous_and_aligned(weight_);
    if (bias_.has_value()) bias = contiguous_and_aligned(*bias_);
  }

  template <typename T>
  ConvInputs<T> inputs() const {
    return {static_cast<int>(x.size(0)),
            static_cast<int>(x.size(1)),
            static_cast<int>(x.size(2)),
            static_cast<int>(weight.size(1)),
            silu,
            rows_are_aligned(x) && x.size(2) * x.element_size() % kPackBytes == 0,
            input_rows<T>(x),
            weight.const_data_ptr<float>(),
            bias.defined() ? bias.const_data_ptr<float>() : nullptr};
  }
};

// A result with the memory order of x. The kernels write `rows`; where channels are not neighbours in that order, these
// are a buffer that finished() copies.
struct Result {
  Tensor tensor, rows;  // (B, E, L), (B, L, E)

  explicit Result(const Tensor& x) : tensor(at::empty_like(x)) {
    rows = tensor.transpose(1, 2);
    if (!has_dense_channels(rows)) rows = at::empty(rows.sizes(), rows.options());
  }

  Tensor finished() const {
    return has_dense_channels(tensor.transpose(1, 2)) ? tensor : tensor.copy_(rows.transpose(1, 2));
  }
};

}  // namespace

Tensor causal_conv1d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool silu) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ConvArguments arguments(x, weight, bias, silu);
  const Result y(x);
  if (x.numel() == 0) return y.tensor;
  with_type(x.scalar_type(), ConvArguments::kOp, [&](auto zero) {
    using T = decltype(zero);
    ConvInputs<T> inputs = arguments.inputs<T>();
    inputs.aligned &= rows_are_aligned(y.rows);
    C10_CUDA_CHECK(launch_conv_forward(inputs, output_rows<T>(y.rows), c10::cuda::getCurrentCUDAStream()));
  });
  return y.finished();
}

// Returns an empty tensor for the gradient of an absent bias, because a schema has no optional results.
std::tuple<Tensor, Tensor, Tensor> causal_conv1d_backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                                          const std::optional<Tensor>& bias, bool silu) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ConvArguments arguments(x, weight, bias, silu);
  check_like(grad_y, "grad_y", x.sizes(), x.scalar_type(), x.device(), ConvArguments::kOp);
  const Tensor grad_rows = with_dense_channels(grad_y.transpose(1, 2));
  const Result grad_x(x);
  const int64_t strips = x.size(0) * num_strips(x.size(2), kBackwardStrip);
  const Tensor grad_parameters = at::empty({strips, kMaxWidth + 1, x.size(1)}, weight.options());
  if (x.numel() > 0) {
    with_type(x.scalar_type(), ConvArguments::kOp, [&](auto zero) {
      using T = decltype(zero);
      ConvInputs<T> inputs = arguments.inputs<T>();
      inputs.aligned &= rows_are_aligned(grad_rows) && rows_are_aligned(grad_x.rows);
      const ConvGradients<T> gradients{input_rows<T>(grad_rows), output_rows<T>(grad_x.rows),
                                       grad_parameters.mutable_data_ptr<float>()};
      C10_CUDA_CHECK(launch_conv_backward(inputs, gradients, c10::cuda::getCurrentCUDAStream()));
    });
  }
  const Tensor sums = grad_parameters.sum(0);
  const Tensor grad_weight = sums.slice(0, kMaxWidth - weight.size(1), kMaxWidth).t().contiguous();
  return {grad_x.finished(), grad_weight,
          bias.has_value() ? sums[kMaxWidth].clone() : at::empty({0}, weight.options())};
}

}  // namespace mmdefocus::cuda
