// The learnable rotary position embedding of the projections B and C, and its gradient. They are (B, L, N), smaller
// than the activations by a factor of E / N, so a pass over them before the scan costs little.
// Shapes: B batch, L time, N state, K partial sums.
#pragma once

#include <ATen/core/Tensor.h>

namespace mmdefocus::cpu {

// Cosine and sine of position * frequency, (L, N).
struct Phases {
  at::Tensor cos, sin;

  Phases(const at::Tensor& positions, const at::Tensor& freq);
};

// Returns `x` (B, L, N), of any floating type, rotated if there are phases, as a contiguous tensor of `type`.
at::Tensor rotate(const at::Tensor& x, const std::optional<Phases>& phases, at::ScalarType type);

// Gradient of rotate(x), given partial sums `grad_output` (B, K, L, N) of the gradient of its result. Returns the
// gradient of x in the type of x, and adds the gradient of the phases to `grad_phases` (L, N) if there are phases.
at::Tensor rotate_backward(const at::Tensor& grad_output, const at::Tensor& x, const std::optional<Phases>& phases,
                           const at::Tensor& grad_phases);

}  // namespace mmdefocus::cpu
