#include "cpu/causal_conv1d.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/host.h"
#include "cpu/instruction_sets.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::causal_conv1d";

template <typename S>
const ConvKernels<S>& conv_kernels() {
  if constexpr (std::is_same_v<S, float>) {
    return kernels().conv_float;
  } else {
    return kernels().conv_double;
  }
}

struct Prepared {
  Tensor x, weight, bias;
  bool silu;
  Blocks blocks;

  Prepared(const Tensor& x_, const Tensor& weight_, const std::optional<Tensor>& bias_, bool silu_)
      : x(x_), silu(silu_), blocks(checked(x_, weight_, bias_).size(0), x_.size(1), 1, kChannelsPerBlock) {
    weight = weight_.t().contiguous();
    if (bias_.has_value()) bias = bias_->contiguous();
  }

  template <typename S>
  ConvInputs<S> inputs() const {
    return {x.size(0),
            x.size(1),
            x.size(2),
            weight.size(0),
            silu,
            read<S>(x),
            weight.const_data_ptr<S>(),
            bias.defined() ? bias.const_data_ptr<S>() : nullptr};
  }

 private:
  static const Tensor& checked(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
    check_float(x, kOp);
    TORCH_CHECK(x.dim() == 3 && x.size(2) > 0, kOp, ": expected x of shape (B, E, L) with L > 0, got ", x.sizes());
    TORCH_CHECK(weight.dim() == 2 && weight.size(1) > 0, kOp, ": expected weight of shape (E, K) with K > 0, got ",
                weight.sizes());
    check_like(weight, "weight", {x.size(1), weight.size(1)}, x, kOp);
    if (bias.has_value()) check_like(*bias, "bias", {x.size(1)}, x, kOp);
    return x;
  }
};

Tensor forward(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool silu) {
  const Prepared prepared(x, weight, bias, silu);
  const Tensor y = at::empty_like(x);
  const auto run = [&](auto scalar) {
    using S = decltype(scalar);
    const ConvInputs<S> inputs = prepared.inputs<S>();
    const Sequence<S> out = write<S>(y);
    at::parallel_for(0, prepared.blocks.count, 1, [&](int64_t begin, int64_t end) {
      conv_kernels<S>().forward(inputs, out, prepared.blocks, begin, end);
    });
  };
  x.scalar_type() == at::kFloat ? run(float{}) : run(double{});
  return y;
}

// The gradient of a bias that is not there is an empty tensor: a schema has no optional results.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                            const std::optional<Tensor>& bias, bool silu) {
  const Prepared prepared(x, weight, bias, silu);
  check_like(grad_y, "grad_y", x.sizes(), x, kOp);
  const Tensor dx = at::empty_like(x);
  const Tensor dweight = at::empty({x.size(0), weight.size(1), x.size(1)}, x.options());
  const Tensor dbias = bias.has_value() ? at::empty({x.size(0), x.size(1)}, x.options()) : Tensor();
  const auto run = [&](auto scalar) {
    using S = decltype(scalar);
    const ConvInputs<S> inputs = prepared.inputs<S>();
    const ConvGradients<S> gradients{read<S>(grad_y), write<S>(dx), dweight.mutable_data_ptr<S>(),
                                     dbias.defined() ? dbias.mutable_data_ptr<S>() : nullptr};
    at::parallel_for(0, prepared.blocks.count, 1, [&](int64_t begin, int64_t end) {
      conv_kernels<S>().backward(inputs, gradients, prepared.blocks, begin, end);
    });
  };
  x.scalar_type() == at::kFloat ? run(float{}) : run(double{});
  return {dx, dweight.sum(0).t().contiguous(), dbias.defined() ? dbias.sum(0) : at::empty({0}, x.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("causal_conv1d", &forward);
  m.impl("causal_conv1d_backward", &backward);
}

}  // namespace mmdefocus::cpu
