// The rotation of B and C on CPU. Pair (2i, 2i + 1) of the state rotates by its phase; the two entries of a pair have
// phases of their own, as the learnable frequencies do.
// Shapes: B batch, L time, N state.
#include "cpu/defocus_scan/rotary.h"

#include <ATen/Functions.h>

#include "cpu/common/tensor_arguments.h"

namespace mmdefocus::cpu {

using at::Tensor;

namespace {
// Steps below which another thread costs more than it saves.
constexpr int64_t kGrain = 256;
}  // namespace

Phases::Phases(const Tensor& positions, const Tensor& freq) {
  const Tensor phases = positions.unsqueeze(1).mul(freq);
  cos = phases.cos();
  sin = phases.sin();
}

Tensor rotate(const Tensor& x, const std::optional<Phases>& phases, at::ScalarType type) {
  const Tensor source = x.to(type).contiguous();
  if (!phases.has_value()) return source;
  const int64_t L = x.size(1), N = x.size(2);
  const Tensor rotated = at::empty_like(source);
  with_compute_type(type, [&](auto scalar) {
    using S = decltype(scalar);
    const S* cos = phases->cos.const_data_ptr<S>();
    const S* sin = phases->sin.const_data_ptr<S>();
    const S* from = source.const_data_ptr<S>();
    S* to = rotated.mutable_data_ptr<S>();
    at::parallel_for(0, x.size(0) * L, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const S *v = from + row * N, *c = cos + row % L * N, *s = sin + row % L * N;
        for (int64_t n = 0; n < N; n += 2) {
          to[row * N + n] = v[n] * c[n] - v[n + 1] * s[n];
          to[row * N + n + 1] = v[n + 1] * c[n + 1] + v[n] * s[n + 1];
        }
      }
    });
  });
  return rotated;
}

Tensor rotate_backward(const Tensor& grad_output, const Tensor& x, const std::optional<Phases>& phases,
                       const Tensor& grad_phases) {
  const Tensor total = grad_output.size(1) == 1 ? grad_output.select(1, 0) : grad_output.sum(1);  // (B, L, N)
  if (!phases.has_value()) return total.to(x.scalar_type());
  const int64_t batch = x.size(0), L = x.size(1), N = x.size(2);
  const Tensor source = x.to(total.scalar_type()).contiguous(), grad_x = at::empty_like(source);
  with_compute_type(total.scalar_type(), [&](auto scalar) {
    using S = decltype(scalar);
    const S* cos = phases->cos.const_data_ptr<S>();
    const S* sin = phases->sin.const_data_ptr<S>();
    const S* grad_rotated = total.const_data_ptr<S>();
    const S* from = source.const_data_ptr<S>();
    S* to = grad_x.mutable_data_ptr<S>();
    S* phase = grad_phases.mutable_data_ptr<S>();
    // Threads divide time, and each sums over the batch: the gradients of the phases of a step have one writer.
    at::parallel_for(0, L, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const S *c = cos + t * N, *s = sin + t * N;
        for (int64_t b = 0; b < batch; ++b) {
          const int64_t row = (b * L + t) * N;
          const S *g = grad_rotated + row, *v = from + row;
          for (int64_t n = 0; n < N; n += 2) {
            to[row + n] = g[n] * c[n] + g[n + 1] * s[n + 1];
            to[row + n + 1] = g[n + 1] * c[n + 1] - g[n] * s[n];
            phase[t * N + n] -= g[n] * (v[n] * s[n] + v[n + 1] * c[n]);
            phase[t * N + n + 1] += g[n + 1] * (v[n] * c[n + 1] - v[n + 1] * s[n + 1]);
          }
        }
      }
    });
  });
  return grad_x.to(x.scalar_type());
}

}  // namespace mmdefocus::cpu
