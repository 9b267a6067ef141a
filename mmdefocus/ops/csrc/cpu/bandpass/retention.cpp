// Host functions of retention on CPU.
// Shapes: see arguments.h.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/bandpass/host.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::fused_retention";

std::vector<int64_t> state_shape(const BandpassSizes& sizes) {
  return {sizes.batch, sizes.heads, sizes.values, sizes.channels};
}

std::vector<int64_t> saved_states_shape(const BandpassSizes& sizes) {
  return {sizes.batch, sizes.heads, sizes.tiles, sizes.padded_values, sizes.padded_channels};
}

// The last token has position 0, as the states count their phases from it.
int64_t first_position(const BandpassSizes& sizes) { return 1 - sizes.length; }

// All rows of the values of a head, unless there are fewer heads than threads. Every item computes the logits.
int64_t rows_per_item(const BandpassSizes& sizes) {
  const int64_t heads = std::max<int64_t>(sizes.batch * sizes.heads, 1);
  const int64_t items = ceil_div(at::get_num_threads(), heads);
  return ceil_div(std::max<int64_t>(sizes.padded_values, 1), items * kPadding) * kPadding;
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const std::optional<Tensor>& decay, const std::optional<Tensor>& freq,
                                           const std::optional<Tensor>& initial_state, double scale,
                                           bool return_last_state, bool save_states) {
  const BandpassTensors x(kOp, q, k, v, decay, freq);
  const BandpassSizes& sizes = x.sizes;
  if (initial_state.has_value()) check_tensor(*initial_state, "initial_state", state_shape(sizes), x.type, kOp);
  const Tensor initial = initial_state.has_value() ? initial_state->contiguous() : Tensor();
  const auto wanted = [](bool yes, std::vector<int64_t> shape) { return yes ? shape : std::vector<int64_t>{0}; };
  const Tensor y = empty_heads(v);
  const Tensor states = at::empty(wanted(save_states, saved_states_shape(sizes)), x.compute_options());
  const Tensor last_state = at::empty(wanted(return_last_state, state_shape(sizes)), x.compute_options());
  with_compute_type(x.type, [&](auto scalar) {
    using S = decltype(scalar);
    const FilledInputs<S> filled(x, first_position(sizes), scale, true);
    const RetentionOutputs<S> outputs{heads_output(y), initial.defined() ? initial.const_data_ptr<S>() : nullptr,
                                      save_states ? states.mutable_data_ptr<S>() : nullptr,
                                      return_last_state ? last_state.mutable_data_ptr<S>() : nullptr,
                                      rows_per_item(sizes)};
    const int64_t items = sizes.batch * sizes.heads * ceil_div(sizes.padded_values, outputs.block_rows);
    run_items(items, 1, [&](int64_t begin, int64_t end) {
      bandpass_kernels<S>().retention_forward(filled.inputs(), outputs, begin, end);
    });
  });
  return {y, last_state, states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_last_state, const Tensor& q, const Tensor& k,
    const Tensor& v, const std::optional<Tensor>& decay, const std::optional<Tensor>& freq, const Tensor& states,
    bool has_initial_state, double scale) {
  const BandpassTensors x(kOp, q, k, v, decay, freq);
  const BandpassSizes& sizes = x.sizes;
  const at::TensorOptions options = x.compute_options();
  if (grad_y.has_value()) check_tensor(*grad_y, "grad_y", v.sizes(), v.scalar_type(), kOp);
  if (grad_last_state.has_value()) check_tensor(*grad_last_state, "grad_last_state", state_shape(sizes), x.type, kOp);
  check_tensor(states, "states", saved_states_shape(sizes), x.type, kOp);
  const Tensor grad_outputs = grad_y.has_value() ? *grad_y : at::zeros({1}, v.options()).expand(v.sizes());
  const Tensor grad_last = grad_last_state.has_value() ? grad_last_state->contiguous() : Tensor();
  const Tensor saved_states = states.contiguous(), grad_states = at::empty_like(saved_states);
  const Tensor grad_q = empty_heads(q), grad_k = empty_heads(k), grad_v = empty_heads(v);
  const Tensor grad_initial = at::empty(has_initial_state ? state_shape(sizes) : std::vector<int64_t>{0}, options);
  const Tensor grad_self = at::empty(q.sizes().slice(0, 3), options);
  const Tensor state_rates = at::empty({sizes.batch, sizes.heads, sizes.padded_values, sizes.padded_channels}, options);
  ParameterGradients parameters(x);
  with_compute_type(x.type, [&](auto scalar) {
    using S = decltype(scalar);
    const FilledInputs<S> filled(x, first_position(sizes), scale, true);
    const BandpassInputs<S>& inputs = filled.inputs();
    const RetentionGradients<S> gradients{heads_input(grad_outputs),
                                          grad_last.defined() ? grad_last.const_data_ptr<S>() : nullptr,
                                          saved_states.const_data_ptr<S>(),
                                          grad_states.mutable_data_ptr<S>(),
                                          has_initial_state ? grad_initial.mutable_data_ptr<S>() : nullptr,
                                          heads_output(grad_q),
                                          heads_output(grad_k),
                                          heads_output(grad_v),
                                          grad_self.mutable_data_ptr<S>(),
                                          state_rates.mutable_data_ptr<S>(),
                                          parameters.rates.mutable_data_ptr<S>(),
                                          parameters.phases.mutable_data_ptr<S>()};
    run_items(x.tiles(), 1, [&](int64_t begin, int64_t end) {
      bandpass_kernels<S>().retention_local_gradients(inputs, gradients, begin, end);
    });
    run_items(x.state_rows(), kRowGrain, [&](int64_t begin, int64_t end) {
      bandpass_kernels<S>().retention_pass_gradients(inputs, gradients, begin, end);
    });
    run_items(x.tiles(), 1, [&](int64_t begin, int64_t end) {
      bandpass_kernels<S>().retention_backward(inputs, gradients, begin, end);
    });
  });
  const Tensor more_rates = state_rates.sum(at::IntArrayRef{0, 2});  // (H, D)
  return {grad_q, grad_k, grad_v, parameters.decay(more_rates), parameters.freq(), grad_initial};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("fused_retention", &forward);
  m.impl("fused_retention_backward", &backward);
}

}  // namespace mmdefocus::cpu
