// Arguments of the depthwise causal convolution on CPU. Legend: B batch, E channels, L time, K kernel width.
#pragma once

#include <cstdint>

#include "cpu/selective_scan.h"

namespace mmdefocus::cpu {

template <typename S>
struct ConvInputs {
  int64_t batch, channels, length, width;
  bool silu;
  Sequence<const S> x;
  const S* weight;  // (K, E)
  const S* bias;    // (E) or null
};

template <typename S>
struct ConvGradients {
  Sequence<const S> y;  // incoming
  Sequence<S> x;
  S* weight;  // (B, K, E)
  S* bias;    // (B, E) or null
};

// Work on the blocks begin..end; groups do not matter here.
template <typename S>
struct ConvKernels {
  void (*forward)(const ConvInputs<S>&, const Sequence<S>& y, const Blocks&, int64_t begin, int64_t end);
  void (*backward)(const ConvInputs<S>&, const ConvGradients<S>&, const Blocks&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
