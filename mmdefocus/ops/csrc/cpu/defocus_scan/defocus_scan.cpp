// Host functions of the fused De-focus scan on CPU: checks, allocation, state passing, and the calls of the kernels.
//
// A sequence that is cut into segments takes two passes. The first one scans every segment from a state of 0, which
// gives its local final state and its total decay. State passing, a short loop over segments, turns these into the
// initial state of every segment. The second pass computes the results. The backward pass does the same from the end.
// Shapes: B batch, L time, E channels, N state, M segments per sequence.
#include "cpu/defocus_scan/arguments.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/common/tensor_arguments.h"
#include "cpu/common/instruction_sets.h"
#include "cpu/defocus_scan/rotary.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
constexpr const char* kOp = "mmdefocus::defocus_scan";

template <typename S>
const DefocusKernels<S>& defocus_kernels() {
  if constexpr (std::is_same_v<S, float>) {
    return kernels().defocus_float;
  } else {
    return kernels().defocus_double;
  }
}

// The tensor and scalar arguments of the operator.
struct Arguments {
  const Tensor &u, &dt, &A, &B, &C, &D, &z, &dt_bias;
  const OptionalTensor &freq, &positions, &initial_state;
  double delta_scale;
  int64_t group_size;
  double eps;

  int64_t batch() const { return u.size(0); }
  int64_t length() const { return u.size(1); }
  int64_t channels() const { return u.size(2); }
  int64_t state() const { return A.size(1); }
  at::ScalarType type() const { return compute_type(u, kOp); }
  at::TensorOptions options() const { return u.options().dtype(type()); }

  void check() const {
    const at::ScalarType compute = type();
    TORCH_CHECK(u.dim() == 3 && u.size(1) > 0, kOp, ": expected u of shape (B, L, E) with L > 0, got ", u.sizes());
    TORCH_CHECK(A.dim() == 2 && A.size(1) > 0, kOp, ": expected A of shape (E, N) with N > 0, got ", A.sizes());
    TORCH_CHECK(group_size > 0 && channels() % group_size == 0, kOp, ": expected a group_size that divides ",
                channels(), " channels, got ", group_size);
    TORCH_CHECK(!freq.has_value() || positions.has_value(), kOp, ": expected positions with freq");
    TORCH_CHECK(!freq.has_value() || state() % 2 == 0, kOp, ": expected an even state with freq, got ", state());
    check_tensor(dt, "dt", u.sizes(), u.scalar_type(), kOp);
    check_tensor(z, "z", u.sizes(), u.scalar_type(), kOp);
    check_tensor(B, "B", {batch(), length(), state()}, u.scalar_type(), kOp);
    check_tensor(C, "C", {batch(), length(), state()}, u.scalar_type(), kOp);
    check_tensor(A, "A", {channels(), state()}, compute, kOp);
    check_tensor(D, "D", {channels()}, compute, kOp);
    check_tensor(dt_bias, "dt_bias", {channels()}, compute, kOp);
    if (freq.has_value()) check_tensor(*freq, "freq", {state()}, compute, kOp);
    if (positions.has_value()) check_tensor(*positions, "positions", {length()}, compute, kOp);
    if (initial_state.has_value()) {
      check_tensor(*initial_state, "initial_state", {batch(), channels(), state()}, compute, kOp);
    }
  }
};

// The division of the work, and B and C as the kernels read them.
struct Plan {
  std::optional<Phases> phases;
  Tensor B, C;
  ChannelBlocks blocks;
  Segmentation segmentation;

  // Inside a parallel region, at::parallel_for runs on the calling thread only, and segments would gain nothing.
  explicit Plan(const Arguments& arguments)
      : blocks(arguments.batch(), arguments.channels(), block_channels(arguments.group_size)),
        segmentation(arguments.length(), blocks.count, at::in_parallel_region() ? 1 : at::get_num_threads()) {
    if (arguments.freq.has_value()) phases.emplace(*arguments.positions, *arguments.freq);
    B = rotate(arguments.B, phases, arguments.type());
    C = rotate(arguments.C, phases, arguments.type());
  }

  template <typename S>
  DefocusInputs<S> inputs(const Arguments& arguments, const OptionalTensor& initial_states) const {
    return {arguments.length(),
            arguments.state(),
            arguments.group_size,
            segmentation,
            static_cast<S>(1 / arguments.delta_scale),
            static_cast<S>(arguments.eps),
            input_view(arguments.u, kBLE),
            input_view(arguments.dt, kBLE),
            input_view(arguments.z, kBLE),
            B.const_data_ptr<S>(),
            C.const_data_ptr<S>(),
            input_view(arguments.A, kEN),
            input_view(arguments.D, kE),
            input_view(arguments.dt_bias, kE),
            optional_input_view(initial_states, kBEL)};
  }

