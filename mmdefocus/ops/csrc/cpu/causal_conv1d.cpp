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

ConvInputs inputs(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool silu) {
  return {x.size(2), weight.size(1), silu, read(x, kBEL), read(weight, kEN), read_if(bias, kE)};
}

// Groups do not matter here.
Blocks blocks_of(const Tensor& x) { return {x.size(0), x.size(1), 1, kChannelsPerBlock}; }

Tensor forward(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, bool silu) {
  const at::ScalarType type = compute_type(x, kOp);
  check(x, weight, bias, type);
  const ConvInputs in = inputs(x, weight, bias, silu);
  const Tensor y = at::empty_like(x);
  const Output out = write(y, kBEL);
  const Blocks blocks = blocks_of(x);
  at::parallel_for(0, blocks.count, 1,
                   [&](int64_t begin, int64_t end) { conv_kernels(type).forward(in, out, blocks, begin, end); });
  return y;
}

// The gradient of a bias that is not there is an empty tensor: a schema has no optional results.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                            const std::optional<Tensor>& bias, bool silu) {
  const at::ScalarType type = compute_type(x, kOp);
  check(x, weight, bias, type);
  check_tensor(grad_y, "grad_y", x.sizes(), x.scalar_type(), kOp);
  const ConvInputs in = inputs(x, weight, bias, silu);
  const Tensor dx = at::empty_like(x);
  const Tensor dweight = at::empty({x.size(0), x.size(1), weight.size(1)}, weight.options());
  const Tensor dbias = bias.has_value() ? at::empty({x.size(0), x.size(1)}, weight.options()) : Tensor();
  const ConvGradients gradients{read(grad_y, kBEL), write(dx, kBEL), write(dweight, kBEL), write_if(dbias, kBE)};
  const Blocks blocks = blocks_of(x);
  at::parallel_for(0, blocks.count, 1,
                   [&](int64_t begin, int64_t end) { conv_kernels(type).backward(in, gradients, blocks, begin, end); });
  return {dx, dweight.sum(0), bias.has_value() ? dbias.sum(0) : at::empty({0}, weight.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("causal_conv1d", &forward);
  m.impl("causal_conv1d_backward", &backward);
}

}  // namespace mmdefocus::cpu
