// Arguments of the depthwise causal convolution on CPU. Legend: B batch, E channels, L time, K kernel width.
#pragma once

#include "cpu/chunks.h"
#include "cpu/sequence.h"

namespace mmdefocus::cpu {

struct ConvInputs {
  int64_t length, width;
  bool silu;
  Input x;
  Input weight;  // (E, K)
  Input bias;    // (E); its data may be null
};

struct ConvGradients {
  Input y;  // incoming
  Output x;
  Output weight;  // (B, E, K)
  Output bias;    // (B, E); its data may be null
};

// Work on the blocks begin..end, computing in one type.
struct ConvKernels {
  void (*forward)(const ConvInputs&, const Output& y, const Blocks&, int64_t begin, int64_t end);
  void (*backward)(const ConvInputs&, const ConvGradients&, const Blocks&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
