// Arguments of the fused De-focus scan on CPU, shared by the host function and the kernels of every instruction set.
// Legend: B batch, E channels, L time, N state, M segments.
#pragma once

#include "cpu/chunks.h"
#include "cpu/sequence.h"

namespace mmdefocus::cpu {

template <typename S>
struct DefocusInputs {
  int64_t length, state, group_size;
  Segments segments;
  S inverse_delta_scale, eps;
  Input u, dt, z;
  const S *B, *C;      // contiguous (B, L, N), rotated
  Input A;             // (E, N)
  Input D, dt_bias;    // (E)
  Input start_states;  // (B M, E, N), before the first step of every segment; its data may be null
};

template <typename S>
struct DefocusOutputs {
  Output y;            // (B, E, L); its data may be null: then chunk_states are not written either
  Output end_states;   // (B M, E, N), after the last step of every segment
  Output total_delta;  // (B M, E), over the segment; its data may be null
  S* chunk_states;     // (B, chunks, N, E): the state before the first step of every chunk
};

template <typename S>
struct DefocusGradients {
  Input y;                // incoming
  Input end_states;       // incoming, (B M, E, N); its data may be null
  const S* chunk_states;  // saved by the forward pass
  Output u, dt, z;        // the data of z may be null: then only start_states and total_delta are written
  S *B, *C;               // (B, channel blocks, L, N), one partial sum per block, of the rotated projections
  Output A;               // (B M, E, N)
  Output D, dt_bias;      // (B M, E)
  Output start_states;    // (B M, E, N); its data may be null
  Output total_delta;     // (B M, E), over the segment; its data may be null
};

// Work on the segments begin..end of all blocks, of which each consists of whole norm groups; the segments of a block
// follow one another.
template <typename S>
struct DefocusKernels {
  void (*forward)(const DefocusInputs<S>&, const DefocusOutputs<S>&, const Blocks&, int64_t begin, int64_t end);
  void (*backward)(const DefocusInputs<S>&, const DefocusGradients<S>&, const Blocks&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
