// Host functions of band-pass attention on CPU.
// Shapes: see arguments.h.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/bandpass/host.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::fused_bandpass_attention";

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const std::optional<Tensor>& decay, const std::optional<Tensor>& freq, bool causal,
                                   double scale) {
  const BandpassTensors x(kOp, q, k, v, decay, freq);
  const Tensor y = empty_heads(v);
  const Tensor lse = at::empty(q.sizes().slice(0, 3), x.compute_options());
  with_compute_type(x.type, [&](auto scalar) {
    using S = decltype(scalar);
    const FilledInputs<S> filled(x, 0, scale, causal);
    const AttentionOutputs<S> outputs{heads_output(y), lse.mutable_data_ptr<S>()};
    run_items(x.tiles(), 1, [&](int64_t begin, int64_t end) {
      bandpass_kernels<S>().attention_forward(filled.inputs(), outputs, begin, end);
    });
  });
  return {y, lse};
}

// Groups of tiles of queries per head: more than one only if there are fewer heads than threads, because every group
// has gradients of all keys of its own.
int64_t groups_per_head(const BandpassSizes& sizes) {
  const int64_t heads = std::max<int64_t>(sizes.batch * sizes.heads, 1);
  return std::min(ceil_div(at::get_num_threads(), heads), sizes.tiles);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_y, const Tensor& q, const Tensor& k,
                                                            const Tensor& v, const std::optional<Tensor>& decay,
                                                            const std::optional<Tensor>& freq, const Tensor& y,
                                                            const Tensor& lse, bool causal, double scale) {
  const BandpassTensors x(kOp, q, k, v, decay, freq);
  check_tensor(grad_y, "grad_y", v.sizes(), v.scalar_type(), kOp);
  check_tensor(y, "y", v.sizes(), v.scalar_type(), kOp);
  check_tensor(lse, "lse", q.sizes().slice(0, 3), x.type, kOp);
  const BandpassSizes& sizes = x.sizes;
  const int64_t groups = groups_per_head(sizes), tokens = x.tiles() * kTile;
  const at::TensorOptions options = x.compute_options();
  const Tensor saved_lse = lse.contiguous();
  const Tensor grad_q = empty_heads(q), grad_k = empty_heads(k), grad_v = empty_heads(v);
  const Tensor grad_keys = at::empty({causal ? 1 : 2, groups, tokens, sizes.padded_channels}, options);
  const Tensor grad_values = at::empty({groups, tokens, sizes.padded_values}, options);
  const Tensor grad_self = at::empty(q.sizes().slice(0, 3), options);
  ParameterGradients parameters(x);
  with_compute_type(x.type, [&](auto scalar) {
    using S = decltype(scalar);
    const FilledInputs<S> filled(x, 0, scale, causal);
    const Tensor direct_keys =
        filled.has_direct_channels() ? at::empty({tokens, sizes.padded_channels}, options) : Tensor();
    S* keys = grad_keys.mutable_data_ptr<S>();
    const AttentionGradients<S> gradients{heads_input(y),
                                          heads_input(grad_y),
                                          saved_lse.const_data_ptr<S>(),
                                          groups,
                                          heads_output(grad_q),
                                          heads_output(grad_k),
                                          heads_output(grad_v),
                                          keys,
                                          causal ? nullptr : keys + groups * tokens * sizes.padded_channels,
                                          grad_values.mutable_data_ptr<S>(),
                                          direct_keys.defined() ? direct_keys.mutable_data_ptr<S>() : nullptr,
                                          grad_self.mutable_data_ptr<S>(),
                                          parameters.rates.mutable_data_ptr<S>(),
                                          parameters.phases.mutable_data_ptr<S>()};
    run_items(sizes.batch * sizes.heads * groups, 1, [&](int64_t begin, int64_t end) {
      bandpass_kernels<S>().attention_backward(filled.inputs(), gradients, begin, end);
    });
    run_items(x.tiles(), 1, [&](int64_t begin, int64_t end) {
      bandpass_kernels<S>().attention_backward_keys(filled.inputs(), gradients, begin, end);
    });
  });
  return {grad_q, grad_k, grad_v, parameters.decay(), parameters.freq()};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("fused_bandpass_attention", &forward);
  m.impl("fused_bandpass_attention_backward", &backward);
}

}  // namespace mmdefocus::cpu
