// Host functions of the depthwise causal convolution on CPU.
// Shapes: B batch, E channels, L time, K kernel width.
#include "cpu/causal_conv1d/arguments.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/common/instruction_sets.h"
#include "cpu/common/tensor_arguments.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::causal_conv1d";

const ConvKernels& conv_kernels(at::ScalarType type) {
  return type == at::kDouble ? kernels().conv_double : kernels().conv_float;
}

void check(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, at::ScalarType type) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) > 0, kOp, ": expected x of shape (B, E, L) with L > 0, got ", x.sizes());
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) > 0, kOp, ": expected weight of shape (E, K) with K > 0, got ",
              weight.sizes());
  check_tensor(weight, "weight", {x.size(1), weight.size(1)}, type, kOp);
  if (bias.has_value()) check_tensor(*bias, "bias", {x.size(1)}, type, kOp);
}

ConvInputs conv_inputs(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool silu) {
  return {x.size(2), weight.size(1), silu, input_view(x, kBEL), input_view(weight, kEN), optional_input_view(bias, kE)};
}

// Rows of 256 channels are read at about the speed of memory; blocks are smaller where threads would go without one.
// The result does not depend on the size: every channel is on its own.
ChannelBlocks blocks_of(const Tensor& x) {
  const ChannelBlocks wide(x.size(0), x.size(1), 4 * kBlockChannels);
  return wide.count >= at::get_num_threads() ? wide : ChannelBlocks(x.size(0), x.size(1), kBlockChannels);
}

Tensor forward(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool silu) {
  const at::ScalarType type = compute_type(x, kOp);
  check(x, weight, bias, type);
  const ConvInputs in = conv_inputs(x, weight, bias, silu);
  const Tensor y = at::empty_like(x);
  const OutputView out = output_view(y, kBEL);
  const ChannelBlocks blocks = blocks_of(x);
  at::parallel_for(0, blocks.count, 1,
                   [&](int64_t begin, int64_t end) { conv_kernels(type).forward(in, out, blocks, begin, end); });
  return y;
}

// Returns an empty tensor for the gradient of an absent bias, because a schema has no optional results.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                            const std::optional<Tensor>& bias, bool silu) {
  const at::ScalarType type = compute_type(x, kOp);
  check(x, weight, bias, type);
  check_tensor(grad_y, "grad_y", x.sizes(), x.scalar_type(), kOp);
  const ConvInputs in = conv_inputs(x, weight, bias, silu);
  const Tensor grad_x = at::empty_like(x);
  // One partial sum per sequence, added up below: no two threads write the same element, and the order is fixed.
  const Tensor grad_weight = at::empty({x.size(0), x.size(1), weight.size(1)}, weight.options());
  const Tensor grad_bias = bias.has_value() ? at::empty({x.size(0), x.size(1)}, weight.options()) : Tensor();
  const ConvGradients gradients{input_view(grad_y, kBEL), output_view(grad_x, kBEL), output_view(grad_weight, kBEL),
                                optional_output_view(grad_bias, kBE)};
  const ChannelBlocks blocks = blocks_of(x);
  at::parallel_for(0, blocks.count, 1,
                   [&](int64_t begin, int64_t end) { conv_kernels(type).backward(in, gradients, blocks, begin, end); });
  return {grad_x, grad_weight.sum(0), bias.has_value() ? grad_bias.sum(0) : at::empty({0}, weight.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("causal_conv1d", &forward);
  m.impl("causal_conv1d_backward", &backward);
}

}  // namespace mmdefocus::cpu
