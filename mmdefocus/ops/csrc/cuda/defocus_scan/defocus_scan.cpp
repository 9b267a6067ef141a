// Host functions of the De-focus scan with CUDA: checks, allocation, and the order of the launches.
//
// A sequence that is cut into segments takes three launches instead of one: the local final state of every segment,
// state passing between segments, and the pass that computes the results from the right initial states.
// Shapes: B batch, L tokens, E channels, N state, M segments per sequence.
#include <ATen/Functions.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <vector>

#include "cuda/operators.h"
#include "cuda/defocus_scan/checked_arguments.h"

namespace mmdefocus::cuda {

namespace {

using at::Tensor;

// Buffers for local states, which state passing overwrites with initial states.
struct SegmentStates {
  Tensor states, total_delta;  // (B, M, E, N), (B, M, E)

  explicit SegmentStates(const ScanArguments& arguments) {
    const Sizes& sizes = arguments.sizes;
    states = arguments.empty({sizes.batch, sizes.segments, sizes.channels, sizes.state});
    total_delta = arguments.empty({sizes.batch, sizes.segments, sizes.channels});
  }

  LocalStates local() const { return {states.mutable_data_ptr<float>(), total_delta.mutable_data_ptr<float>()}; }
};

const float* data_or_null(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

template <typename T>
Tensor rotate(const ScanArguments& arguments, cudaStream_t stream) {
  const Sizes& sizes = arguments.sizes;
  const Tensor rotated = arguments.empty({sizes.batch, sizes.length, 2 * padded_state(sizes.state)});
  C10_CUDA_CHECK(launch_rotate(arguments.projections<T>(), rotated.mutable_data_ptr<float>(), stream));
  return rotated;
}

// What the backward pass needs in addition to the inputs.
struct SavedForBackward {
  Tensor chunk_states, normed, inverse_rms;

  static std::vector<int64_t> norm_shape(const Sizes& sizes) {
    return {sizes.batch, sizes.length, sizes.channels / sizes.group_size};
  }

  static std::vector<int64_t> chunk_shape(const Sizes& sizes) {
    return {sizes.batch, num_chunks(sizes.length), sizes.channels, sizes.state};
  }

  static at::ScalarType normed_type(const Tensor& u) { return u.scalar_type() == at::kFloat ? at::kFloat : at::kHalf; }
};

template <typename T>
void run_forward(const ScanArguments& arguments, const Tensor& y, const Tensor& last_state,
                 const SavedForBackward& saved) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const Tensor rotated = rotate<T>(arguments, stream);
  const ScanInputs<T> inputs = arguments.inputs<T>(rotated);
  Tensor initial_states = arguments.initial_state;
  if (arguments.sizes.segments > 1) {
    const SegmentStates segments(arguments);
    C10_CUDA_CHECK(launch_local_states(inputs, segments.local(), stream));
    C10_CUDA_CHECK(launch_state_passing(arguments.sizes, inputs.A, data_or_null(arguments.initial_state), false,
                                        segments.local(), stream));
    initial_states = segments.states;
  }
  const ForwardArguments<T> outputs{data_or_null(initial_states),
                                    y.mutable_data_ptr<T>(),
                                    last_state.mutable_data_ptr<float>(),
                                    saved.chunk_states.mutable_data_ptr<float>(),
                                    saved.normed.mutable_data_ptr<Saved<T>>(),
                                    saved.inverse_rms.mutable_data_ptr<float>()};
  C10_CUDA_CHECK(launch_forward(inputs, outputs, stream));
}

// The arguments that only the backward pass has, checked, in the memory layout that the kernels read.
struct SavedAndGradients {
  Tensor grad_y, grad_last_state;
  SavedForBackward saved;

  SavedAndGradients(const ScanArguments& arguments, const Tensor& grad_y_,
                    const std::optional<Tensor>& grad_last_state_, const SavedForBackward& saved_)
      : saved(saved_) {
    const Tensor& u = arguments.u;
    const Sizes& sizes = arguments.sizes;
    const char* op = ScanArguments::kOp;
    check_like(grad_y_, "grad_y", u.sizes(), u.scalar_type(), u.device(), op);
    check_like(saved.chunk_states, "chunk_states", SavedForBackward::chunk_shape(sizes), at::kFloat, u.device(), op);
    check_like(saved.normed, "normed", u.sizes(), SavedForBackward::normed_type(u), u.device(), op);
    check_like(saved.inverse_rms, "inverse_rms", SavedForBackward::norm_shape(sizes), at::kFloat, u.device(), op);
    grad_y = with_dense_channels(grad_y_);
    for (Tensor* tensor : {&saved.chunk_states, &saved.normed, &saved.inverse_rms}) {
      *tensor = contiguous_and_aligned(*tensor);
    }
    if (grad_last_state_.has_value()) {
      check_like(*grad_last_state_, "grad_last_state", {sizes.batch, sizes.channels, sizes.state}, at::kFloat,
                 u.device(), op);
      grad_last_state = contiguous_and_aligned(*grad_last_state_);
    }
  }
};

// The results of the backward pass. Gradients of parameters are partial sums per segment or thread block, which the
// operator adds up by torch in a fixed order: with atomics, results would differ from run to run.
struct Gradients {
  Tensor u, dt, z, B, C, A, D, dt_bias, freq, initial_state;

