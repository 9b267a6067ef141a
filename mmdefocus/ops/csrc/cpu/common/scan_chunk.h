// The recurrence and its reverse-mode sweep over one chunk of the sequence, for neighbouring channels.
//
//   h_t = 2^(delta_t A) h_{t-1} + drive_t B_t,   drive_t = delta_t u_t,   y_t = sum over n of C_t h_t
//
// A is that of the operator times log2(e), since exp2 saves the multiplication that exp needs to reduce its argument.
// One vector holds neighbouring channels at one time step: sums over the state then need no shuffles, and the N
// independent recurrences of a vector hide each other's latency.
// Shapes: E channels, N state; `length` is the number of steps in the chunk.
#pragma once

#include "cpu/common/block_tile.h"

namespace {

// States that a loop over the chunk advances together, so that they and their temporaries stay in the 16 or 32 vector
// registers. N_ is the state size where it is known at compile time, else 0.
template <int N_>
constexpr int kStateBlock = N_ > 0 && N_ % 4 == 0 ? 4 : 1;
template <int N_>
constexpr int kForwardStateBlock = MMDEFOCUS_VECTOR_BYTES == 64 && N_ > 0 && N_ % 8 == 0 ? 8 : kStateBlock<N_>;

// Steps of tensors that are needed next, for which the scan issues prefetches while it computes: it has a hundred
// instructions per step and no memory traffic of its own, whereas a burst of prefetches would wait for itself.
struct NextSteps {
  static constexpr int kMost = 7;
  const char* first[kMost];
  int64_t strides[kMost];  // in bytes
  int count = 0;

  template <typename Byte>
  void add(const StridedView<Byte>& x, int64_t b, int64_t e, int64_t t) {
    first[count] = x.at(b, e, t);
    strides[count++] = x.time_stride * element_bytes(x.type);
  }

  // Step t of the tensors i, i + every, ….
  void prefetch(int64_t t, int64_t i, int64_t every) const {
    for (; i < count; i += every) __builtin_prefetch(first[i] + t * strides[i], 0, 2);
  }
};

// Offset in (B, chunks, N, E) of the state before the chunk that begins at step `start` of sequence b. E comes last
// there, unlike in the states that users see, so that a vector of channels is loaded and stored in one piece.
inline int64_t chunk_offset(int64_t b, int64_t start, int64_t L, int64_t N, int64_t E) {
  return (b * num_chunks(L) + start / kChunk) * N * E;
}

// Advances `state` (N) over the chunk and writes y (length). B and C are (length, N), shared by all channels. This
// function and the two below are not inlined: the register allocator then sees one loop only and spills nothing in it.
template <typename S, int N_>
__attribute__((noinline)) void scan_chunk(int64_t state_size, int64_t length, const Vec<S>* u, const Vec<S>* delta,
                                          const Vec<S>* A, const S* B, const S* C, const NextSteps& next, Vec<S>* state,
                                          Vec<S>* y) {
  constexpr int NB = kForwardStateBlock<N_>;
  const int64_t N = N_ ? N_ : state_size;
  // States are the outer loop: a block of them stays in registers for the whole chunk, at the price of reading and
  // writing y, which is in L1, once per block.
  for (int64_t n = 0; n < N; n += NB) {
    Vec<S> decay_rate[NB], h[NB];
    std::copy_n(A + n, NB, decay_rate);
    std::copy_n(state + n, NB, h);
    for (int64_t t = 0; t < length; ++t) {
      next.prefetch(t, n / NB, N / NB);
      const Vec<S> drive = delta[t] * u[t];
      Vec<S> sum = n ? y[t] : Vec<S>{};
#pragma GCC unroll 8
      for (int i = 0; i < NB; ++i) {
        h[i] = vector_exp2<S>(delta[t] * decay_rate[i]) * h[i] + drive * splat<S>(B[t * N + n + i]);
        sum += h[i] * splat<S>(C[t * N + n + i]);
      }
      y[t] = sum;
    }
    std::copy_n(h, NB, state + n);
  }
}

// Working memory of the backward pass for one vector of channels. States and decays lie block by block of kStateBlock,
// and within a block step by step, in the order in which both sweeps visit them.
template <typename S>
struct ReverseTiles {
  Vec<S>*u, *delta, *grad_y;             // (length), filled by the caller
  Vec<S>*grad_drive, *grad_delta_decay;  // (length): gradient of the drive, and of delta through the decay alone
  Vec<S>* initial_state;                 // (N), before the chunk
  Vec<S>*states, *decays;                // (length + 1, N), before and after every step; (length, N)
  Vec<S>*A, *grad_state, *grad_A;        // (N), persist from chunk to chunk; grad_state comes from later steps

