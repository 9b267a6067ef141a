// The selective scan and its gradient for the instruction set of the including file.
#pragma once

#include "cpu/scan_chunk.h"
#include "cpu/selective_scan.h"

namespace {

// N_ is the state size where it is known at compile time, else 0.
template <typename S, int N_, bool varying_B, bool varying_C>
void scan_forward_blocks(const ScanInputs<S>& in, const ScanOutputs<S>& out, const Blocks& blocks, int64_t begin,
                         int64_t end) {
  const int N = N_ ? N_ : static_cast<int>(in.state);
  const int64_t L = in.length, E = blocks.groups * blocks.channels_per_group;
  Scratch<S> scratch(3 * kChunk + 4 * N);
  Vec<S>* u = scratch.take(kChunk);
  Vec<S>* delta = scratch.take(kChunk);
  Vec<S>* y = scratch.take(kChunk);
  Vec<S>* A = scratch.take(N);
  Vec<S>* constant_B = scratch.take(N);
  Vec<S>* constant_C = scratch.take(N);
  Vec<S>* state = scratch.take(N);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    const int64_t first_step = (block.b * blocks.groups + block.group) * L;
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      load_decay_rates<S>(in.A, e, lanes, N, A);
      if (!varying_B) load_tile<S>(in.B.constant, 0, e, 0, lanes, N, constant_B);
      if (!varying_C) load_tile<S>(in.C.constant, 0, e, 0, lanes, N, constant_C);
      std::fill_n(state, N, Vec<S>{});
      for (int64_t start = 0; start < L; start += kChunk) {
        const int length = static_cast<int>(std::min<int64_t>(kChunk, L - start));
        load_tile<S>(in.u, block.b, e, start, lanes, length, u, kChunk);
        load_tile<S>(in.delta, block.b, e, start, lanes, length, delta, kChunk);
        store_rows<S>(state, E, N, e, lanes, out.chunk_states + chunk_offset(block.b, start, L, N, E));
        const Projection<S, varying_B> B{varying_B ? in.B.steps + (first_step + start) * N : nullptr, constant_B};
        const Projection<S, varying_C> C{varying_C ? in.C.steps + (first_step + start) * N : nullptr, constant_C};
        scan_chunk<S, N_>(N, length, u, delta, A, B, C, state, y);
        store_tile<S>(y, block.b, e, start, lanes, length, out.y);
      }
      store_tile<S>(state, block.b, e, 0, lanes, N, out.last_state);
    }
  }
}

