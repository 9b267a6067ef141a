// The depthwise causal convolution and its gradient, vectorised over channels.
//
//   y_t = activation(bias + sum over k of weight_k x_{t - K + 1 + k})
//
// Chunks of the sequence are loaded with the K - 1 steps before them (for y and the gradient of the weight) or after
// them (for the gradient of x).
#pragma once

#include "cpu/causal_conv1d.h"
#include "cpu/selective_scan_kernel.h"

namespace {

constexpr int kConvChunk = 64;

// One block of channels of one image.
struct ConvBlock {
  int64_t b, first_channel, end_channel;

  ConvBlock(int64_t channels, const Blocks& blocks, int64_t index)
      : b(index / blocks.per_group), first_channel(index % blocks.per_group * blocks.channels_per_block),
        end_channel(std::min(first_channel + blocks.channels_per_block, channels)) {}
};

// Steps start..start + count of x into `tile`; steps outside of the sequence are 0.
template <typename S>
inline void load_padded(const Sequence<const S>& x, int64_t b, int64_t e, int64_t start, int64_t count, int64_t length,
                        int lanes, Vec<S>* tile) {
  const int64_t begin = std::clamp<int64_t>(start, 0, length), end = std::clamp<int64_t>(start + count, 0, length);
  for (int64_t t = start; t < begin; ++t) tile[t - start] = Vec<S>{};
  load_tile<S>(x.at(b, e, begin), x.channel_stride, x.time_stride, lanes, static_cast<int>(end - begin),
               tile + (begin - start));
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
void conv_forward(const ConvInputs<S>& in, const Sequence<S>& y, const Blocks& blocks, int64_t begin, int64_t end) {
  constexpr int W = kLanes<S>;
  const int K = static_cast<int>(in.width);
  Scratch<S> scratch(2 * kConvChunk + 2 * K + 1);
  Vec<S>* x = scratch.take(kConvChunk + K);
  Vec<S>* out = scratch.take(kConvChunk);
  Vec<S>* weight = scratch.take(K);
  Vec<S>* bias = scratch.take(1);
  for (int64_t index = begin; index < end; ++index) {
    const ConvBlock block(in.channels, blocks, index);
    for (int64_t e = block.first_channel; e < block.end_channel; e += W) {
      const int lanes = static_cast<int>(std::min<int64_t>(W, block.end_channel - e));
      load_rows<S>(in.weight, in.channels, K, e, lanes, weight);
      *bias = Vec<S>{};
      if (in.bias) load_rows<S>(in.bias, in.channels, 1, e, lanes, bias);
      for (int64_t start = 0; start < in.length; start += kConvChunk) {
        const int length = static_cast<int>(std::min<int64_t>(kConvChunk, in.length - start));
        load_padded<S>(in.x, block.b, e, start - (K - 1), length + K - 1, in.length, lanes, x);
        for (int t = 0; t < length; ++t) {
          const Vec<S> sum = convolve<S>(x + t, weight, K, *bias);
          out[t] = in.silu ? sum / (S(1) + vector_exp<S>(-sum)) : sum;
        }
        store_tile<S>(out, y.channel_stride, y.time_stride, lanes, length, y.at(block.b, e, start));
      }
    }
  }
}

template <typename S>
void conv_backward(const ConvInputs<S>& in, const ConvGradients<S>& grad, const Blocks& blocks, int64_t begin,
                   int64_t end) {
  constexpr int W = kLanes<S>;
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
    const ConvBlock block(in.channels, blocks, index);
    for (int64_t e = block.first_channel; e < block.end_channel; e += W) {
      const int lanes = static_cast<int>(std::min<int64_t>(W, block.end_channel - e));
      load_rows<S>(in.weight, in.channels, K, e, lanes, weight);
      *bias = *dbias = Vec<S>{};
      if (in.bias) load_rows<S>(in.bias, in.channels, 1, e, lanes, bias);
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
            const Vec<S> sigmoid = S(1) / (S(1) + vector_exp<S>(-sum));
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
        store_tile<S>(dx, grad.x.channel_stride, grad.x.time_stride, lanes, length, grad.x.at(block.b, e, start));
      }
      store_rows<S>(dweight, in.channels, K, e, lanes, grad.weight + block.b * K * in.channels);
      if (grad.bias) store_rows<S>(dbias, in.channels, 1, e, lanes, grad.bias + block.b * in.channels);
    }
  }
}

}  // namespace
