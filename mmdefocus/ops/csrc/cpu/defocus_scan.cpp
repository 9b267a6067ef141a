#include "cpu/defocus_scan.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "cpu/host.h"
#include "cpu/instruction_sets.h"
#include "cpu/rotary.h"

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

// The arguments of the operator, checked.
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

// What the kernels read besides the arguments.
struct Prepared {
  std::optional<Phases> phases;
  Tensor B, C;
  Blocks blocks;
  Segments segments;

  explicit Prepared(const Arguments& arguments)
      : blocks(arguments.batch(), arguments.channels(), 1, channels_per_block(arguments.group_size)),
        segments(arguments.length(), blocks.count, at::in_parallel_region() ? 1 : at::get_num_threads()) {
    if (arguments.freq.has_value()) phases.emplace(*arguments.positions, *arguments.freq);
    B = rotate(arguments.B, phases, arguments.type());
    C = rotate(arguments.C, phases, arguments.type());
  }

  template <typename S>
  DefocusInputs<S> inputs(const Arguments& arguments, const OptionalTensor& start_states) const {
    return {arguments.length(),
            arguments.state(),
            arguments.group_size,
            segments,
            static_cast<S>(1 / arguments.delta_scale),
            static_cast<S>(arguments.eps),
            read(arguments.u, kBLE),
            read(arguments.dt, kBLE),
            read(arguments.z, kBLE),
            B.const_data_ptr<S>(),
            C.const_data_ptr<S>(),
            read(arguments.A, kEN),
            read(arguments.D, kE),
            read(arguments.dt_bias, kE),
            read_if(start_states, kBEL)};
  }

  // Calls `work` for ranges of segments, in several threads.
  template <typename Work>
  void divide(const Work& work) const {
    at::parallel_for(0, blocks.count * segments.count, 1, work);
  }

  // What enters every segment, (B M, E, N): the states before it, or, from the other end, the gradients of those after
  // it. `outer` (B, E, N) enters the first segment in this direction. `inner` (B M, E, N) is what leaves each when
  // nothing enters it.
  Tensor passed_on(const OptionalTensor& outer, const Tensor& inner, const Tensor& total_delta, const Tensor& A,
                   bool backward) const {
    const auto by_image = [&](const Tensor& tensor) {
      return tensor.unflatten(0, {tensor.size(0) / segments.count, segments.count});
    };
    const Tensor left = by_image(inner), decays = by_image(at::exp(total_delta.unsqueeze(-1).mul(A)));
    Tensor entering = at::zeros_like(left);
    int64_t from = backward ? segments.count - 1 : 0;
    if (outer.has_value()) entering.select(1, from).copy_(*outer);
    for (int64_t step = 1; step < segments.count; ++step) {
      const int64_t to = backward ? from - 1 : from + 1;
      entering.select(1, to).copy_(at::addcmul(left.select(1, from), decays.select(1, from), entering.select(1, from)));
      from = to;
    }
    return entering.flatten(0, 1);
  }

 private:
  // Whole groups, so that a block can norm what it computed while it is in cache.
  static int64_t channels_per_block(int64_t group_size) {
    return group_size * std::max<int64_t>(1, kChannelsPerBlock / group_size);
  }
};

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& u, const Tensor& dt, const Tensor& A, const Tensor& B,
                                           const Tensor& C, const Tensor& D, const Tensor& z, const Tensor& dt_bias,
                                           const OptionalTensor& freq, const OptionalTensor& positions,
                                           const OptionalTensor& initial_state, double delta_scale, int64_t group_size,
                                           double eps) {
  const Arguments arguments{u,           dt,         A,  B, C, D, z, dt_bias, freq, positions, initial_state,
                            delta_scale, group_size, eps};
  arguments.check();
  const Prepared prepared(arguments);
  const int64_t batch = u.size(0), length = u.size(1), channels = u.size(2), state = A.size(1);
  const int64_t rows = batch * prepared.segments.count;
  const auto options = arguments.options();
  const Tensor y = at::empty(u.sizes(), u.options());
  const Tensor end_states = at::empty({rows, channels, state}, options);
  const Tensor chunk_states = at::empty({batch, chunks(length), state, channels}, options);
  with_compute_type(arguments.type(), [&](auto scalar) {
    using S = decltype(scalar);
    OptionalTensor start_states = initial_state;
    const auto run = [&](const Tensor& result, const Tensor& total_delta) {
      const DefocusInputs<S> inputs = prepared.inputs<S>(arguments, start_states);
      const DefocusOutputs<S> outputs{write_if(result, kBLE), write(end_states, kBEL), write_if(total_delta, kBE),
                                      chunk_states.mutable_data_ptr<S>()};
      prepared.divide([&](int64_t begin, int64_t end) {
        defocus_kernels<S>().forward(inputs, outputs, prepared.blocks, begin, end);
      });
    };
    if (prepared.segments.count > 1) {
      const Tensor total_delta = at::empty({rows, channels}, options);
      start_states = std::nullopt;
      run(Tensor(), total_delta);
      start_states = prepared.passed_on(initial_state, end_states, total_delta, A, false);
    }
    run(y, Tensor());
  });
  return {y, end_states.unflatten(0, {batch, prepared.segments.count}).select(1, -1).contiguous(), chunk_states};
}

using TenTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

TenTensors backward(const Tensor& grad_y, const OptionalTensor& grad_last_state, const Tensor& u, const Tensor& dt,
                    const Tensor& A, const Tensor& B, const Tensor& C, const Tensor& D, const Tensor& z,
                    const Tensor& dt_bias, const OptionalTensor& freq, const OptionalTensor& positions,
                    const OptionalTensor& initial_state, double delta_scale, int64_t group_size, double eps,
                    const Tensor& chunk_states) {
  const Arguments arguments{u,           dt,         A,  B, C, D, z, dt_bias, freq, positions, initial_state,
                            delta_scale, group_size, eps};
  arguments.check();
  const int64_t batch = u.size(0), length = u.size(1), channels = u.size(2), state = A.size(1);
  check_tensor(grad_y, "grad_y", u.sizes(), u.scalar_type(), kOp);
  check_tensor(chunk_states, "chunk_states", {batch, chunks(length), state, channels}, arguments.type(), kOp);
  if (grad_last_state.has_value()) {
    check_tensor(*grad_last_state, "grad_last_state", {batch, channels, state}, arguments.type(), kOp);
  }
  const Prepared prepared(arguments);
  const Blocks& blocks = prepared.blocks;
  const auto options = arguments.options();
  const Tensor states = chunk_states.contiguous();
  const Tensor du = at::empty(u.sizes(), u.options()), ddt = at::empty(u.sizes(), u.options());
  const Tensor dz = at::empty(u.sizes(), u.options());
  const int64_t rows = batch * prepared.segments.count;
  const Tensor dA = at::empty({rows, channels, state}, options);
  const Tensor dB = at::empty({batch, blocks.per_group, length, state}, options), dC = at::empty_like(dB);
  const Tensor dD = at::empty({rows, channels}, options), ddt_bias = at::empty_like(dD);
  const Tensor dstart = at::empty({rows, channels, state}, options);
  with_compute_type(arguments.type(), [&](auto scalar) {
    using S = decltype(scalar);
    OptionalTensor grad_end_states = grad_last_state;
    const DefocusInputs<S> inputs = prepared.inputs<S>(arguments, {});  // the saved states have what entered
    const auto run = [&](const Tensor& grad_z, const Tensor& total_delta) {
      const DefocusGradients<S> gradients{read(grad_y, kBLE),
                                          read_if(grad_end_states, kBEL),
                                          states.const_data_ptr<S>(),
                                          write(du, kBLE),
                                          write(ddt, kBLE),
                                          write_if(grad_z, kBLE),
                                          dB.mutable_data_ptr<S>(),
                                          dC.mutable_data_ptr<S>(),
                                          write(dA, kBEL),
                                          write(dD, kBE),
                                          write(ddt_bias, kBE),
                                          write(dstart, kBEL),
                                          write_if(total_delta, kBE)};
      prepared.divide(
          [&](int64_t begin, int64_t end) { defocus_kernels<S>().backward(inputs, gradients, blocks, begin, end); });
    };
    if (prepared.segments.count > 1) {
      const Tensor total_delta = at::empty({rows, channels}, options);
      grad_end_states = std::nullopt;
      run(Tensor(), total_delta);
      grad_end_states = prepared.passed_on(grad_last_state, dstart, total_delta, A, true);
    }
    run(dz, Tensor());
  });
  const auto nothing = [&] { return at::empty({0}, options); };
  const Tensor dphases = freq.has_value() ? at::zeros({length, state}, options) : Tensor();
  const Tensor grad_B = rotate_backward(dB, B, prepared.phases, dphases);
  const Tensor grad_C = rotate_backward(dC, C, prepared.phases, dphases);
  return {du,
          ddt,
          dA.sum(0),
          grad_B,
          grad_C,
          dD.sum(0),
          dz,
          ddt_bias.sum(0),
          freq.has_value() ? positions->unsqueeze(1).mul(dphases).sum(0) : nothing(),
          initial_state.has_value() ? dstart.unflatten(0, {batch, prepared.segments.count}).select(1, 0).contiguous()
                                    : nothing()};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("defocus_scan", &forward);
  m.impl("defocus_scan_backward", &backward);
}

}  // namespace mmdefocus::cpu
