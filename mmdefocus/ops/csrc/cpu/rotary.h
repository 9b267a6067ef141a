// The learnable rotary position embedding of the small projections B and C, and its gradient.
// Legend: B batch, L time, N state, K partial sums.
#pragma once

#include <ATen/core/Tensor.h>

namespace mmdefocus::cpu {

// cos and sin of position * frequency, (L, N).
struct Phases {
  at::Tensor cos, sin;

  Phases(const at::Tensor& positions, const at::Tensor& freq);
};

// `x` (B, L, N), of any floating type, as contiguous tensor of `type`, rotated where there are phases.
at::Tensor rotate(const at::Tensor& x, const std::optional<Phases>& phases, at::ScalarType type);

// The gradient of rotate(x): `grad` (B, K, L, N) are partial sums of the gradient of its result. Returns the gradient
// of x in its type, and adds that of the phases to `grad_phases` (L, N) where there are phases.
at::Tensor rotate_backward(const at::Tensor& grad, const at::Tensor& x, const std::optional<Phases>& phases,
                           const at::Tensor& grad_phases);

}  // namespace mmdefocus::cpu
