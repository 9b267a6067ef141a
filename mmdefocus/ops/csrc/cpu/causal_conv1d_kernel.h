// The depthwise causal convolution and its gradient, vectorised over channels.
//
//   y_t = activation(bias + sum over k of weight_k x_{t - K + 1 + k})
//
// Chunks of the sequence are loaded with the K - 1 steps before them (for y and the gradient of the weight) or after
// them (for the gradient of x).
#pragma once

#include "cpu/causal_conv1d.h"
#include "cpu/scan_chunk.h"

namespace {

constexpr int kConvChunk = 64;

// Steps start..start + count of x into `tile`; steps outside of the sequence are 0.
template <typename S>
inline void load_padded(const Input& x, int64_t b, int64_t e, int64_t start, int64_t count, int64_t length, int lanes,
                        Vec<S>* tile) {
  const int64_t begin = std::clamp<int64_t>(start, 0, length), end = std::clamp<int64_t>(start + count, 0, length);
  for (int64_t t = start; t < begin; ++t) tile[t - start] = Vec<S>{};
  load_tile<S>(x, b, e, begin, lanes, static_cast<int>(end - begin), tile + (begin - start), kConvChunk);
  for (int64_t t = end; t < start + count; ++t) tile[t - start] = Vec<S>{};
}

// The convolution before its activation; x holds the K - 1 steps before the first.
template <typename S>
inline Vec<S> convolve(const Vec<S>* x, const Vec<S>* weight, int K, Vec<S> bias) {
  Vec<S> sum = bias;
  for (int k = 0; k < K; ++k) sum += weight[k] * x[k];
  return sum;
}

template <typename S>
void conv_forward(const ConvInputs& in, const Output& y, const Blocks& blocks, int64_t begin, int64_t end) {
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
void conv_backward(const ConvInputs& in, const ConvGradients& grad, const Blocks& blocks, int64_t begin, int64_t end) {
  const int K = static_cast<int>(in.width);
  Scratch<S> scratch(3 * kConvChunk + 6 * K + 2);
  Vec<S>* x = scratch.take(kConvChunk + 2 * K);
  Vec<S>* dsum = scratch.take(kConvChunk + K);
  Vec<S>* dx = scratch.take(kConvChunk);
  Vec<S>* weight = scratch.take(K);
  Vec<S>* dweight = scratch.take(K);
  Vec<S>* bias = scratch.take(1);
  Vec<S>* dbias = scratch.take(1);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      load_tile<S>(in.weight, 0, e, 0, lanes, K, weight);
      *bias = *dbias = Vec<S>{};
      if (in.bias.data) load_tile<S>(in.bias, 0, e, 0, lanes, 1, bias);
      for (int k = 0; k < K; ++k) dweight[k] = Vec<S>{};
      for (int64_t start = 0; start < in.length; start += kConvChunk) {
        const int length = static_cast<int>(std::min<int64_t>(kConvChunk, in.length - start));
        // The gradient of x_t needs those of the K - 1 later outputs too.
        const int reach = static_cast<int>(std::min<int64_t>(length + K - 1, in.length - start));
        load_padded<S>(in.x, block.b, e, start - (K - 1), reach + K - 1, in.length, lanes, x);
        load_padded<S>(grad.y, block.b, e, start, length + K - 1, in.length, lanes, dsum);
        if (in.silu) {
          for (int t = 0; t < reach; ++t) {
            const Vec<S> sum = convolve<S>(x + t, weight, K, *bias);
            const Vec<S> sigmoid = vector_sigmoid<S>(sum);
            dsum[t] *= sigmoid * (S(1) + sum * (S(1) - sigmoid));
          }
        }
        for (int t = 0; t < length; ++t) {
          Vec<S> sum{};
          for (int k = 0; k < K; ++k) {
            sum += weight[k] * dsum[t + K - 1 - k];
            dweight[k] += dsum[t] * x[t + k];
          }
          dx[t] = sum;
          *dbias += dsum[t];
        }
        store_tile<S>(dx, block.b, e, start, lanes, length, grad.x);
      }
      store_tile<S>(dweight, block.b, e, 0, lanes, K, grad.weight);
      if (grad.bias.data) store_tile<S>(dbias, block.b, e, 0, lanes, 1, grad.bias);
    }
  }
}

}  // namespace
