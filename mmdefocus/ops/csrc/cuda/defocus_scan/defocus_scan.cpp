// Host functions of the De-focus scan.
#include <ATen/Functions.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/operators.h"
#include "cuda/defocus_scan/checked_arguments.h"

namespace mmdefocus::cuda {

namespace {

using at::Tensor;

// The states of segments, until they are complete.
struct Segments {
  Tensor states, deltas;

  explicit Segments(const ScanArguments& arguments) {
    const Sizes& sizes = arguments.sizes;
    states = arguments.empty({sizes.batch, sizes.segments, sizes.channels, sizes.state});
    deltas = arguments.empty({sizes.batch, sizes.segments, sizes.channels});
  }

  SegmentSummaries summaries() const { return {states.mutable_data_ptr<float>(), deltas.mutable_data_ptr<float>()}; }
};

const float* data_or_null(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

template <typename T>
Tensor rotate(const ScanArguments& arguments, cudaStream_t stream) {
  const Sizes& sizes = arguments.sizes;
  const Tensor rotated = arguments.empty({sizes.batch, sizes.length, 2 * padded_state(sizes.state)});
  C10_CUDA_CHECK(launch_rotate(arguments.projections<T>(), rotated.mutable_data_ptr<float>(), stream));
  return rotated;
}

template <typename T>
void run_forward(const ScanArguments& arguments, const Tensor& y, const Tensor& last_state,
                 const Tensor& chunk_states) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const Tensor rotated = rotate<T>(arguments, stream);
  const ScanInputs<T> inputs = arguments.inputs<T>(rotated);
  Tensor start_states = arguments.initial_state;
  if (arguments.sizes.segments > 1) {
    const Segments segments(arguments);
    C10_CUDA_CHECK(launch_summarize_forward(inputs, segments.summaries(), stream));
    C10_CUDA_CHECK(launch_carry_segments(arguments.sizes, inputs.A, data_or_null(arguments.initial_state), false,
                                         segments.summaries(), stream));
    start_states = segments.states;
  }
  const ForwardOutputs<T> outputs{data_or_null(start_states), write_rows<T>(y), last_state.mutable_data_ptr<float>(),
                                  chunk_states.mutable_data_ptr<float>()};
  C10_CUDA_CHECK(launch_forward(inputs, outputs, stream));
}

// What the backward pass gets, in the layout that the kernels read.
struct Incoming {
  Tensor grad_y, grad_last_state, chunk_states;

  Incoming(const ScanArguments& arguments, const Tensor& grad_y_, const std::optional<Tensor>& grad_last_state_,
           const Tensor& chunk_states_) {
    const Tensor& u = arguments.u;
    const Sizes& sizes = arguments.sizes;
    const char* op = ScanArguments::kOp;
    check_like(grad_y_, "grad_y", u.sizes(), u.scalar_type(), u.device(), op);
    check_like(chunk_states_, "chunk_states", {sizes.batch, arguments.chunks(), sizes.channels, sizes.state},
               at::kFloat, u.device(), op);
    grad_y = with_dense_channels(grad_y_);
    chunk_states = contiguous_and_aligned(chunk_states_);
    if (grad_last_state_.has_value()) {
      check_like(*grad_last_state_, "grad_last_state", {sizes.batch, sizes.channels, sizes.state}, at::kFloat,
                 u.device(), op);
      grad_last_state = contiguous_and_aligned(*grad_last_state_);
    }
  }
};

// Those of parameters in parts, which are yet to be added up.
struct Gradients {
  Tensor u, dt, z, B, C, A, D, dt_bias, freq, initial_state;