  static int64_t size(int N) { return 5 * kChunk + N + (2 * kChunk + 1) * N; }
  static int64_t persistent_size(int N) { return 3 * N; }

  ReverseTiles(Vec<S>* memory, Vec<S>* persistent, int N) {
    for (Vec<S>** tile : {&u, &delta, &grad_y, &grad_drive, &grad_delta_decay}) {
      *tile = std::exchange(memory, memory + kChunk);
    }
    initial_state = std::exchange(memory, memory + N);
    states = std::exchange(memory, memory + (kChunk + 1) * N);
    decays = memory;
    for (Vec<S>** rows : {&A, &grad_state, &grad_A}) *rows = std::exchange(persistent, persistent + N);
  }
};

// Memory of the backward pass for `blocks` blocks of `channels` channels. Blocks take turns chunk by chunk, so only the
// persistent part exists once per block.
template <typename S, int N_>
class ReverseScratch {
 public:
  ReverseScratch(int N, int64_t channels, int64_t blocks)
      : N_states_(N), vectors_((channels + kLanes<S> - 1) / kLanes<S>),
        memory_(kSums + vectors_ * (ReverseTiles<S>::size(N) + blocks * ReverseTiles<S>::persistent_size(N))) {
    sums = memory_.take(kSums);
    tiles_ = memory_.take(vectors_ * ReverseTiles<S>::size(N));
    persistent_ = memory_.take(0);
  }

  // Vector v of block i.
  ReverseTiles<S> vector(int v, int64_t i = 0) const {
    return {tiles_ + v * ReverseTiles<S>::size(N_states_),
            persistent_ + (i * vectors_ + v) * ReverseTiles<S>::persistent_size(N_states_), N_states_};
  }

  Vec<S>* sums;  // (2, kChunk, kStateBlock): gradients of B and C, summed over the vectors of a block