template <typename S, int N_, bool varying_B, bool varying_C>
void scan_backward_blocks(const ScanInputs<S>& in, const ScanGradients<S>& grad, const Blocks& blocks, int64_t begin,
                          int64_t end) {
  const int N = N_ ? N_ : static_cast<int>(in.state);
  const int64_t L = in.length, E = blocks.groups * blocks.channels_per_group;
  const ReverseScratch<S, N_> scratch(N, blocks.channels_per_block, 1);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    for (int v = 0; v < block.vectors; ++v) {
      const ReverseTiles<S> s = scratch.vector(v);
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      load_decay_rates<S>(in.A, e, lanes, N, s.A);
      if (!varying_B) load_tile<S>(in.B.constant, 0, e, 0, lanes, N, s.B);
      if (!varying_C) load_tile<S>(in.C.constant, 0, e, 0, lanes, N, s.C);
      for (Vec<S>* sum : {s.carry, s.dA, s.dB, s.dC}) std::fill_n(sum, N, Vec<S>{});
      if (grad.last_state.data) load_tile<S>(grad.last_state, block.b, e, 0, lanes, N, s.carry);
    }
    const int64_t first_step = (block.b * blocks.groups + block.group) * L;
    const int64_t partial = ((block.b * blocks.groups + block.group) * blocks.per_group + block.index_in_group) * L;
    for (int64_t start = (chunks(L) - 1) * kChunk; start >= 0; start -= kChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kChunk, L - start));
      const S* B_steps = varying_B ? in.B.steps + (first_step + start) * N : nullptr;
      const S* C_steps = varying_C ? in.C.steps + (first_step + start) * N : nullptr;
      for (int v = 0; v < block.vectors; ++v) {
        const ReverseTiles<S> s = scratch.vector(v);
        const int64_t e = block.channel(v);
        const int lanes = block.lanes(v);
        load_tile<S>(in.u, block.b, e, start, lanes, length, s.u, -kChunk);
        load_tile<S>(in.delta, block.b, e, start, lanes, length, s.delta, -kChunk);
        load_tile<S>(grad.y, block.b, e, start, lanes, length, s.dy, -kChunk);
        load_rows<S>(grad.chunk_states + chunk_offset(block.b, start, L, N, E), E, N, e, lanes, s.before);
        const Projection<S, varying_B> B{B_steps, s.B};
        const Projection<S, varying_C> C{C_steps, s.C};
        record_chunk<S, N_, false>(s, N, length, B, C, nullptr);
      }
      reverse_chunk<S, N_, varying_B, varying_C>(scratch, 0, block.vectors, N, length, B_steps, C_steps,
                                                 varying_B ? grad.B + (partial + start) * N : nullptr,
                                                 varying_C ? grad.C + (partial + start) * N : nullptr);
      for (int v = 0; v < block.vectors; ++v) {
        const ReverseTiles<S> s = scratch.vector(v);
        for (int t = 0; t < length; ++t) {
          const Vec<S> through_input = s.through_input[t];
          s.through_input[t] = through_input * s.delta[t];
          s.through_decay[t] += through_input * s.u[t];
        }
        store_tile<S>(s.through_input, block.b, block.channel(v), start, block.lanes(v), length, grad.u);
        store_tile<S>(s.through_decay, block.b, block.channel(v), start, block.lanes(v), length, grad.delta);
      }
    }
    for (int v = 0; v < block.vectors; ++v) {
      const ReverseTiles<S> s = scratch.vector(v);
      store_tile<S>(s.dA, block.b, block.channel(v), 0, block.lanes(v), N, grad.A);
      if (!varying_B) store_tile<S>(s.dB, block.b, block.channel(v), 0, block.lanes(v), N, grad.constant_B);
      if (!varying_C) store_tile<S>(s.dC, block.b, block.channel(v), 0, block.lanes(v), N, grad.constant_C);
    }
  }
}

// Calls `launch` with the state size and with which of B and C depend on the input.
template <typename S, typename Launch>
void specialise(const ScanInputs<S>& in, const Launch& launch) {
  with_state_size(in.state, [&](auto N) {
    if (in.B.steps && in.C.steps) {
      launch(N, std::true_type{}, std::true_type{});
    } else if (in.B.steps) {
      launch(N, std::true_type{}, std::false_type{});
    } else if (in.C.steps) {
      launch(N, std::false_type{}, std::true_type{});
    } else {
      launch(N, std::false_type{}, std::false_type{});
    }
  });
}

template <typename S>
void scan_forward(const ScanInputs<S>& in, const ScanOutputs<S>& out, const Blocks& blocks, int64_t begin,
                  int64_t end) {
  specialise<S>(in, [&](auto N, auto varying_B, auto varying_C) {
    scan_forward_blocks<S, N.value, varying_B.value, varying_C.value>(in, out, blocks, begin, end);
  });
}

template <typename S>
void scan_backward(const ScanInputs<S>& in, const ScanGradients<S>& grad, const Blocks& blocks, int64_t begin,
                   int64_t end) {
  specialise<S>(in, [&](auto N, auto varying_B, auto varying_C) {
    scan_backward_blocks<S, N.value, varying_B.value, varying_C.value>(in, grad, blocks, begin, end);
  });
}

}  // namespace
