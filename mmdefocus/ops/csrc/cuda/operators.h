// Host functions of the CUDA operators, which check arguments, allocate results and launch kernels. The schemas, with
// the shapes, are in ../registration.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace mmdefocus::cuda {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> defocus_scan(
    const at::Tensor& u, const at::Tensor& dt, const at::Tensor& A, const at::Tensor& B, const at::Tensor& C,
    const at::Tensor& D, const at::Tensor& z, const at::Tensor& dt_bias, const std::optional<at::Tensor>& freq,
    const std::optional<at::Tensor>& positions, const std::optional<at::Tensor>& initial_state, double delta_scale,
    int64_t group_size, double eps);

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
           at::Tensor>
defocus_scan_backward(const at::Tensor& grad_y, const std::optional<at::Tensor>& grad_last_state, const at::Tensor& u,
                      const at::Tensor& dt, const at::Tensor& A, const at::Tensor& B, const at::Tensor& C,
                      const at::Tensor& D, const at::Tensor& z, const at::Tensor& dt_bias,
                      const std::optional<at::Tensor>& freq, const std::optional<at::Tensor>& positions,
                      const std::optional<at::Tensor>& initial_state, double delta_scale, int64_t group_size,
                      double eps, const at::Tensor& chunk_states, const at::Tensor& normed,
                      const at::Tensor& inverse_rms);

at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                         bool silu);

std::tuple<at::Tensor, at::Tensor, at::Tensor> causal_conv1d_backward(const at::Tensor& grad_y, const at::Tensor& x,
                                                                      const at::Tensor& weight,
                                                                      const std::optional<at::Tensor>& bias, bool silu);

}  // namespace mmdefocus::cuda