 private:
  static constexpr int64_t kSums = 2 * kChunk * kStateBlock<N_>;
  int N_states_;
  int64_t vectors_;
  Scratch<S> memory_;
  Vec<S>*tiles_, *persistent_;
};

// Recomputes states and decays from the state before the chunk, and y (length) if `with_y`. Decays are stored because
// the reverse sweep would otherwise compute each exponential a second time.
template <typename S, int N_, bool with_y>
__attribute__((noinline)) void recompute_chunk(ReverseTiles<S> s, int64_t state_size, int64_t length, const S* B,
                                               const S* C, const NextSteps& next, Vec<S>* y) {
  constexpr int NB = kStateBlock<N_>;
  const int64_t N = N_ ? N_ : state_size;
  for (int64_t n = 0; n < N; n += NB) {
    Vec<S>* states = s.states + n * (kChunk + 1);
    Vec<S>* decays = s.decays + n * kChunk;
    Vec<S> decay_rate[NB], h[NB];
    std::copy_n(s.A + n, NB, decay_rate);
    std::copy_n(s.initial_state + n, NB, h);
    std::copy_n(h, NB, states);
    for (int64_t t = 0; t < length; ++t) {
      next.prefetch(t, n / NB, N / NB);
      const Vec<S> drive = s.delta[t] * s.u[t];
      Vec<S> sum = with_y && n ? y[t] : Vec<S>{};
#pragma GCC unroll 4
      for (int i = 0; i < NB; ++i) {
        const Vec<S> decay = vector_exp2<S>(s.delta[t] * decay_rate[i]);
        h[i] = decay * h[i] + drive * splat<S>(B[t * N + n + i]);
        decays[t * NB + i] = decay;
        states[(t + 1) * NB + i] = h[i];
        if (with_y) sum += h[i] * splat<S>(C[t * N + n + i]);
      }
      if (with_y) y[t] = sum;
    }
  }
}

// Reverse-mode sweep of the states n .. n + NB of one vector of channels. The gradients of B and C are added to
// grad_B_sum and grad_C_sum (length, NB), which the first vector of a block initialises.
template <typename S, int N_, bool is_first_vector>
__attribute__((noinline)) void reverse_states(ReverseTiles<S> s, int64_t state_size, int64_t n, int64_t length,
                                              const S* B, const S* C, Vec<S>* __restrict__ grad_B_sum,
                                              Vec<S>* __restrict__ grad_C_sum) {
  constexpr int NB = kStateBlock<N_>;
  const int64_t N = N_ ? N_ : state_size;
  const Vec<S>* states = s.states + n * (kChunk + 1);
  const Vec<S>* decays = s.decays + n * kChunk;
  Vec<S> A[NB], grad_state[NB], grad_A[NB], after[NB];
  std::copy_n(s.A + n, NB, A);
  std::copy_n(s.grad_state + n, NB, grad_state);
  std::copy_n(s.grad_A + n, NB, grad_A);
  std::copy_n(states + length * NB, NB, after);
  for (int64_t t = length - 1; t >= 0; --t) {
    const Vec<S> grad_y = s.grad_y[t], delta = s.delta[t], drive = delta * s.u[t];
    Vec<S> grad_drive = n ? s.grad_drive[t] : Vec<S>{}, grad_delta_decay = n ? s.grad_delta_decay[t] : Vec<S>{};
#pragma GCC unroll 4
    for (int i = 0; i < NB; ++i) {
      const Vec<S> before = states[t * NB + i];
      const Vec<S> grad_h = grad_state[i] + grad_y * splat<S>(C[t * N + n + i]);
      if (is_first_vector) grad_B_sum[t * NB + i] = grad_C_sum[t * NB + i] = Vec<S>{};
      grad_C_sum[t * NB + i] += grad_y * after[i];
      grad_B_sum[t * NB + i] += grad_h * drive;
      grad_drive += grad_h * splat<S>(B[t * N + n + i]);
      grad_state[i] = grad_h * decays[t * NB + i];
      // d exp(x) = exp(x) dx: grad_state has the factor exp(x) already.
      const Vec<S> grad_exponent = grad_state[i] * before;
      grad_delta_decay += grad_exponent * A[i];
      grad_A[i] += grad_exponent * delta;
      after[i] = before;
    }
    s.grad_drive[t] = grad_drive;
    s.grad_delta_decay[t] = grad_delta_decay;
  }
  std::copy_n(grad_state, NB, s.grad_state + n);
  std::copy_n(grad_A, NB, s.grad_A + n);
}

// Horizontal sums of the vectors of a tile (length, NB), written to the columns n .. n + NB of a matrix (length, N).
template <typename S, int NB>
inline void reduce_lanes(const Vec<S>* tile, int n, int N, int length, S* matrix) {
  constexpr int W = kLanes<S>;
  alignas(sizeof(Vec<S>)) S sums[kChunk * NB];
  for (int i = 0; i < length * NB; i += W) *reinterpret_cast<Vec<S>*>(sums + i) = sums_of_lanes<S>(tile + i);
  for (int t = 0; t < length; ++t) std::copy_n(sums + t * NB, NB, matrix + t * N + n);
}

// Reverse-mode sweep of the `vectors` vectors of block i over one chunk, after recompute_chunk of each. Writes the
// block's sums of the gradients of B and C, (length, N). The vectors are the inner loop: lanes are summed once per
// block of channels instead of once per vector.
template <typename S, int N_>
inline void reverse_chunk(const ReverseScratch<S, N_>& scratch, int64_t i, int vectors, int N, int length, const S* B,
                          const S* C, S* grad_B, S* grad_C) {
  constexpr int NB = kStateBlock<N_>;
  Vec<S>* grad_B_sum = scratch.sums;
  Vec<S>* grad_C_sum = scratch.sums + kChunk * NB;
  for (int n = 0; n < N; n += NB) {
    for (int v = 0; v < vectors; ++v) {
      const ReverseTiles<S> s = scratch.vector(v, i);
      if (v == 0) {
        reverse_states<S, N_, true>(s, N, n, length, B, C, grad_B_sum, grad_C_sum);
      } else {
        reverse_states<S, N_, false>(s, N, n, length, B, C, grad_B_sum, grad_C_sum);
      }
    }
    reduce_lanes<S, NB>(grad_B_sum, n, N, length, grad_B);
    reduce_lanes<S, NB>(grad_C_sum, n, N, length, grad_C);
  }
  // A holds rates of powers of 2: d 2^x = ln(2) 2^x dx. One multiplication per step replaces one per step and state.
  for (int v = 0; v < vectors; ++v) {
    const ReverseTiles<S> s = scratch.vector(v, i);
    for (int t = 0; t < length; ++t) s.grad_delta_decay[t] *= static_cast<S>(kLn2);
  }
}

// Loads A of `lanes` channels, times log2(e).
template <typename S>
inline void load_decay_rates(const InputView& A, int64_t e, int lanes, int N, Vec<S>* rates) {
  load_tile<S>(A, 0, e, 0, lanes, N, rates);
  for (int n = 0; n < N; ++n) rates[n] *= static_cast<S>(kLog2E);
}

// Calls `launch` with the state size as a compile-time constant, or with 0 for a size without kernels of its own. The
// models of the paper have N = 16.
template <typename Launch>
inline void with_state_size(int64_t state, const Launch& launch) {
  if (state == 16) {
    launch(std::integral_constant<int, 16>{});
  } else {
    launch(std::integral_constant<int, 0>{});
  }
}

}  // namespace
