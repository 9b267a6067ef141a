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

// The projections in the layout that the kernels read, and the sizes.
struct Prepared {
  at::ScalarType type;
  Tensor u, delta, A, B, C;
  Blocks blocks;

  Prepared(const Tensor& u_, const Tensor& delta_, const Tensor& A_, const Tensor& B_, const Tensor& C_)
      : type(compute_type(u_, kOp)), u(u_), delta(delta_), A(A_), B(kernel_layout(B_)), C(kernel_layout(C_)),
        blocks(u_.size(0), u_.size(1), checked_groups(u_, delta_, A_, B_, C_), kChannelsPerBlock) {}

  template <typename S>
  ScanInputs<S> inputs() const {
    return {u.size(2), A.size(1), read(u, kBEL), read(delta, kBEL), read(A, kEN), projection<S>(B), projection<S>(C)};
  }

 private:
  static Tensor kernel_layout(const Tensor& projection) {
    return projection.dim() == 4 ? projection.transpose(2, 3).contiguous() : projection;
  }

  template <typename S>
  static ScanProjection<S> projection(const Tensor& projection) {
    if (projection.dim() == 4) return {projection.const_data_ptr<S>(), read_if({}, kEN)};
    return {nullptr, read(projection, kEN)};
  }

  static int64_t checked_groups(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& B,
                                const Tensor& C) {
    TORCH_CHECK(u.dim() == 3 && u.size(2) > 0, kOp, ": expected u of shape (B, E, L) with L > 0, got ", u.sizes());
    TORCH_CHECK(A.dim() == 2 && A.size(1) > 0, kOp, ": expected A of shape (E, N) with N > 0, got ", A.sizes());
    const int64_t state = A.size(1);
    const at::ScalarType type = compute_type(u, kOp);
    TORCH_CHECK(u.scalar_type() == type, kOp, ": the CPU kernel computes in float32 or float64, got ", u.scalar_type(),
                ". Call mmdefocus.ops, which converts half types.");
    check_tensor(delta, "delta", u.sizes(), type, kOp);
    check_tensor(A, "A", {u.size(1), state}, type, kOp);
    int64_t groups = 1;
    for (const Tensor* projection : {&B, &C}) {
      if (projection->dim() == 4) groups = projection->size(1);
    }
    TORCH_CHECK(groups > 0 && u.size(1) % groups == 0, kOp, ": ", groups, " groups of B and C do not divide ",
                u.size(1), " channels");
    for (const Tensor* projection : {&B, &C}) {
      const char* name = projection == &B ? "B" : "C";
      if (projection->dim() == 4) {
        check_tensor(*projection, name, {u.size(0), groups, state, u.size(2)}, type, kOp);
      } else {
        check_tensor(*projection, name, {u.size(1), state}, type, kOp);
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
  const Tensor last_state = at::empty({batch, channels, state}, A.options());
  const Tensor chunk_states = at::empty({batch, chunks(length), state, channels}, A.options());
  with_compute_type(prepared.type, [&](auto scalar) {
    using S = decltype(scalar);
    const ScanInputs<S> inputs = prepared.inputs<S>();
    const ScanOutputs<S> outputs{write(y, kBEL), write(last_state, kBEL), chunk_states.mutable_data_ptr<S>()};
    at::parallel_for(0, prepared.blocks.count, 1, [&](int64_t begin, int64_t end) {
      scan_kernels<S>().forward(inputs, outputs, prepared.blocks, begin, end);
    });
  });
  return {y, last_state, chunk_states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_y,
                                                            const std::optional<Tensor>& grad_last_state,
                                                            const Tensor& u, const Tensor& delta, const Tensor& A,
                                                            const Tensor& B, const Tensor& C,
                                                            const Tensor& chunk_states) {
  const Prepared prepared(u, delta, A, B, C);
  const Blocks& blocks = prepared.blocks;
  const int64_t batch = u.size(0), channels = u.size(1), length = u.size(2), state = A.size(1);
  check_tensor(grad_y, "grad_y", u.sizes(), u.scalar_type(), kOp);
  check_tensor(chunk_states, "chunk_states", {batch, chunks(length), state, channels}, prepared.type, kOp);
  if (grad_last_state.has_value()) {
    check_tensor(*grad_last_state, "grad_last_state", {batch, channels, state}, prepared.type, kOp);
  }
  const Tensor states = chunk_states.contiguous();
  const Tensor du = at::empty_like(u), ddelta = at::empty_like(delta);
  const Tensor dA = at::empty({batch, channels, state}, A.options());
  const auto partial = [&](const Tensor& projection) {
    return projection.dim() == 4 ? at::empty({batch, blocks.groups, blocks.per_group, length, state}, A.options())
                                 : at::empty({batch, channels, state}, A.options());
  };
  const Tensor dB = partial(B), dC = partial(C);
  with_compute_type(prepared.type, [&](auto scalar) {
    using S = decltype(scalar);
    const ScanInputs<S> inputs = prepared.inputs<S>();
    const ScanGradients<S> gradients{read(grad_y, kBEL),
                                     read_if(grad_last_state, kBEL),
                                     states.const_data_ptr<S>(),
                                     write(du, kBEL),
                                     write(ddelta, kBEL),
                                     write(dA, kBEL),
                                     write(dB, kBEL),
                                     write(dC, kBEL),
                                     dB.mutable_data_ptr<S>(),
                                     dC.mutable_data_ptr<S>()};
    at::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
      scan_kernels<S>().backward(inputs, gradients, blocks, begin, end);
    });
  });
  const auto total = [](const Tensor& parts) {
    return parts.dim() == 5 ? parts.sum(2).transpose(2, 3).contiguous() : parts.sum(0);
  };
  return {du, ddelta, dA.sum(0), total(dB), total(dC)};
}

std::string cpu_instruction_set() { return kernels().name; }

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("selective_scan", &forward);
  m.impl("selective_scan_backward", &backward);
}

TORCH_LIBRARY_IMPL(mmdefocus, CompositeImplicitAutograd, m) { m.impl("cpu_instruction_set", &cpu_instruction_set); }

}  // namespace mmdefocus::cpu
