// Arguments of the fused De-focus scan on CPU, shared by the host function and the kernels of every instruction set.
// Legend: B batch, E channels, L time, N state.
#pragma once

#include "cpu/chunks.h"
#include "cpu/sequence.h"

namespace mmdefocus::cpu {

template <typename S>
struct DefocusInputs {
  int64_t length, state, group_size;
  S inverse_delta_scale, eps;
  Input u, dt, z;
  const S *B, *C;       // contiguous (B, L, N), rotated
  Input A;              // (E, N)
  Input D, dt_bias;     // (E)
  Input initial_state;  // (B, E, N); its data may be null
};

template <typename S>
struct DefocusOutputs {
  Output y, last_state;  // (B, E, L), (B, E, N)
  S* chunk_states;       // (B, chunks, N, E): the state before the first step of every chunk
};

template <typename S>
struct DefocusGradients {
  Input y;                // incoming
  Input last_state;       // incoming, (B, E, N); its data may be null
  const S* chunk_states;  // saved by the forward pass
  Output u, dt, z;
  S *B, *C;              // (B, channel blocks, L, N), one partial sum per block, of the rotated projections
  Output A;              // (B, E, N)
  Output D, dt_bias;     // (B, E)
  Output initial_state;  // (B, E, N); its data may be null
};

// Work on the blocks begin..end, which consist of whole norm groups.
template <typename S>
struct DefocusKernels {
  void (*forward)(const DefocusInputs<S>&, const DefocusOutputs<S>&, const Blocks&, int64_t begin, int64_t end);
  void (*backward)(const DefocusInputs<S>&, const DefocusGradients<S>&, const Blocks&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
