// Arguments of the selective scan on CPU, shared by the host function and the kernels of every instruction set.
// Legend: B batch, E channels, L time, N state, G groups of channels that share B and C.
#pragma once

#include "cpu/chunks.h"
#include "cpu/sequence.h"

namespace mmdefocus::cpu {

// B or C: contiguous (B, G, L, N) where it depends on the input, else (E, N).
template <typename S>
struct ScanProjection {
  const S* steps;  // null where it is constant
  Input constant;
};

template <typename S>
struct ScanInputs {
  int64_t length, state;
  Input u, delta;
  Input A;  // (E, N)
  ScanProjection<S> B, C;
};

template <typename S>
struct ScanOutputs {
  Output y, last_state;  // (B, E, L), (B, E, N)
  S* chunk_states;       // (B, chunks, N, E): the state before the first step of every chunk
};

template <typename S>
struct ScanGradients {
  Input y;                // incoming
  Input last_state;       // incoming, (B, E, N); its data may be null
  const S* chunk_states;  // saved by the forward pass
  Output u, delta;
  Output A;                       // (B, E, N)
  Output constant_B, constant_C;  // (B, E, N), used where the projection is constant
  S *B, *C;  // (B, G, channel blocks of a group, L, N), one partial sum per block, where it depends on the input
};

// Work on the blocks begin..end.
template <typename S>
struct ScanKernels {
  void (*forward)(const ScanInputs<S>&, const ScanOutputs<S>&, const Blocks&, int64_t begin, int64_t end);
  void (*backward)(const ScanInputs<S>&, const ScanGradients<S>&, const Blocks&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
