// The selective scan and its gradient, vectorised over channels, for the instruction set of the including file.
//
//   h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,   y_t = sum over n of C_t h_t
//
// One vector holds neighbouring channels at one time step, so that sums over the state need no shuffles and the N
// recurrences of a vector hide each other's latency.
#pragma once

#include "cpu/selective_scan.h"
#include "cpu/simd.h"

namespace {

using namespace mmdefocus::cpu;

// Aligned memory of one call, handed out piece by piece.
template <typename S>
class Scratch {
 public:
  explicit Scratch(int64_t vectors) {
    void* pointer = nullptr;
    if (posix_memalign(&pointer, sizeof(Vec<S>), vectors * sizeof(Vec<S>)) != 0) throw std::bad_alloc();
    memory_ = next_ = static_cast<Vec<S>*>(pointer);
  }
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  Vec<S>* take(int64_t vectors) {
    Vec<S>* taken = next_;
    next_ += vectors;
    return taken;
  }

 private:
  Vec<S>*memory_, *next_;
};

// Where a block lies and where its B and C are.
template <typename S>
struct Block {
  int64_t b, group, index_in_group, first_channel, end_channel;
  const S* B;
  const S* C;

  Block(const ScanInputs<S>& in, const Blocks& blocks, int64_t index) {
    index_in_group = index % blocks.per_group;
    group = index / blocks.per_group % in.groups;
    b = index / blocks.per_group / in.groups;
    first_channel = group * blocks.channels_per_group + index_in_group * blocks.channels_per_block;
    end_channel = std::min(first_channel + blocks.channels_per_block, (group + 1) * blocks.channels_per_group);
    const int64_t offset = (b * in.groups + group) * in.length * in.state;
    B = in.input_dependent_B ? in.B + offset : in.B;
    C = in.input_dependent_C ? in.C + offset : in.C;
  }
};

// Row n of a contiguous (N, E) matrix at the channels e .. e + lanes.
template <typename S>
inline void load_rows(const S* matrix, int64_t channels, int64_t state, int64_t e, int lanes, Vec<S>* rows) {
  load_tile<S>(matrix + e, 1, channels, lanes, static_cast<int>(state), rows);
}

template <typename S>
inline void store_rows(const Vec<S>* rows, int64_t channels, int64_t state, int64_t e, int lanes, S* matrix) {
  store_tile<S>(rows, 1, channels, lanes, static_cast<int>(state), matrix + e);
}

// N_ is the state size where it is known at compile time, else 0.
template <typename S, int N_, bool varying_B, bool varying_C>
void forward_blocks(const ScanInputs<S>& in, const ScanOutputs<S>& out, const Blocks& blocks, int64_t begin,
                    int64_t end) {
  constexpr int W = kLanes<S>;
  const int N = N_ ? N_ : static_cast<int>(in.state);
  const int64_t E = in.channels, L = in.length;
  Scratch<S> scratch(3 * kChunk + 4 * N);
  Vec<S>* u = scratch.take(kChunk);
  Vec<S>* delta = scratch.take(kChunk);
  Vec<S>* y = scratch.take(kChunk);
  Vec<S>* A = scratch.take(N);
  Vec<S>* B = scratch.take(N);
  Vec<S>* C = scratch.take(N);
  Vec<S>* saved = scratch.take(N);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(in, blocks, index);
    for (int64_t e = block.first_channel; e < block.end_channel; e += W) {
      const int lanes = static_cast<int>(std::min<int64_t>(W, block.end_channel - e));
      load_rows<S>(in.A, E, N, e, lanes, A);
      if (!varying_B) load_rows<S>(in.B, E, N, e, lanes, B);
      if (!varying_C) load_rows<S>(in.C, E, N, e, lanes, C);
      for (int n = 0; n < N; ++n) saved[n] = Vec<S>{};
      for (int64_t start = 0; start < L; start += kChunk) {
        const int length = static_cast<int>(std::min<int64_t>(kChunk, L - start));
        load_tile<S>(in.u.at(block.b, e, start), in.u.channel_stride, in.u.time_stride, lanes, length, u);
        load_tile<S>(in.delta.at(block.b, e, start), in.delta.channel_stride, in.delta.time_stride, lanes, length,
                     delta);
        store_rows<S>(saved, E, N, e, lanes, out.chunk_states + (block.b * chunks(L) + start / kChunk) * N * E);
        Vec<S> local[N_ ? N_ : 1];
        Vec<S>* h = N_ ? local : saved;
        if (N_) std::copy_n(saved, N, h);
        for (int t = 0; t < length; ++t) {
          const Vec<S> input = delta[t] * u[t];
          const S* Bt = block.B + (start + t) * N;
          const S* Ct = block.C + (start + t) * N;
          Vec<S> sum{};
#pragma GCC unroll 16
          for (int n = 0; n < N; ++n) {
            const Vec<S> decay = vector_exp<S>(delta[t] * A[n]);
            h[n] = decay * h[n] + input * (varying_B ? splat<S>(Bt[n]) : B[n]);
            sum += h[n] * (varying_C ? splat<S>(Ct[n]) : C[n]);
          }
          y[t] = sum;
        }
        if (N_) std::copy_n(h, N, saved);
        store_tile<S>(y, out.y.channel_stride, out.y.time_stride, lanes, length, out.y.at(block.b, e, start));
      }
      store_rows<S>(saved, E, N, e, lanes, out.last_state + block.b * N * E);
    }
  }
}

