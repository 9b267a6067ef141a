// Arguments of the selective scan on CPU, shared by the host function and the kernels of every instruction set.
// Shapes: B batch, E channels, L time, N state.
#pragma once

#include "cpu/common/blocks.h"
#include "cpu/common/strided_view.h"

namespace mmdefocus::cpu {

template <typename S>
struct SelectiveInputs {
  int64_t length, state;
  InputView u, delta;  // (B, E, L)
  InputView A;         // (E, N)
  const S *B, *C;      // contiguous (B, L, N): a step is read as one row, and shared by all channels
};

template <typename S>
struct SelectiveOutputs {
  OutputView y, last_state;  // (B, E, L), (B, E, N)
  S* chunk_states;           // (B, chunks, N, E): the state before the first step of every chunk
};

template <typename S>
struct SelectiveGradients {
  InputView grad_y;           // (B, E, L)
  InputView grad_last_state;  // (B, E, N); its data may be null
  const S* chunk_states;      // saved by the forward pass
  OutputView grad_u, grad_delta;
  OutputView grad_A;   // (B, E, N): one partial sum per sequence
  S *grad_B, *grad_C;  // (B, channel blocks, L, N): one partial sum per block
};

// Work on the blocks begin .. end.
template <typename S>
struct SelectiveKernels {
  void (*forward)(const SelectiveInputs<S>&, const SelectiveOutputs<S>&, const ChannelBlocks&, int64_t begin,
                  int64_t end);
  void (*backward)(const SelectiveInputs<S>&, const SelectiveGradients<S>&, const ChannelBlocks&, int64_t begin,
                   int64_t end);
};

}  // namespace mmdefocus::cpu
