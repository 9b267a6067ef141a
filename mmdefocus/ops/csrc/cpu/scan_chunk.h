// The recurrence and its gradient over one chunk of the sequence, for neighbouring channels.
//
//   h_t = 2^(delta_t A) h_{t-1} + delta_t u_t B_t,   y_t = sum over n of C_t h_t
//
// A is that of the operator times log2(e), since a power of 2 is cheaper than one of e.
// One vector holds neighbouring channels at one time step, so that sums over the state need no shuffles and the N
// recurrences of a vector hide each other's latency. Legend: N state.
#pragma once

#include "cpu/chunks.h"
#include "cpu/tile.h"

namespace {

// Where a block of channels lies, and its vectors, all of them full but the last.
template <typename S>
struct Block {
  int64_t b, group, index_in_group, first_channel, end_channel;
  int vectors;

  Block(const Blocks& blocks, int64_t index)
      : b(index / blocks.per_group / blocks.groups), group(index / blocks.per_group % blocks.groups),
        index_in_group(index % blocks.per_group),
        first_channel(group * blocks.channels_per_group + index_in_group * blocks.channels_per_block),
        end_channel(std::min(first_channel + blocks.channels_per_block, (group + 1) * blocks.channels_per_group)),
        vectors(static_cast<int>((end_channel - first_channel + kLanes<S> - 1) / kLanes<S>)) {}

  int64_t channel(int v) const { return first_channel + static_cast<int64_t>(v) * kLanes<S>; }
  int lanes(int v) const { return static_cast<int>(std::min<int64_t>(kLanes<S>, end_channel - channel(v))); }
};

// States that are treated at a time, so that they stay in registers along the chunk. N_ is the number of states where
// it is known at compile time, else 0.
template <int N_>
constexpr int kStateBlock = N_ > 0 && N_ % 4 == 0 ? 4 : 1;

// Where the state before the chunk that begins at step `start` of image b lies in (B, chunks, N, E).
inline int64_t chunk_offset(int64_t b, int64_t start, int64_t L, int64_t N, int64_t E) {
  return (b * chunks(L) + start / kChunk) * N * E;
}

// B or C of one chunk.
template <typename S, bool varying>
struct Projection {
  const S* steps;          // (length, N), shared by all channels, where it depends on the input
  const Vec<S>* constant;  // (N), where it does not

  // State n of the step whose row begins at `row`.
  inline __attribute__((always_inline)) Vec<S> at(int64_t row, int64_t n) const {
    return varying ? splat<S>(steps[row + n]) : constant[n];
  }
};

// Advances `state` (N) over the chunk and writes y (length). This loop and those below are functions of their own: the
// compiler then keeps all that they need in registers.
template <typename S, int N_, bool varying_B, bool varying_C>
__attribute__((noinline)) void scan_chunk(int64_t state_size, int64_t length, const Vec<S>* u, const Vec<S>* delta,
                                          const Vec<S>* A, Projection<S, varying_B> B, Projection<S, varying_C> C,
                                          Vec<S>* state, Vec<S>* y) {
  constexpr int NB = kStateBlock<N_>;
  const int64_t N = N_ ? N_ : state_size;
  for (int64_t n = 0; n < N; n += NB) {
    Vec<S> decay_rate[NB], h[NB];
    std::copy_n(A + n, NB, decay_rate);
    std::copy_n(state + n, NB, h);
    for (int64_t t = 0; t < length; ++t) {
      const Vec<S> input = delta[t] * u[t];
      Vec<S> sum = n ? y[t] : Vec<S>{};
#pragma GCC unroll 4
      for (int i = 0; i < NB; ++i) {
        h[i] = vector_exp2<S>(delta[t] * decay_rate[i]) * h[i] + input * B.at(t * N, n + i);
        sum += h[i] * C.at(t * N, n + i);
      }
      y[t] = sum;
    }
    std::copy_n(h, NB, state + n);
  }
}

// One vector of channels in the backward pass over one chunk. The states lie block by block of kStateBlock, a block's
// steps one after the other.
template <typename S>
struct ReverseTiles {
  Vec<S>*u, *delta, *dy;                 // (length), read
  Vec<S>*through_input, *through_decay;  // (length): gradients of delta_t u_t, and of delta_t in the decay
  Vec<S>* before;                        // (N): the state before the chunk
  Vec<S>*states, *decays;                // (length + 1, N), before and after every step; (length, N)
  // Kept from chunk to chunk, (N):
  Vec<S>*A, *carry, *dA;   // `carry` is the gradient that reaches h from later steps
  Vec<S>*B, *C, *dB, *dC;  // where B and C do not depend on the input