  // Calls `work` for ranges of segments of blocks, in several threads.
  template <typename Work>
  void parallel_for(const Work& work) const {
    at::parallel_for(0, blocks.count * segmentation.count, 1, work);
  }

  // (B M, ...) as (B, M, ...).
  Tensor by_sequence(const Tensor& of_segments) const {
    return of_segments.unflatten(0, {of_segments.size(0) / segmentation.count, segmentation.count});
  }

  // State passing: the initial states of all segments, (B M, E, N), from their local final states (B M, E, N), their
  // total_delta (B M, E) and the initial state of the sequence (B, E, N). With `reversed`, the same for gradients: the
  // gradients of final states, from local gradients of initial states and the gradient of the last state.
  Tensor pass_states(const OptionalTensor& boundary_state, const Tensor& local_states, const Tensor& total_delta,
                     const Tensor& A, bool reversed) const {
    const Tensor local = by_sequence(local_states);
    const Tensor decays = by_sequence(at::exp(total_delta.unsqueeze(-1).mul(A)));
    Tensor states = at::zeros_like(local);
    int64_t from = reversed ? segmentation.count - 1 : 0;
    if (boundary_state.has_value()) states.select(1, from).copy_(*boundary_state);
    for (int64_t step = 1; step < segmentation.count; ++step) {
      const int64_t to = reversed ? from - 1 : from + 1;
      states.select(1, to).copy_(at::addcmul(local.select(1, from), decays.select(1, from), states.select(1, from)));
      from = to;
    }
    return states.flatten(0, 1);
  }

 private:
  // Whole groups, so that the norm of a block runs on values that are still in cache.
  static int64_t block_channels(int64_t group_size) {
    return group_size * std::max<int64_t>(1, kBlockChannels / group_size);
  }
};

// Of the tensors for the backward pass, only chunk_states exists here: the kernels compute the norm again.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(const Tensor& u, const Tensor& dt, const Tensor& A,
                                                           const Tensor& B, const Tensor& C, const Tensor& D,
                                                           const Tensor& z, const Tensor& dt_bias,
                                                           const OptionalTensor& freq, const OptionalTensor& positions,
                                                           const OptionalTensor& initial_state, double delta_scale,
                                                           int64_t group_size, double eps) {
  const Arguments arguments{u,           dt,         A,  B, C, D, z, dt_bias, freq, positions, initial_state,
                            delta_scale, group_size, eps};
  arguments.check();
  const Plan plan(arguments);
  const int64_t batch = u.size(0), length = u.size(1), channels = u.size(2), state = A.size(1);
  const int64_t segments = batch * plan.segmentation.count;
  const auto options = arguments.options();
  const Tensor y = at::empty(u.sizes(), u.options());
  const Tensor final_states = at::empty({segments, channels, state}, options);
  const Tensor chunk_states = at::empty({batch, num_chunks(length), state, channels}, options);
  with_compute_type(arguments.type(), [&](auto scalar) {
    using S = decltype(scalar);
    OptionalTensor initial_states = initial_state;
    const auto run = [&](const Tensor& written_y, const Tensor& total_delta) {
      const DefocusInputs<S> inputs = plan.inputs<S>(arguments, initial_states);
      const DefocusOutputs<S> outputs{optional_output_view(written_y, kBLE), output_view(final_states, kBEL),
                                      optional_output_view(total_delta, kBE), chunk_states.mutable_data_ptr<S>()};
      plan.parallel_for(
          [&](int64_t begin, int64_t end) { defocus_kernels<S>().forward(inputs, outputs, plan.blocks, begin, end); });
    };
    if (plan.segmentation.count > 1) {
      const Tensor total_delta = at::empty({segments, channels}, options);
      initial_states = std::nullopt;
      run(Tensor(), total_delta);
      initial_states = plan.pass_states(initial_state, final_states, total_delta, A, false);
    }
    run(y, Tensor());
  });
  return {y, plan.by_sequence(final_states).select(1, -1).contiguous(), chunk_states, at::empty({0}, options),
          at::empty({0}, options)};
}

// In the order of the schema. The gradient of an argument that is None is an empty tensor.
using TenTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

