// Arguments of the fused De-focus scan on CPU, shared by the host function and the kernels of every instruction set.
// Shapes: B batch, E channels, L time, N state, M segments per sequence.
#pragma once

#include "cpu/common/blocks.h"
#include "cpu/common/strided_view.h"

namespace mmdefocus::cpu {

template <typename S>
struct DefocusInputs {
  int64_t length, state, group_size;
  Segmentation segmentation;
  S inverse_delta_scale, eps;
  InputView u, dt, z;        // (B, E, L)
  const S *B, *C;            // contiguous (B, L, N), after the rotation
  InputView A;               // (E, N)
  InputView D, dt_bias;      // (E)
  InputView initial_states;  // (B M, E, N), before the first step of every segment; its data may be null for zeros
};

template <typename S>
struct DefocusOutputs {
  OutputView y;             // (B, E, L); null data selects the pass for local states: no y, no chunk_states
  OutputView final_states;  // (B M, E, N), after the last step of every segment
  OutputView total_delta;   // (B M, E), sum over the segment; its data may be null
  S* chunk_states;          // (B, chunks, N, E): the state before the first step of every chunk
};

template <typename S>
struct DefocusGradients {
  InputView grad_y;                 // (B, E, L)
  InputView grad_final_states;      // (B M, E, N); its data may be null for zeros
  const S* chunk_states;            // saved by the forward pass
  OutputView grad_u, grad_dt;       // (B, E, L)
  OutputView grad_z;                // (B, E, L); null data selects the pass for local gradients of the initial states:
                                    // only grad_initial_states and total_delta are written
  S *grad_B, *grad_C;               // (B, channel blocks, L, N), of the rotated B and C: one partial sum per block
  OutputView grad_A;                // (B M, E, N): one partial sum per segment
  OutputView grad_D, grad_dt_bias;  // (B M, E), likewise
  OutputView grad_initial_states;   // (B M, E, N)
  OutputView total_delta;           // (B M, E), sum over the segment; its data may be null
};

// Work on the items begin .. end, where item i is segment i % M of block i / M. A block consists of whole norm groups.
template <typename S>
struct DefocusKernels {
  void (*forward)(const DefocusInputs<S>&, const DefocusOutputs<S>&, const ChannelBlocks&, int64_t begin, int64_t end);
  void (*backward)(const DefocusInputs<S>&, const DefocusGradients<S>&, const ChannelBlocks&, int64_t begin,
                   int64_t end);
};

}  // namespace mmdefocus::cpu