  explicit Gradients(const ScanArguments& arguments) {
    const Sizes& sizes = arguments.sizes;
    const int64_t parts = static_cast<int64_t>(sizes.batch) * sizes.segments;
    for (Tensor* tensor : {&u, &dt, &z}) *tensor = at::empty(arguments.u.sizes(), arguments.u.options());
    for (Tensor* tensor : {&B, &C}) *tensor = at::empty(arguments.B.sizes(), arguments.u.options());
    A = arguments.empty({parts, sizes.channels, sizes.state});
    D = arguments.empty({parts, sizes.channels});
    dt_bias = arguments.empty({parts, sizes.channels});
    freq = arguments.freq.defined() ? arguments.empty({rotation_blocks(sizes), sizes.state}) : arguments.empty({1, 0});
    initial_state = arguments.empty({0});
    if (arguments.initial_state.defined()) initial_state = at::empty_like(arguments.initial_state);
  }
};

template <typename T>
void run_backward(const ScanArguments& arguments, const Incoming& incoming, const Gradients& gradients) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const Sizes& sizes = arguments.sizes;
  const Tensor rotated = rotate<T>(arguments, stream);
  BackwardInputs<T> inputs{arguments.inputs<T>(rotated), read_rows<T>(incoming.grad_y),
                           incoming.chunk_states.const_data_ptr<float>()};
  inputs.scan.sizes.aligned &= rows_are_aligned(incoming.grad_y);
  Tensor end_gradients = incoming.grad_last_state;
  if (sizes.segments > 1) {
    const Segments segments(arguments);
    C10_CUDA_CHECK(launch_summarize_backward(inputs, segments.summaries(), stream));
    C10_CUDA_CHECK(launch_carry_segments(sizes, inputs.scan.A, data_or_null(incoming.grad_last_state), true,
                                         segments.summaries(), stream));
    end_gradients = segments.states;
  }
  const Tensor grad_rotated =
      arguments.empty({sizes.batch, sizes.length, sizes.channel_blocks, 2 * padded_state(sizes.state)});
  const BackwardOutputs<T> outputs{
      data_or_null(end_gradients),
      write_rows<T>(gradients.u),
      write_rows<T>(gradients.dt),
      write_rows<T>(gradients.z),
      gradients.A.mutable_data_ptr<float>(),
      gradients.D.mutable_data_ptr<float>(),
      gradients.dt_bias.mutable_data_ptr<float>(),
      grad_rotated.mutable_data_ptr<float>(),
      arguments.initial_state.defined() ? gradients.initial_state.mutable_data_ptr<float>() : nullptr};
  C10_CUDA_CHECK(launch_backward(inputs, outputs, stream));
  const RotationGradients<T> rotation_gradients{grad_rotated.const_data_ptr<float>(), gradients.B.mutable_data_ptr<T>(),
                                                gradients.C.mutable_data_ptr<T>(),
                                                gradients.freq.mutable_data_ptr<float>()};
  C10_CUDA_CHECK(launch_rotate_backward(arguments.projections<T>(), rotation_gradients, stream));
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> defocus_scan(const Tensor& u, const Tensor& dt, const Tensor& A, const Tensor& B,
                                                const Tensor& C, const Tensor& D, const Tensor& z,
                                                const Tensor& dt_bias, const std::optional<Tensor>& freq,
                                                const std::optional<Tensor>& positions,
                                                const std::optional<Tensor>& initial_state, double delta_scale,
                                                int64_t group_size, double eps) {
  const c10::cuda::CUDAGuard guard(u.device());
  const ScanArguments arguments(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, delta_scale, group_size,
                                eps);
  const Sizes& sizes = arguments.sizes;
  const Tensor y = at::empty(u.sizes(), u.options());
  const Tensor last_state = arguments.empty({sizes.batch, sizes.channels, sizes.state});
  const Tensor chunk_states = arguments.empty({sizes.batch, arguments.chunks(), sizes.channels, sizes.state});
  if (u.numel() > 0) {
    with_type(u.scalar_type(), ScanArguments::kOp,
              [&](auto zero) { run_forward<decltype(zero)>(arguments, y, last_state, chunk_states); });
  }
  return {y, last_state, chunk_states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> defocus_scan_backward(
    const Tensor& grad_y, const std::optional<Tensor>& grad_last_state, const Tensor& u, const Tensor& dt,
    const Tensor& A, const Tensor& B, const Tensor& C, const Tensor& D, const Tensor& z, const Tensor& dt_bias,
    const std::optional<Tensor>& freq, const std::optional<Tensor>& positions,
    const std::optional<Tensor>& initial_state, double delta_scale, int64_t group_size, double eps,
    const Tensor& chunk_states) {
  const c10::cuda::CUDAGuard guard(u.device());
  const ScanArguments arguments(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, delta_scale, group_size,
                                eps);
  const Incoming incoming(arguments, grad_y, grad_last_state, chunk_states);
  Gradients gradients(arguments);
  if (u.numel() > 0) {
    with_type(u.scalar_type(), ScanArguments::kOp,
              [&](auto zero) { run_backward<decltype(zero)>(arguments, incoming, gradients); });
  }
  return {gradients.u,        gradients.dt, gradients.A.sum(0),       gradients.B,           gradients.C,
          gradients.D.sum(0), gradients.z,  gradients.dt_bias.sum(0), gradients.freq.sum(0), gradients.initial_state};
}

}  // namespace mmdefocus::cuda
