// What the host functions of attention and retention share: checks of their tensors, inputs of the kernels, and totals
// of the gradients of the parameters.
//
// Shapes: see arguments.h.
#pragma once

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "common/segments.h"
#include "cpu/bandpass/arguments.h"
#include "cpu/common/instruction_sets.h"
#include "cpu/common/tensor_arguments.h"

namespace mmdefocus::cpu {

// Rounds subnormal results to 0 while it lives. A decay of hundreds of tokens passes through the subnormal numbers,
// which x86 processors compute a hundred times as slowly as others; other processors do not. Subnormal operands, such
// as small numbers in float16, keep their value.
class FlushSubnormals {
#if defined(__SSE__)
 public:
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | _MM_FLUSH_ZERO_ON); }
  ~FlushSubnormals() { _mm_setcsr(saved_); }

 private:
  unsigned int saved_;
#endif
};

// Calls run(begin, end) in parallel for parts of `items` items.
template <typename Run>
void run_items(int64_t items, int64_t grain, const Run& run) {
  at::parallel_for(0, items, grain, [&](int64_t begin, int64_t end) {
    [[maybe_unused]] const FlushSubnormals flush;
    run(begin, end);
  });
}

// Rows of states below which another thread costs more than it saves.
constexpr int64_t kRowGrain = 64;

template <typename S>
const BandpassKernels<S>& bandpass_kernels() {
  if constexpr (std::is_same_v<S, float>) {
    return kernels().bandpass_float;
  } else {
    return kernels().bandpass_double;
  }
}