  static int64_t size(int N) { return 5 * kChunk + N + (2 * kChunk + 1) * N; }
  static int64_t kept_size(int N) { return 7 * N; }

  ReverseTiles(Vec<S>* memory, Vec<S>* kept, int N) {
    for (Vec<S>** tile : {&u, &delta, &dy, &through_input, &through_decay}) {
      *tile = std::exchange(memory, memory + kChunk);
    }
    before = std::exchange(memory, memory + N);
    states = std::exchange(memory, memory + (kChunk + 1) * N);
    decays = memory;
    for (Vec<S>** rows : {&A, &carry, &dA, &B, &C, &dB, &dC}) *rows = std::exchange(kept, kept + N);
  }
};

// Memory of the backward pass for so many blocks of so many channels.
template <typename S, int N_>
class ReverseScratch {
 public:
  ReverseScratch(int N, int64_t channels, int64_t blocks)
      : N_states_(N), vectors_((channels + kLanes<S> - 1) / kLanes<S>),
        memory_(kSums + vectors_ * (ReverseTiles<S>::size(N) + blocks * ReverseTiles<S>::kept_size(N))) {
    sums = memory_.take(kSums);
    tiles_ = memory_.take(vectors_ * ReverseTiles<S>::size(N));
    kept_ = memory_.take(0);
  }

  // Vector v of block i, whose tiles are those of all blocks.
  ReverseTiles<S> vector(int v, int64_t i = 0) const {
    return {tiles_ + v * ReverseTiles<S>::size(N_states_),
            kept_ + (i * vectors_ + v) * ReverseTiles<S>::kept_size(N_states_), N_states_};
  }

  Vec<S>* sums;  // gradients of B and C, summed over vectors: (2, kChunk, kStateBlock)

