// The depthwise causal convolution and its gradient for the instruction set of the including file.
//
//   y_t = activation(bias + sum over k of weight_k x_{t - K + 1 + k})
//
// A vector holds neighbouring channels at one step, so every tap is one multiply-add for all lanes. Chunks of the
// sequence are loaded with a halo: the K - 1 steps before them for y and the gradient of the weight, and the K - 1
// steps after them for the gradient of x. Shapes: E channels, L time, K kernel width.
#pragma once

#include "cpu/causal_conv1d/arguments.h"
#include "cpu/common/scan_chunk.h"

namespace {

// Steps that are converted and convolved at a time; tiles of this size stay in the L1 cache.
constexpr int kConvChunk = 64;

// Loads the steps start .. start + count of x into `tile`; steps outside of the sequence are 0.
template <typename S>
inline void load_padded(const InputView& x, int64_t b, int64_t e, int64_t start, int64_t count, int64_t length,
                        int lanes, Vec<S>* tile) {
  const int64_t begin = std::clamp<int64_t>(start, 0, length), end = std::clamp<int64_t>(start + count, 0, length);
  for (int64_t t = start; t < begin; ++t) tile[t - start] = Vec<S>{};
  load_tile<S>(x, b, e, begin, lanes, static_cast<int>(end - begin), tile + (begin - start), kConvChunk);
  for (int64_t t = end; t < start + count; ++t) tile[t - start] = Vec<S>{};
}

// One step before the activation; x[0] is the oldest step under the kernel.
template <typename S>
inline Vec<S> convolve(const Vec<S>* x, const Vec<S>* weight, int K, Vec<S> bias) {
  Vec<S> sum = bias;
  for (int k = 0; k < K; ++k) sum += weight[k] * x[k];
  return sum;
}

template <typename S>
void conv_forward(const ConvInputs& in, const OutputView& y, const ChannelBlocks& blocks, int64_t begin, int64_t end) {
  const int K = static_cast<int>(in.width);
  Scratch<S> scratch(2 * kConvChunk + 2 * K + 1);
  Vec<S>* x = scratch.take(kConvChunk + K);
  Vec<S>* out = scratch.take(kConvChunk);
  Vec<S>* weight = scratch.take(K);
  Vec<S>* bias = scratch.take(1);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      load_tile<S>(in.weight, 0, e, 0, lanes, K, weight);
      *bias = Vec<S>{};
      if (in.bias.data) load_tile<S>(in.bias, 0, e, 0, lanes, 1, bias);
      for (int64_t start = 0; start < in.length; start += kConvChunk) {
        const int length = static_cast<int>(std::min<int64_t>(kConvChunk, in.length - start));
        load_padded<S>(in.x, block.b, e, start - (K - 1), length + K - 1, in.length, lanes, x);
        for (int t = 0; t < length; ++t) {
          const Vec<S> sum = convolve<S>(x + t, weight, K, *bias);
          out[t] = in.silu ? sum * vector_sigmoid<S>(sum) : sum;
        }
        store_tile<S>(out, block.b, e, start, lanes, length, y);
      }
    }
  }
}

template <typename S>
void conv_backward(const ConvInputs& in, const ConvGradients& grad, const ChannelBlocks& blocks, int64_t begin,
                   int64_t end) {
  const int K = static_cast<int>(in.width);
  Scratch<S> scratch(3 * kConvChunk + 6 * K + 2);
  Vec<S>* x = scratch.take(kConvChunk + 2 * K);
  Vec<S>* grad_sum = scratch.take(kConvChunk + K);
  Vec<S>* grad_x = scratch.take(kConvChunk);
  Vec<S>* weight = scratch.take(K);
  Vec<S>* grad_weight = scratch.take(K);
  Vec<S>* bias = scratch.take(1);
  Vec<S>* grad_bias = scratch.take(1);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      load_tile<S>(in.weight, 0, e, 0, lanes, K, weight);
      *bias = *grad_bias = Vec<S>{};
      if (in.bias.data) load_tile<S>(in.bias, 0, e, 0, lanes, 1, bias);
      for (int k = 0; k < K; ++k) grad_weight[k] = Vec<S>{};
      for (int64_t start = 0; start < in.length; start += kConvChunk) {
        const int length = static_cast<int>(std::min<int64_t>(kConvChunk, in.length - start));
        // The gradient of x_t depends on the K - 1 later outputs too; the sequence may end among them.
        const int halo_length = static_cast<int>(std::min<int64_t>(length + K - 1, in.length - start));
        load_padded<S>(in.x, block.b, e, start - (K - 1), halo_length + K - 1, in.length, lanes, x);
        load_padded<S>(grad.grad_y, block.b, e, start, length + K - 1, in.length, lanes, grad_sum);
        if (in.silu) {
          for (int t = 0; t < halo_length; ++t) {
            const Vec<S> sum = convolve<S>(x + t, weight, K, *bias);
            const Vec<S> sigmoid = vector_sigmoid<S>(sum);
            grad_sum[t] *= sigmoid * (S(1) + sum * (S(1) - sigmoid));
          }
        }
        for (int t = 0; t < length; ++t) {
          Vec<S> sum{};
          for (int k = 0; k < K; ++k) {
            sum += weight[k] * grad_sum[t + K - 1 - k];
            grad_weight[k] += grad_sum[t] * x[t + k];
          }
          grad_x[t] = sum;
          *grad_bias += grad_sum[t];
        }
        store_tile<S>(grad_x, block.b, e, start, lanes, length, grad.grad_x);
      }
      store_tile<S>(grad_weight, block.b, e, 0, lanes, K, grad.grad_weight);
      if (grad.grad_bias.data) store_tile<S>(grad_bias, block.b, e, 0, lanes, 1, grad.grad_bias);
    }
  }
}

}  // namespace
