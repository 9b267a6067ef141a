// Arguments of the depthwise causal convolution on CPU, shared by the host function and the kernels of every
// instruction set.
// Shapes: B batch, E channels, L time, K kernel width.
#pragma once

#include "cpu/common/blocks.h"
#include "cpu/common/strided_view.h"

namespace mmdefocus::cpu {

struct ConvInputs {
  int64_t length, width;
  bool silu;
  InputView x;       // (B, E, L)
  InputView weight;  // (E, K)
  InputView bias;    // (E); its data may be null
};

struct ConvGradients {
  InputView grad_y;        // (B, E, L)
  OutputView grad_x;       // (B, E, L)
  OutputView grad_weight;  // (B, E, K): one partial sum per sequence
  OutputView grad_bias;    // (B, E), likewise; its data may be null
};

// Work on the blocks begin .. end, in float or in double.
struct ConvKernels {
  void (*forward)(const ConvInputs&, const OutputView& y, const ChannelBlocks&, int64_t begin, int64_t end);
  void (*backward)(const ConvInputs&, const ConvGradients&, const ChannelBlocks&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