 private:
  static constexpr int64_t kSums = 2 * kChunk * kStateBlock<N_>;
  int N_states_;
  int64_t vectors_;
  Scratch<S> memory_;
  Vec<S>*tiles_, *kept_;
};

// Recomputes states and decays from the state before the chunk, and, where asked for, y (length).
template <typename S, int N_, bool with_y, bool varying_B, bool varying_C>
__attribute__((noinline)) void record_chunk(ReverseTiles<S> s, int64_t state_size, int64_t length,
                                            Projection<S, varying_B> B, Projection<S, varying_C> C, Vec<S>* y) {
  constexpr int NB = kStateBlock<N_>;
  const int64_t N = N_ ? N_ : state_size;
  for (int64_t n = 0; n < N; n += NB) {
    Vec<S>* states = s.states + n * (kChunk + 1);
    Vec<S>* decays = s.decays + n * kChunk;
    Vec<S> decay_rate[NB], h[NB];
    std::copy_n(s.A + n, NB, decay_rate);
    std::copy_n(s.before + n, NB, h);
    std::copy_n(h, NB, states);
    for (int64_t t = 0; t < length; ++t) {
      const Vec<S> input = s.delta[t] * s.u[t];
      Vec<S> sum = with_y && n ? y[t] : Vec<S>{};
#pragma GCC unroll 4
      for (int i = 0; i < NB; ++i) {
        const Vec<S> decay = vector_exp2<S>(s.delta[t] * decay_rate[i]);
        h[i] = decay * h[i] + input * B.at(t * N, n + i);
        decays[t * NB + i] = decay;
        states[(t + 1) * NB + i] = h[i];
        if (with_y) sum += h[i] * C.at(t * N, n + i);
      }
      if (with_y) y[t] = sum;
    }
  }
}

// The gradient of the states n .. n + NB of one vector of channels, `first` telling whether it is the first vector
// whose dB and dC (length, NB) are summed up.
template <typename S, int N_, bool first, bool varying_B, bool varying_C>
__attribute__((noinline)) void reverse_states(ReverseTiles<S> s, int64_t state_size, int64_t n, int64_t length,
                                              Projection<S, varying_B> B, Projection<S, varying_C> C,
                                              Vec<S>* __restrict__ dB_sum, Vec<S>* __restrict__ dC_sum) {
  constexpr int NB = kStateBlock<N_>;
  const int64_t N = N_ ? N_ : state_size;
  const Vec<S>* states = s.states + n * (kChunk + 1);
  const Vec<S>* decays = s.decays + n * kChunk;
  Vec<S> A[NB], carry[NB], dA[NB], dB[NB], dC[NB], after[NB];
  std::copy_n(s.A + n, NB, A);
  std::copy_n(s.carry + n, NB, carry);
  std::copy_n(s.dA + n, NB, dA);
  if (!varying_B) std::copy_n(s.dB + n, NB, dB);
  if (!varying_C) std::copy_n(s.dC + n, NB, dC);
  std::copy_n(states + length * NB, NB, after);
  for (int64_t t = length - 1; t >= 0; --t) {
    const Vec<S> dy = s.dy[t], delta = s.delta[t], input = delta * s.u[t];
    Vec<S> through_input = n ? s.through_input[t] : Vec<S>{}, through_decay = n ? s.through_decay[t] : Vec<S>{};
#pragma GCC unroll 4
    for (int i = 0; i < NB; ++i) {
      const Vec<S> before = states[t * NB + i];
      const Vec<S> dh = carry[i] + dy * C.at(t * N, n + i);
      if (first) dB_sum[t * NB + i] = dC_sum[t * NB + i] = Vec<S>{};
      (varying_C ? dC_sum[t * NB + i] : dC[i]) += dy * after[i];
      (varying_B ? dB_sum[t * NB + i] : dB[i]) += dh * input;
      through_input += dh * B.at(t * N, n + i);
      carry[i] = dh * decays[t * NB + i];
      const Vec<S> dexponent = carry[i] * before;
      through_decay += dexponent * A[i];
      dA[i] += dexponent * delta;
      after[i] = before;
    }
    s.through_input[t] = through_input;
    s.through_decay[t] = through_decay;
  }
  std::copy_n(carry, NB, s.carry + n);
  std::copy_n(dA, NB, s.dA + n);
  if (!varying_B) std::copy_n(dB, NB, s.dB + n);
  if (!varying_C) std::copy_n(dC, NB, s.dC + n);
}

// Lane sums of a block's tile (length, NB) into the columns n .. n + NB of a matrix (length, N).
template <typename S, int NB>
inline void reduce_lanes(const Vec<S>* tile, int n, int N, int length, S* matrix) {
  constexpr int W = kLanes<S>;
  alignas(sizeof(Vec<S>)) S sums[kChunk * NB];
  for (int i = 0; i < length * NB; i += W) *reinterpret_cast<Vec<S>*>(sums + i) = sums_of_lanes<S>(tile + i);
  for (int t = 0; t < length; ++t) std::copy_n(sums + t * NB, NB, matrix + t * N + n);
}

// The gradient over one chunk of the `count` vectors of block i, which share B and C, after record_chunk of each. The
// sums of their dB and dC are written to (length, N) where these depend on the input.
template <typename S, int N_, bool varying_B, bool varying_C>
inline void reverse_chunk(const ReverseScratch<S, N_>& scratch, int64_t i, int count, int N, int length,
                          const S* B_steps, const S* C_steps, S* dB, S* dC) {
  constexpr int NB = kStateBlock<N_>;
  Vec<S>* dB_sum = scratch.sums;
  Vec<S>* dC_sum = scratch.sums + kChunk * NB;
  for (int n = 0; n < N; n += NB) {
    for (int v = 0; v < count; ++v) {
      const ReverseTiles<S> s = scratch.vector(v, i);
      const Projection<S, varying_B> B{B_steps, s.B};
      const Projection<S, varying_C> C{C_steps, s.C};
      if (v == 0) {
        reverse_states<S, N_, true>(s, N, n, length, B, C, dB_sum, dC_sum);
      } else {
        reverse_states<S, N_, false>(s, N, n, length, B, C, dB_sum, dC_sum);
      }
    }
    if (varying_B) reduce_lanes<S, NB>(dB_sum, n, N, length, dB);
    if (varying_C) reduce_lanes<S, NB>(dC_sum, n, N, length, dC);
  }
  // The rates of decay are those of powers of 2.
  for (int v = 0; v < count; ++v) {
    const ReverseTiles<S> s = scratch.vector(v, i);
    for (int t = 0; t < length; ++t) s.through_decay[t] *= static_cast<S>(kLn2);
  }
}

// Loads A for the recurrence.
template <typename S>
inline void load_decay_rates(const Input& A, int64_t e, int lanes, int N, Vec<S>* rates) {
  load_tile<S>(A, 0, e, 0, lanes, N, rates);
  for (int n = 0; n < N; ++n) rates[n] *= static_cast<S>(kLog2E);
}

// Calls `launch` with the state size, 0 standing for one that has no kernel of its own.
template <typename Launch>
inline void with_state_size(int64_t state, const Launch& launch) {
  if (state == 16) {
    launch(std::integral_constant<int, 16>{});
  } else {
    launch(std::integral_constant<int, 0>{});
  }
}

}  // namespace
