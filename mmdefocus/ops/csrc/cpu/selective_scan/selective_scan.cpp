// Host functions of the selective scan on CPU.
// Shapes: B batch, E channels, L time, N state.
#include "cpu/selective_scan/arguments.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/common/instruction_sets.h"
#include "cpu/common/tensor_arguments.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::selective_scan";

template <typename S>
const SelectiveKernels<S>& selective_kernels() {
  if constexpr (std::is_same_v<S, float>) {
    return kernels().selective_float;
  } else {
    return kernels().selective_double;
  }
}

// The checked arguments, with B and C as the kernels read them.
struct PreparedArguments {
  at::ScalarType type;
  Tensor u, delta, A, B, C;
  ChannelBlocks blocks;

  PreparedArguments(const Tensor& u_, const Tensor& delta_, const Tensor& A_, const Tensor& B_, const Tensor& C_)
      : type(check(u_, delta_, A_, B_, C_)), u(u_), delta(delta_), A(A_), B(B_.transpose(1, 2).contiguous()),
        C(C_.transpose(1, 2).contiguous()), blocks(u_.size(0), u_.size(1), kBlockChannels) {}

  template <typename S>
  SelectiveInputs<S> inputs() const {
    return {u.size(2),
            A.size(1),
            input_view(u, kBEL),
            input_view(delta, kBEL),
            input_view(A, kEN),
            B.const_data_ptr<S>(),
            C.const_data_ptr<S>()};
  }

 private:
  static at::ScalarType check(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B, const Tensor& C) {
    TORCH_CHECK(u.dim() == 3 && u.size(2) > 0, kOp, ": expected u of shape (B, E, L) with L > 0, got ", u.sizes());
    TORCH_CHECK(A.dim() == 2 && A.size(1) > 0, kOp, ": expected A of shape (E, N) with N > 0, got ", A.sizes());
    const at::ScalarType type = compute_type(u, kOp);
    TORCH_CHECK(u.scalar_type() == type, kOp, ": the CPU kernel computes in float32 or float64, got ", u.scalar_type(),
                "; call mmdefocus.ops.selective_scan, which converts half types");
    check_tensor(delta, "delta", u.sizes(), type, kOp);
    check_tensor(A, "A", {u.size(1), A.size(1)}, type, kOp);
    check_tensor(B, "B", {u.size(0), A.size(1), u.size(2)}, type, kOp);
    check_tensor(C, "C", {u.size(0), A.size(1), u.size(2)}, type, kOp);
    return type;
  }
};

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B,
                                           const Tensor& C) {
  const PreparedArguments arguments(u, delta, A, B, C);
  const int64_t batch = u.size(0), channels = u.size(1), length = u.size(2), state = A.size(1);
  const Tensor y = at::empty_like(u);
  const Tensor last_state = at::empty({batch, channels, state}, A.options());
  const Tensor chunk_states = at::empty({batch, num_chunks(length), state, channels}, A.options());
  with_compute_type(arguments.type, [&](auto scalar) {
    using S = decltype(scalar);
    const SelectiveInputs<S> inputs = arguments.inputs<S>();
    const SelectiveOutputs<S> outputs{output_view(y, kBEL), output_view(last_state, kBEL),
                                      chunk_states.mutable_data_ptr<S>()};
    at::parallel_for(0, arguments.blocks.count, 1, [&](int64_t begin, int64_t end) {
      selective_kernels<S>().forward(inputs, outputs, arguments.blocks, begin, end);
    });
  });
  return {y, last_state, chunk_states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_y,
                                                            const std::optional<Tensor>& grad_last_state,
                                                            const Tensor& u, const Tensor& delta, const Tensor& A,
                                                            const Tensor& B, const Tensor& C,
                                                            const Tensor& chunk_states) {
  const PreparedArguments arguments(u, delta, A, B, C);
  const ChannelBlocks& blocks = arguments.blocks;
  const int64_t batch = u.size(0), channels = u.size(1), length = u.size(2), state = A.size(1);
  check_tensor(grad_y, "grad_y", u.sizes(), u.scalar_type(), kOp);
  check_tensor(chunk_states, "chunk_states", {batch, num_chunks(length), state, channels}, arguments.type, kOp);
  if (grad_last_state.has_value()) {
    check_tensor(*grad_last_state, "grad_last_state", {batch, channels, state}, arguments.type, kOp);
  }
  const Tensor states = chunk_states.contiguous();
  const Tensor grad_u = at::empty_like(u), grad_delta = at::empty_like(delta);
  // Every block writes partial sums of its own, which are added up below in a fixed order: atomics would make the
  // result depend on the schedule of the threads.
  const Tensor grad_A = at::empty({batch, channels, state}, A.options());
  const Tensor grad_B = at::empty({batch, blocks.per_sequence, length, state}, A.options());
  const Tensor grad_C = at::empty_like(grad_B);
  with_compute_type(arguments.type, [&](auto scalar) {
    using S = decltype(scalar);
    const SelectiveInputs<S> inputs = arguments.inputs<S>();
    const SelectiveGradients<S> gradients{input_view(grad_y, kBEL),      optional_input_view(grad_last_state, kBEL),
                                          states.const_data_ptr<S>(),    output_view(grad_u, kBEL),
                                          output_view(grad_delta, kBEL), output_view(grad_A, kBEL),
                                          grad_B.mutable_data_ptr<S>(),  grad_C.mutable_data_ptr<S>()};
    at::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
      selective_kernels<S>().backward(inputs, gradients, blocks, begin, end);
    });
  });
  const auto total = [](const Tensor& partial) { return partial.sum(1).transpose(1, 2).contiguous(); };
  return {grad_u, grad_delta, grad_A.sum(0), total(grad_B), total(grad_C)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("selective_scan", &forward);
  m.impl("selective_scan_backward", &backward);
}

}  // namespace mmdefocus::cpu