// Scratch of the backward pass: one chunk of one vector of channels, and sums over the vectors of a block.
template <typename S>
struct BackwardScratch {
  Scratch<S> memory;
  Vec<S>*u, *delta, *dy, *du, *ddelta;  // (chunk)
  Vec<S>*decay, *h;                     // (chunk, N), (chunk + 1, N): h[0] is the state before the chunk
  Vec<S>*dB_sum, *dC_sum;               // (chunk, N)
  Vec<S>*A, *B, *C;                     // (vectors, N)
  Vec<S>*carry, *dA, *dB, *dC;          // (vectors, N); carry is the gradient that reaches h from later steps

  BackwardScratch(int N, int vectors)
      : memory(5 * kChunk + (4 * kChunk + 1) * N + 7 * static_cast<int64_t>(vectors) * N) {
    for (Vec<S>** tile : {&u, &delta, &dy, &du, &ddelta}) *tile = memory.take(kChunk);
    decay = memory.take(kChunk * N);
    h = memory.take((kChunk + 1) * N);
    dB_sum = memory.take(kChunk * N);
    dC_sum = memory.take(kChunk * N);
    for (Vec<S>** rows : {&A, &B, &C, &carry, &dA, &dB, &dC}) *rows = memory.take(static_cast<int64_t>(vectors) * N);
  }
};

// One chunk of one vector of channels, whose rows start at `row`.
template <typename S, int N_, bool varying_B, bool varying_C>
inline void backward_chunk(const BackwardScratch<S>& s, int N, int row, int length, const S* Bt, const S* Ct) {
  const Vec<S>* A = s.A + row;
  const Vec<S>* B = s.B + row;
  const Vec<S>* C = s.C + row;
  for (int t = 0; t < length; ++t) {
    const Vec<S> input = s.delta[t] * s.u[t];
    const Vec<S>* before = s.h + t * N;
    Vec<S>* after = s.h + (t + 1) * N;
    Vec<S>* decay = s.decay + t * N;
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      decay[n] = vector_exp<S>(s.delta[t] * A[n]);
      after[n] = decay[n] * before[n] + input * (varying_B ? splat<S>(Bt[t * N + n]) : B[n]);
    }
  }
  Vec<S>* carry = s.carry + row;
  Vec<S>* dA = s.dA + row;
  for (int t = length - 1; t >= 0; --t) {
    const Vec<S> input = s.delta[t] * s.u[t];
    const Vec<S>* before = s.h + t * N;
    const Vec<S>* after = s.h + (t + 1) * N;
    const Vec<S>* decay = s.decay + t * N;
    Vec<S>* dB = varying_B ? s.dB_sum + t * N : s.dB + row;
    Vec<S>* dC = varying_C ? s.dC_sum + t * N : s.dC + row;
    Vec<S> through_input{}, through_decay{};
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Vec<S> dh = carry[n] + s.dy[t] * (varying_C ? splat<S>(Ct[t * N + n]) : C[n]);
      dC[n] += s.dy[t] * after[n];
      dB[n] += dh * input;
      through_input += dh * (varying_B ? splat<S>(Bt[t * N + n]) : B[n]);
      carry[n] = dh * decay[n];
      const Vec<S> dexponent = carry[n] * before[n];
      through_decay += dexponent * A[n];
      dA[n] += dexponent * s.delta[t];
    }
    s.du[t] = through_input * s.delta[t];
    s.ddelta[t] = through_input * s.u[t] + through_decay;
  }
}

