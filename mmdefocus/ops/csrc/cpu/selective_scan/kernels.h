// The selective scan and its gradient for the instruction set of the including file.
// Shapes: B batch, E channels, L time, N state.
#pragma once

#include "cpu/common/scan_chunk.h"
#include "cpu/selective_scan/arguments.h"

namespace {

// N_ is the state size where it is known at compile time, else 0.
template <typename S, int N_>
void selective_forward_blocks(const SelectiveInputs<S>& in, const SelectiveOutputs<S>& out, const ChannelBlocks& blocks,
                              int64_t begin, int64_t end) {
  const int N = N_ ? N_ : static_cast<int>(in.state);
  const int64_t L = in.length, E = blocks.channels;
  Scratch<S> scratch(3 * kChunk + 2 * N);
  Vec<S>* u = scratch.take(kChunk);
  Vec<S>* delta = scratch.take(kChunk);
  Vec<S>* y = scratch.take(kChunk);
  Vec<S>* A = scratch.take(N);
  Vec<S>* state = scratch.take(N);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      load_decay_rates<S>(in.A, e, lanes, N, A);
      std::fill_n(state, N, Vec<S>{});
      for (int64_t start = 0; start < L; start += kChunk) {
        const int length = static_cast<int>(std::min<int64_t>(kChunk, L - start));
        const int64_t row = (block.b * L + start) * N;
        load_tile<S>(in.u, block.b, e, start, lanes, length, u, kChunk);
        load_tile<S>(in.delta, block.b, e, start, lanes, length, delta, kChunk);
        store_rows<S>(state, E, N, e, lanes, out.chunk_states + chunk_offset(block.b, start, L, N, E));
        scan_chunk<S, N_>(N, length, u, delta, A, in.B + row, in.C + row, {}, state, y);
        store_tile<S>(y, block.b, e, start, lanes, length, out.y);
      }
      store_tile<S>(state, block.b, e, 0, lanes, N, out.last_state);
    }
  }
}

template <typename S, int N_>
void selective_backward_blocks(const SelectiveInputs<S>& in, const SelectiveGradients<S>& grad,
                               const ChannelBlocks& blocks, int64_t begin, int64_t end) {
  const int N = N_ ? N_ : static_cast<int>(in.state);
  const int64_t L = in.length, E = blocks.channels;
  const ReverseScratch<S, N_> scratch(N, blocks.block_channels, 1);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    for (int v = 0; v < block.vectors; ++v) {
      const ReverseTiles<S> s = scratch.vector(v);
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      load_decay_rates<S>(in.A, e, lanes, N, s.A);
      std::fill_n(s.grad_state, N, Vec<S>{});
      std::fill_n(s.grad_A, N, Vec<S>{});
      if (grad.grad_last_state.data) load_tile<S>(grad.grad_last_state, block.b, e, 0, lanes, N, s.grad_state);
    }
    // The vectors of a block go through the sequence together, chunk by chunk, because they share the sums of grad_B
    // and grad_C.
    for (int64_t start = (num_chunks(L) - 1) * kChunk; start >= 0; start -= kChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kChunk, L - start));
      const int64_t row = (block.b * L + start) * N, partial_row = (index * L + start) * N;
      for (int v = 0; v < block.vectors; ++v) {
        const ReverseTiles<S> s = scratch.vector(v);
        const int64_t e = block.channel(v);
        const int lanes = block.lanes(v);
        load_tile<S>(in.u, block.b, e, start, lanes, length, s.u, -kChunk);
        load_tile<S>(in.delta, block.b, e, start, lanes, length, s.delta, -kChunk);
        load_tile<S>(grad.grad_y, block.b, e, start, lanes, length, s.grad_y, -kChunk);
        load_rows<S>(grad.chunk_states + chunk_offset(block.b, start, L, N, E), E, N, e, lanes, s.initial_state);
        recompute_chunk<S, N_, false>(s, N, length, in.B + row, in.C + row, {}, nullptr);
      }
      reverse_chunk<S, N_>(scratch, 0, block.vectors, N, length, in.B + row, in.C + row, grad.grad_B + partial_row,
                           grad.grad_C + partial_row);
      for (int v = 0; v < block.vectors; ++v) {
        const ReverseTiles<S> s = scratch.vector(v);
        Vec<S>*grad_u = s.grad_drive, *grad_delta = s.grad_delta_decay;  // in place
        for (int t = 0; t < length; ++t) {
          const Vec<S> grad_drive = s.grad_drive[t];
          grad_u[t] = grad_drive * s.delta[t];
          grad_delta[t] += grad_drive * s.u[t];
        }
        store_tile<S>(grad_u, block.b, block.channel(v), start, block.lanes(v), length, grad.grad_u);
        store_tile<S>(grad_delta, block.b, block.channel(v), start, block.lanes(v), length, grad.grad_delta);
      }
    }
    for (int v = 0; v < block.vectors; ++v) {
      store_tile<S>(scratch.vector(v).grad_A, block.b, block.channel(v), 0, block.lanes(v), N, grad.grad_A);
    }
  }
}

template <typename S>
void selective_forward(const SelectiveInputs<S>& in, const SelectiveOutputs<S>& out, const ChannelBlocks& blocks,
                       int64_t begin, int64_t end) {
  with_state_size(in.state, [&](auto N) { selective_forward_blocks<S, N.value>(in, out, blocks, begin, end); });
}

template <typename S>
void selective_backward(const SelectiveInputs<S>& in, const SelectiveGradients<S>& grad, const ChannelBlocks& blocks,
                        int64_t begin, int64_t end) {
  with_state_size(in.state, [&](auto N) { selective_backward_blocks<S, N.value>(in, grad, blocks, begin, end); });
}

}  // namespace
