#include "cpu/selective_scan.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/host.h"
#include "cpu/instruction_sets.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::selective_scan";

template <typename S>
const ScanKernels<S>& scan_kernels() {
  if constexpr (std::is_same_v<S, float>) {
    return kernels().scan_float;
  } else {
    return kernels().scan_double;
  }
}

// The parameters in the layout that the kernels read, and the sizes.
struct Prepared {
  Tensor u, delta, A, B, C;
  int64_t groups;
  Blocks blocks;

  Prepared(const Tensor& u_, const Tensor& delta_, const Tensor& A_, const Tensor& B_, const Tensor& C_)
      : u(u_), delta(delta_), groups(checked_groups(u_, delta_, A_, B_, C_)),
        blocks(u_.size(0), u_.size(1), groups, kChannelsPerBlock) {
    A = A_.t().contiguous();
    B = kernel_layout(B_);
    C = kernel_layout(C_);
  }

  template <typename S>
  ScanInputs<S> inputs() const {
    return {u.size(0),
            u.size(1),
            u.size(2),
            groups,
            A.size(0),
            B.dim() == 4,
            C.dim() == 4,
            read<S>(u),
            read<S>(delta),
            A.const_data_ptr<S>(),
            B.const_data_ptr<S>(),
            C.const_data_ptr<S>()};
  }

 private:
  static Tensor kernel_layout(const Tensor& projection) {
    return projection.dim() == 4 ? projection.transpose(2, 3).contiguous() : projection.t().contiguous();
  }

  static int64_t checked_groups(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B,
                                const Tensor& C) {
    check_float(u, kOp);
    TORCH_CHECK(u.dim() == 3 && u.size(2) > 0, kOp, ": expected u of shape (B, E, L) with L > 0, got ", u.sizes());
    TORCH_CHECK(A.dim() == 2, kOp, ": expected A of shape (E, N), got ", A.sizes());
    const int64_t state = A.size(1);
    check_like(delta, "delta", u.sizes(), u, kOp);
    check_like(A, "A", {u.size(1), state}, u, kOp);
    int64_t groups = 1;
    for (const Tensor* projection : {&B, &C}) {
      if (projection->dim() == 4) groups = projection->size(1);
    }
    TORCH_CHECK(groups > 0 && u.size(1) % groups == 0, kOp, ": ", groups, " groups of B and C do not divide ",
                u.size(1), " channels");
    for (const Tensor* projection : {&B, &C}) {
      const char* name = projection == &B ? "B" : "C";
      if (projection->dim() == 4) {
        check_like(*projection, name, {u.size(0), groups, state, u.size(2)}, u, kOp);
      } else {
        check_like(*projection, name, {u.size(1), state}, u, kOp);
      }
    }
    return groups;
  }
};

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B,
                                           const Tensor& C) {
  const Prepared prepared(u, delta, A, B, C);
  const int64_t batch = u.size(0), channels = u.size(1), length = u.size(2), state = A.size(1);
  const Tensor y = at::empty_like(u);
  const Tensor last_state = at::empty({batch, state, channels}, u.options());
  const Tensor chunk_states = at::empty({batch, chunks(length), state, channels}, u.options());
  const auto run = [&](auto scalar) {
    using S = decltype(scalar);
    const ScanInputs<S> inputs = prepared.inputs<S>();
    const ScanOutputs<S> outputs{write<S>(y), last_state.mutable_data_ptr<S>(), chunk_states.mutable_data_ptr<S>()};
    at::parallel_for(0, prepared.blocks.count, 1, [&](int64_t begin, int64_t end) {
      scan_kernels<S>().forward(inputs, outputs, prepared.blocks, begin, end);
    });
  };
  u.scalar_type() == at::kFloat ? run(float{}) : run(double{});
  return {y, last_state.transpose(1, 2).contiguous(), chunk_states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_y,
                                                            const std::optional<Tensor>& grad_last_state,
                                                            const Tensor& u, const Tensor& delta, const Tensor& A,
                                                            const Tensor& B, const Tensor& C,
                                                            const Tensor& chunk_states) {
  const Prepared prepared(u, delta, A, B, C);
  const Blocks& blocks = prepared.blocks;
  const int64_t batch = u.size(0), channels = u.size(1), length = u.size(2), state = A.size(1);
  check_like(grad_y, "grad_y", u.sizes(), u, kOp);
  check_like(chunk_states, "chunk_states", {batch, chunks(length), state, channels}, u, kOp);
  Tensor grad_state;
  if (grad_last_state.has_value()) {
    check_like(*grad_last_state, "grad_last_state", {batch, channels, state}, u, kOp);
    grad_state = grad_last_state->transpose(1, 2).contiguous();
  }
  const Tensor states = chunk_states.contiguous();
  const Tensor du = at::empty_like(u), ddelta = at::empty_like(delta);
  const Tensor dA = at::empty({batch, state, channels}, u.options());
  const auto partial = [&](const Tensor& projection) {
    return projection.dim() == 4 ? at::empty({batch, prepared.groups, blocks.per_group, length, state}, u.options())
                                 : at::empty({batch, state, channels}, u.options());
  };
  const Tensor dB = partial(B), dC = partial(C);
  const auto run = [&](auto scalar) {
    using S = decltype(scalar);
    const ScanInputs<S> inputs = prepared.inputs<S>();
    const ScanGradients<S> gradients{read<S>(grad_y),
                                     grad_state.defined() ? grad_state.const_data_ptr<S>() : nullptr,
                                     states.const_data_ptr<S>(),
                                     write<S>(du),
                                     write<S>(ddelta),
                                     dA.mutable_data_ptr<S>(),
                                     dB.mutable_data_ptr<S>(),
                                     dC.mutable_data_ptr<S>()};
    at::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
      scan_kernels<S>().backward(inputs, gradients, blocks, begin, end);
    });
  };
  u.scalar_type() == at::kFloat ? run(float{}) : run(double{});
  const auto total = [](const Tensor& parts) {
    return parts.dim() == 5 ? parts.sum(2).transpose(2, 3).contiguous() : parts.sum(0).t().contiguous();
  };
  return {du, ddelta, total(dA), total(dB), total(dC)};
}

std::string cpu_instruction_set() { return kernels().name; }

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("selective_scan", &forward);
  m.impl("selective_scan_backward", &backward);
}

TORCH_LIBRARY_IMPL(mmdefocus, CompositeImplicitAutograd, m) { m.impl("cpu_instruction_set", &cpu_instruction_set); }

}  // namespace mmdefocus::cpu