template <typename S, int N_, bool varying_B, bool varying_C>
void backward_blocks(const ScanInputs<S>& in, const ScanGradients<S>& grad, const Blocks& blocks, int64_t begin,
                     int64_t end) {
  constexpr int W = kLanes<S>;
  const int N = N_ ? N_ : static_cast<int>(in.state);
  const int64_t E = in.channels, L = in.length;
  const BackwardScratch<S> s(N, static_cast<int>((blocks.channels_per_block + W - 1) / W));
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(in, blocks, index);
    const auto lanes_at = [&](int64_t e) { return static_cast<int>(std::min<int64_t>(W, block.end_channel - e)); };
    const auto row_of = [&](int64_t e) { return static_cast<int>((e - block.first_channel) / W) * N; };
    for (int64_t e = block.first_channel; e < block.end_channel; e += W) {
      const int row = row_of(e), lanes = lanes_at(e);
      load_rows<S>(in.A, E, N, e, lanes, s.A + row);
      if (!varying_B) load_rows<S>(in.B, E, N, e, lanes, s.B + row);
      if (!varying_C) load_rows<S>(in.C, E, N, e, lanes, s.C + row);
      for (int n = 0; n < N; ++n) s.carry[row + n] = s.dA[row + n] = s.dB[row + n] = s.dC[row + n] = Vec<S>{};
      if (grad.last_state) load_rows<S>(grad.last_state + block.b * N * E, E, N, e, lanes, s.carry + row);
    }
    for (int64_t start = (chunks(L) - 1) * kChunk; start >= 0; start -= kChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kChunk, L - start));
      const S* Bt = block.B + start * N;
      const S* Ct = block.C + start * N;
      for (int i = 0; i < length * N; ++i) s.dB_sum[i] = s.dC_sum[i] = Vec<S>{};
      for (int64_t e = block.first_channel; e < block.end_channel; e += W) {
        const int lanes = lanes_at(e);
        const auto load = [&](const Sequence<const S>& x, Vec<S>* tile) {
          load_tile<S>(x.at(block.b, e, start), x.channel_stride, x.time_stride, lanes, length, tile);
        };
        const auto store = [&](const Vec<S>* tile, const Sequence<S>& x) {
          store_tile<S>(tile, x.channel_stride, x.time_stride, lanes, length, x.at(block.b, e, start));
        };
        load(in.u, s.u);
        load(in.delta, s.delta);
        load(grad.y, s.dy);
        load_rows<S>(grad.chunk_states + (block.b * chunks(L) + start / kChunk) * N * E, E, N, e, lanes, s.h);
        backward_chunk<S, N_, varying_B, varying_C>(s, N, row_of(e), length, Bt, Ct);
        store(s.du, grad.u);
        store(s.ddelta, grad.delta);
      }
      const int64_t partial = ((block.b * in.groups + block.group) * blocks.per_group + block.index_in_group) * L * N;
      for (int i = 0; i < length * N; ++i) {
        if (varying_B) grad.B[partial + start * N + i] = sum_of_lanes<S>(s.dB_sum[i]);
        if (varying_C) grad.C[partial + start * N + i] = sum_of_lanes<S>(s.dC_sum[i]);
      }
    }
    for (int64_t e = block.first_channel; e < block.end_channel; e += W) {
      const int row = row_of(e), lanes = lanes_at(e);
      store_rows<S>(s.dA + row, E, N, e, lanes, grad.A + block.b * N * E);
      if (!varying_B) store_rows<S>(s.dB + row, E, N, e, lanes, grad.B + block.b * N * E);
      if (!varying_C) store_rows<S>(s.dC + row, E, N, e, lanes, grad.C + block.b * N * E);
    }
  }
}

// Runs `launch.template operator()<N, varying_B, varying_C>()` for the arguments at hand.
template <typename S, typename Launch>
void specialise(const ScanInputs<S>& in, const Launch& launch) {
  const auto with_state = [&](auto varying_B, auto varying_C) {
    if (in.state == 16) {
      launch(std::integral_constant<int, 16>{}, varying_B, varying_C);
    } else {
      launch(std::integral_constant<int, 0>{}, varying_B, varying_C);
    }
  };
  if (in.input_dependent_B && in.input_dependent_C) {
    with_state(std::true_type{}, std::true_type{});
  } else if (in.input_dependent_B) {
    with_state(std::true_type{}, std::false_type{});
  } else if (in.input_dependent_C) {
    with_state(std::false_type{}, std::true_type{});
  } else {
    with_state(std::false_type{}, std::false_type{});
  }
}

template <typename S>
void forward(const ScanInputs<S>& in, const ScanOutputs<S>& out, const Blocks& blocks, int64_t begin, int64_t end) {
  specialise<S>(in, [&](auto N, auto varying_B, auto varying_C) {
    forward_blocks<S, N.value, varying_B.value, varying_C.value>(in, out, blocks, begin, end);
  });
}

template <typename S>
void backward(const ScanInputs<S>& in, const ScanGradients<S>& grad, const Blocks& blocks, int64_t begin, int64_t end) {
  specialise<S>(in, [&](auto N, auto varying_B, auto varying_C) {
    backward_blocks<S, N.value, varying_B.value, varying_C.value>(in, grad, blocks, begin, end);
  });
}

}  // namespace