TenTensors backward(const Tensor& grad_y, const OptionalTensor& grad_last_state, const Tensor& u, const Tensor& dt,
                    const Tensor& A, const Tensor& B, const Tensor& C, const Tensor& D, const Tensor& z,
                    const Tensor& dt_bias, const OptionalTensor& freq, const OptionalTensor& positions,
                    const OptionalTensor& initial_state, double delta_scale, int64_t group_size, double eps,
                    const Tensor& chunk_states, const Tensor&, const Tensor&) {
  const Arguments arguments{u,           dt,         A,  B, C, D, z, dt_bias, freq, positions, initial_state,
                            delta_scale, group_size, eps};
  arguments.check();
  const int64_t batch = u.size(0), length = u.size(1), channels = u.size(2), state = A.size(1);
  check_tensor(grad_y, "grad_y", u.sizes(), u.scalar_type(), kOp);
  check_tensor(chunk_states, "chunk_states", {batch, num_chunks(length), state, channels}, arguments.type(), kOp);
  if (grad_last_state.has_value()) {
    check_tensor(*grad_last_state, "grad_last_state", {batch, channels, state}, arguments.type(), kOp);
  }
  const Plan plan(arguments);
  const ChannelBlocks& blocks = plan.blocks;
  const auto options = arguments.options();
  const Tensor states = chunk_states.contiguous();
  // Gradients of parameters and of B and C are partial sums per segment or block, added up below in a fixed order: no
  // atomics, so the result does not depend on the schedule of the threads.
  const Tensor grad_u = at::empty(u.sizes(), u.options()), grad_dt = at::empty(u.sizes(), u.options());
  const Tensor grad_z = at::empty(u.sizes(), u.options());
  const int64_t segments = batch * plan.segmentation.count;
  const Tensor grad_A = at::empty({segments, channels, state}, options);
  const Tensor grad_rotated_B = at::empty({batch, blocks.per_sequence, length, state}, options);
  const Tensor grad_rotated_C = at::empty_like(grad_rotated_B);
  const Tensor grad_D = at::empty({segments, channels}, options), grad_dt_bias = at::empty_like(grad_D);
  const Tensor grad_initial_states = at::empty({segments, channels, state}, options);
  with_compute_type(arguments.type(), [&](auto scalar) {
    using S = decltype(scalar);
    OptionalTensor grad_final_states = grad_last_state;
    const DefocusInputs<S> inputs = plan.inputs<S>(arguments, {});  // chunk_states hold the initial states
    const auto run = [&](const Tensor& written_grad_z, const Tensor& total_delta) {
      const DefocusGradients<S> gradients{input_view(grad_y, kBLE),
                                          optional_input_view(grad_final_states, kBEL),
                                          states.const_data_ptr<S>(),
                                          output_view(grad_u, kBLE),
                                          output_view(grad_dt, kBLE),
                                          optional_output_view(written_grad_z, kBLE),
                                          grad_rotated_B.mutable_data_ptr<S>(),
                                          grad_rotated_C.mutable_data_ptr<S>(),
                                          output_view(grad_A, kBEL),
                                          output_view(grad_D, kBE),
                                          output_view(grad_dt_bias, kBE),
                                          output_view(grad_initial_states, kBEL),
                                          optional_output_view(total_delta, kBE)};
      plan.parallel_for(
          [&](int64_t begin, int64_t end) { defocus_kernels<S>().backward(inputs, gradients, blocks, begin, end); });
    };
    if (plan.segmentation.count > 1) {
      const Tensor total_delta = at::empty({segments, channels}, options);
      grad_final_states = std::nullopt;
      run(Tensor(), total_delta);
      grad_final_states = plan.pass_states(grad_last_state, grad_initial_states, total_delta, A, true);
    }
    run(grad_z, Tensor());
  });
  const auto no_gradient = [&] { return at::empty({0}, options); };
  const Tensor grad_phases = freq.has_value() ? at::zeros({length, state}, options) : Tensor();
  const Tensor grad_B = rotate_backward(grad_rotated_B, B, plan.phases, grad_phases);
  const Tensor grad_C = rotate_backward(grad_rotated_C, C, plan.phases, grad_phases);
  return {grad_u,
          grad_dt,
          grad_A.sum(0),
          grad_B,
          grad_C,
          grad_D.sum(0),
          grad_z,
          grad_dt_bias.sum(0),
          freq.has_value() ? positions->unsqueeze(1).mul(grad_phases).sum(0) : no_gradient(),
          initial_state.has_value() ? plan.by_sequence(grad_initial_states).select(1, 0).contiguous() : no_gradient()};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("defocus_scan", &forward);
  m.impl("defocus_scan_backward", &backward);
}

}  // namespace mmdefocus::cpu