template <typename Byte>
HeadsView<Byte> heads_view(Byte* data, const at::Tensor& x) {
  return {data, element_type(x), x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

inline HeadsInput heads_input(const at::Tensor& x) {
  return heads_view(static_cast<const char*>(x.const_data_ptr()), x);
}

inline HeadsOutput heads_output(const at::Tensor& x) { return heads_view(static_cast<char*>(x.mutable_data_ptr()), x); }

// A (B, H, L, d) tensor in the memory order (B, L, H, d), in which the heads of a token lie side by side.
inline at::Tensor empty_heads(const at::Tensor& like) {
  const int64_t heads = like.size(1), length = like.size(2), channels = like.size(3);
  const int64_t token_stride = heads * channels;
  return at::empty_strided(like.sizes(), {length * token_stride, channels, token_stride, 1}, like.options());
}

// The checked arguments of an operator; parameters are contiguous.
struct BandpassTensors {
  at::ScalarType type;
  at::Tensor q, k, v, decay, freq;
  BandpassSizes sizes;

  BandpassTensors(const char* op, const at::Tensor& q_, const at::Tensor& k_, const at::Tensor& v_,
                  const std::optional<at::Tensor>& decay_, const std::optional<at::Tensor>& freq_)
      : type(compute_type(q_, op)), q(q_), k(k_), v(v_) {
    TORCH_CHECK(q.dim() == 4 && q.size(1) > 0 && q.size(2) > 0 && q.size(3) > 0 && q.size(3) % 2 == 0, op,
                ": expected q of shape (B, H, L, d) with H > 0, L > 0 and an even d > 0, got ", q.sizes());
    TORCH_CHECK(v.dim() == 4, op, ": expected v of shape (B, H, L, V), got ", v.sizes());
    const int64_t batch = q.size(0), heads = q.size(1), length = q.size(2), channels = q.size(3), values = v.size(3);
    check_tensor(k, "k", q.sizes(), q.scalar_type(), op);
    check_tensor(v, "v", {batch, heads, length, values}, q.scalar_type(), op);
    const auto parameter = [&](const std::optional<at::Tensor>& x, const char* name) {
      if (!x.has_value()) return at::Tensor();
      check_tensor(*x, name, {heads, channels / 2}, type, op);
      return x->contiguous();
    };
    decay = parameter(decay_, "decay");
    freq = parameter(freq_, "freq");
    const auto padded = [](int64_t size) { return ceil_div(size, kPadding) * kPadding; };
    sizes = {batch, heads, length, ceil_div(length, kTile), channels, values, padded(channels), padded(values)};
  }

  at::TensorOptions compute_options() const { return q.options().dtype(type); }
  int64_t tiles() const { return sizes.batch * sizes.heads * sizes.tiles; }
  int64_t state_rows() const { return sizes.batch * sizes.heads * sizes.padded_values; }
};

// Partial sums of the gradients of decay and frequencies, and their totals.
struct ParameterGradients {
  BandpassSizes sizes;
  bool has_decay, has_freq;
  at::Tensor rates, phases;  // (B, H, G, 2, D): see AttentionGradients

  explicit ParameterGradients(const BandpassTensors& x)
      : sizes(x.sizes), has_decay(x.decay.defined()), has_freq(x.freq.defined()),
        rates(at::empty({sizes.batch, sizes.heads, sizes.tiles, 2, sizes.padded_channels}, x.compute_options())),
        phases(at::empty({sizes.batch, sizes.heads, sizes.tiles, 2, sizes.padded_channels}, x.compute_options())) {}

  // (H, d / 2); empty without a decay. `more_rates` (H, D) are further parts of the sums.
  at::Tensor decay(const at::Tensor& more_rates = {}) const {
    if (!has_decay) return at::empty({0}, rates.options());
    const at::Tensor by_channel = rates.sum(at::IntArrayRef{0, 2, 3});
    return pairs(more_rates.defined() ? by_channel.add(more_rates) : by_channel).sum(-1).neg();
  }

  // (H, d / 2); empty without frequencies. In float64, because the parts of queries and keys cancel.
  at::Tensor freq() const {
    if (!has_freq) return at::empty({0}, phases.options());
    const at::Tensor by_pair = pairs(phases.sum(at::IntArrayRef{0, 2, 3}, false, at::kDouble));
    return by_pair.select(-1, 1).sub(by_pair.select(-1, 0)).to(phases.scalar_type());
  }

 private:
  // (H, D) to (H, d / 2, 2)
  at::Tensor pairs(const at::Tensor& by_channel) const {
    return by_channel.narrow(1, 0, sizes.channels).unflatten(1, {sizes.channels / 2, 2});
  }
};

// The inputs of the kernels with their tables filled.
template <typename S>
class FilledInputs {
 public:
  FilledInputs(const BandpassTensors& x, int64_t first_position, double scale, bool causal)
      : memory_(
            at::empty({x.sizes.heads * (kTile + 2 + (x.freq.defined() ? x.sizes.length : 0)), x.sizes.padded_channels},
                      x.compute_options())) {
    const BandpassSizes& sizes = x.sizes;
    const auto parameter = [](const at::Tensor& p) { return p.defined() ? p.const_data_ptr<S>() : nullptr; };
    S* rates = memory_.template mutable_data_ptr<S>();
    S* decays = rates + sizes.heads * sizes.padded_channels;
    S* phases = x.freq.defined() ? decays + sizes.heads * (kTile + 1) * sizes.padded_channels : nullptr;
    inputs_ = {sizes,
               heads_input(x.q),
               heads_input(x.k),
               heads_input(x.v),
               parameter(x.decay),
               parameter(x.freq),
               first_position,
               static_cast<S>(scale),
               causal,
               {rates, decays, phases}};
    at::parallel_for(0, sizes.heads * sizes.tiles, 1,
                     [&](int64_t begin, int64_t end) { bandpass_kernels<S>().tables(inputs_, begin, end); });
  }

  const BandpassInputs<S>& inputs() const { return inputs_; }

  // Whether some channel decays too fast for a common boundary of all tokens of a tile.
  bool has_direct_channels() const {
    const S* rates = inputs_.tables.rates;
    return std::any_of(rates, rates + inputs_.sizes.heads * inputs_.sizes.padded_channels,
                       [](S rate) { return !(rate * S(kTile) <= S(kMaxExponent)); });
  }

 private:
  at::Tensor memory_;
  BandpassInputs<S> inputs_;
};

}  // namespace mmdefocus::cpu