  explicit Gradients(const ScanArguments& arguments) {
    const Sizes& sizes = arguments.sizes;
    const int64_t segments = static_cast<int64_t>(sizes.batch) * sizes.segments;
    for (Tensor* tensor : {&u, &dt, &z}) *tensor = at::empty(arguments.u.sizes(), arguments.u.options());
    for (Tensor* tensor : {&B, &C}) *tensor = at::empty(arguments.B.sizes(), arguments.u.options());
    A = arguments.empty({segments, sizes.channels, sizes.state});
    D = arguments.empty({segments, sizes.channels});
    dt_bias = arguments.empty({segments, sizes.channels});
    freq = arguments.freq.defined() ? arguments.empty({rotary_blocks(sizes), sizes.state}) : arguments.empty({1, 0});
    initial_state = arguments.empty({0});
    if (arguments.initial_state.defined()) initial_state = at::empty_like(arguments.initial_state);
  }
};

template <typename T>
void run_backward(const ScanArguments& arguments, const SavedAndGradients& given, const Gradients& gradients) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const Sizes& sizes = arguments.sizes;
  const Tensor rotated = rotate<T>(arguments, stream);
  BackwardInputs<T> inputs{arguments.inputs<T>(rotated), input_rows<T>(given.grad_y),
                           given.saved.chunk_states.const_data_ptr<float>(), input_rows<Saved<T>>(given.saved.normed),
                           given.saved.inverse_rms.const_data_ptr<float>()};
  inputs.scan.sizes.aligned &= rows_are_aligned(given.grad_y);
  Tensor grad_final_states = given.grad_last_state;
  if (sizes.segments > 1) {
    const SegmentStates segments(arguments);
    C10_CUDA_CHECK(launch_local_state_gradients(inputs, segments.local(), stream));
    C10_CUDA_CHECK(launch_state_passing(sizes, inputs.scan.A, data_or_null(given.grad_last_state), true,
                                        segments.local(), stream));
    grad_final_states = segments.states;
  }
  const Tensor grad_rotated =
      arguments.empty({sizes.batch, sizes.length, sizes.channel_blocks, 2 * padded_state(sizes.state)});
  const BackwardArguments<T> outputs{
      data_or_null(grad_final_states),
      output_rows<T>(gradients.u),
      output_rows<T>(gradients.dt),
      output_rows<T>(gradients.z),
      gradients.A.mutable_data_ptr<float>(),
      gradients.D.mutable_data_ptr<float>(),
      gradients.dt_bias.mutable_data_ptr<float>(),
      grad_rotated.mutable_data_ptr<float>(),
      arguments.initial_state.defined() ? gradients.initial_state.mutable_data_ptr<float>() : nullptr};
  C10_CUDA_CHECK(launch_backward(inputs, outputs, stream));
  const RotaryGradients<T> rotary_gradients{grad_rotated.const_data_ptr<float>(), gradients.B.mutable_data_ptr<T>(),
                                            gradients.C.mutable_data_ptr<T>(),
                                            gradients.freq.mutable_data_ptr<float>()};
  C10_CUDA_CHECK(launch_rotate_backward(arguments.projections<T>(), rotary_gradients, stream));
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> defocus_scan(
    const Tensor& u, const Tensor& dt, const Tensor& A, const Tensor& B, const Tensor& C, const Tensor& D,
    const Tensor& z, const Tensor& dt_bias, const std::optional<Tensor>& freq, const std::optional<Tensor>& positions,
    const std::optional<Tensor>& initial_state, double delta_scale, int64_t group_size, double eps) {
  const c10::cuda::CUDAGuard guard(u.device());
  const ScanArguments arguments(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, delta_scale, group_size,
                                eps);
  const Sizes& sizes = arguments.sizes;
  const Tensor y = at::empty(u.sizes(), u.options());
  const Tensor last_state = arguments.empty({sizes.batch, sizes.channels, sizes.state});
  const SavedForBackward saved{arguments.empty(SavedForBackward::chunk_shape(sizes)),
                               at::empty(u.sizes(), u.options().dtype(SavedForBackward::normed_type(u))),
                               arguments.empty(SavedForBackward::norm_shape(sizes))};
  if (u.numel() > 0) {
    with_type(u.scalar_type(), ScanArguments::kOp,
              [&](auto zero) { run_forward<decltype(zero)>(arguments, y, last_state, saved); });
  }
  return {y, last_state, saved.chunk_states, saved.normed, saved.inverse_rms};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> defocus_scan_backward(
    const Tensor& grad_y, const std::optional<Tensor>& grad_last_state, const Tensor& u, const Tensor& dt,
    const Tensor& A, const Tensor& B, const Tensor& C, const Tensor& D, const Tensor& z, const Tensor& dt_bias,
    const std::optional<Tensor>& freq, const std::optional<Tensor>& positions,
    const std::optional<Tensor>& initial_state, double delta_scale, int64_t group_size, double eps,
    const Tensor& chunk_states, const Tensor& normed, const Tensor& inverse_rms) {
  const c10::cuda::CUDAGuard guard(u.device());
  const ScanArguments arguments(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, delta_scale, group_size,
                                eps);
  const SavedAndGradients given(arguments, grad_y, grad_last_state, {chunk_states, normed, inverse_rms});
  Gradients gradients(arguments);
  if (u.numel() > 0) {
    with_type(u.scalar_type(), ScanArguments::kOp,
              [&](auto zero) { run_backward<decltype(zero)>(arguments, given, gradients); });
  }
  return {gradients.u,        gradients.dt, gradients.A.sum(0),       gradients.B,           gradients.C,
          gradients.D.sum(0), gradients.z,  gradients.dt_bias.sum(0), gradients.freq.sum(0), gradients.initial_state};
}

}  // namespace mmdefocus::cuda
