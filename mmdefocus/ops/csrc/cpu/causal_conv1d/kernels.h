// The depthwise causal convolution and its gradient for the instruction set of the including file.
//
//   y_t = activation(bias + sum over k of weight_k x_{t - K + 1 + k})
//
// A vector holds neighbouring channels at one step, so every tap is one multiply-add for all lanes. Chunks of the
// sequence are loaded with a halo: the K - 1 steps before them for y and the gradient of the weight, and the K - 1
// steps after them for the gradient of x. Shapes: E channels, L time, K kernel width.
#pragma once

#include "cpu/causal_conv1d/arguments.h"
#include "cpu/common/block_tile.h"

namespace {

// Steps that are converted and convolved at a time; the tiles of a block of this size stay in the L1 cache.
constexpr int kConvChunk = 16;

// A tile of a block: kConvChunk steps and a halo of up to 2 (K - 1).
template <typename S>
inline int tile_steps(int K) {
  return kConvChunk + 2 * (K - 1);
}

// Loads the steps start .. start + count of a block into `tile`, (vectors, stride); steps outside of the sequence are
// 0.
template <typename S>
inline void load_padded(const InputView& x, const Block<S>& block, int64_t start, int64_t count, int64_t length,
                        int stride, int ahead, Vec<S>* tile) {
  const int64_t begin = std::clamp<int64_t>(start, 0, length), end = std::clamp<int64_t>(start + count, 0, length);
  for (int v = 0; v < block.vectors; ++v) {
    std::fill_n(tile + v * stride, begin - start, Vec<S>{});
    std::fill_n(tile + v * stride + (end - start), start + count - end, Vec<S>{});
  }
  load_block<S>(x, block, begin, static_cast<int>(end - begin), stride, ahead, tile + (begin - start));
}

// One step before the activation; x[0] is the oldest step under the kernel.
template <typename S, int K_>
inline __attribute__((always_inline)) Vec<S> convolve(const Vec<S>* x, const Vec<S>* weight, int width, Vec<S> bias) {
  const int K = K_ ? K_ : width;
  Vec<S> sum = bias;
#pragma GCC unroll 4
  for (int k = 0; k < K; ++k) sum += weight[k] * x[k];
  return sum;
}

// Loads weight (vectors, K) and bias (vectors) of a block.
template <typename S>
inline void load_weights(const ConvInputs& in, const Block<S>& block, int K, Vec<S>* weight, Vec<S>* bias) {
  for (int v = 0; v < block.vectors; ++v) {
    load_tile<S>(in.weight, 0, block.channel(v), 0, block.lanes(v), K, weight + v * K);
    bias[v] = Vec<S>{};
    if (in.bias.data) load_tile<S>(in.bias, 0, block.channel(v), 0, block.lanes(v), 1, bias + v);
  }
}

template <typename S, int K_>
void conv_forward_blocks(const ConvInputs& in, const OutputView& y, const ChannelBlocks& blocks, int64_t begin,
                         int64_t end) {
  const int K = K_ ? K_ : static_cast<int>(in.width), stride = tile_steps<S>(K);
  const int vectors = vectors_per_block<S>(blocks);
  Scratch<S> scratch(vectors * (stride + K + 1));
  Vec<S>* tile = scratch.take(vectors * stride);
  Vec<S>* weights = scratch.take(vectors * K);
  Vec<S>* biases = scratch.take(vectors);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    load_weights<S>(in, block, K, weights, biases);
    for (int64_t start = 0; start < in.length; start += kConvChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kConvChunk, in.length - start));
      load_padded<S>(in.x, block, start - (K - 1), length + K - 1, in.length, stride, kConvChunk, tile);
      for (int v = 0; v < block.vectors; ++v) {
        Vec<S>* x = tile + v * stride;  // becomes y from its start: y_t needs no x before x_t under the kernel
        for (int t = 0; t < length; ++t) {
          const Vec<S> sum = convolve<S, K_>(x + t, weights + v * K, K, biases[v]);
          x[t] = in.silu ? sum * vector_sigmoid<S>(sum) : sum;
        }
      }
      store_block<S>(tile, block, start, length, stride, y);
    }
  }
}

template <typename S, int K_>
void conv_backward_blocks(const ConvInputs& in, const ConvGradients& grad, const ChannelBlocks& blocks, int64_t begin,
                          int64_t end) {
  const int K = K_ ? K_ : static_cast<int>(in.width), stride = tile_steps<S>(K);
  const int vectors = vectors_per_block<S>(blocks);
  Scratch<S> scratch(vectors * (2 * stride + 2 * K + 2));
  Vec<S>* x_tile = scratch.take(vectors * stride);
  Vec<S>* grad_tile = scratch.take(vectors * stride);
  Vec<S>* weights = scratch.take(vectors * K);
  Vec<S>* biases = scratch.take(vectors);
  Vec<S>* grad_weights = scratch.take(vectors * K);
  Vec<S>* grad_biases = scratch.take(vectors);
  for (int64_t index = begin; index < end; ++index) {
    const Block<S> block(blocks, index);
    load_weights<S>(in, block, K, weights, biases);
    std::fill_n(grad_weights, vectors * K, Vec<S>{});
    std::fill_n(grad_biases, vectors, Vec<S>{});
    for (int64_t start = 0; start < in.length; start += kConvChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kConvChunk, in.length - start));
      // The gradient of x_t depends on the K - 1 later outputs too; the sequence may end among them.
      const int halo_length = static_cast<int>(std::min<int64_t>(length + K - 1, in.length - start));
      load_padded<S>(in.x, block, start - (K - 1), halo_length + K - 1, in.length, stride, kConvChunk, x_tile);
      load_padded<S>(grad.grad_y, block, start, length + K - 1, in.length, stride, kConvChunk, grad_tile);
      for (int v = 0; v < block.vectors; ++v) {
        const Vec<S>*x = x_tile + v * stride, *weight = weights + v * K;
        Vec<S>*grad_sum = grad_tile + v * stride, *grad_weight = grad_weights + v * K;
        if (in.silu) {
          for (int t = 0; t < halo_length; ++t) {
            const Vec<S> sum = convolve<S, K_>(x + t, weight, K, biases[v]);
            const Vec<S> sigmoid = vector_sigmoid<S>(sum);
            grad_sum[t] *= sigmoid * (S(1) + sum * (S(1) - sigmoid));
          }
        }
        for (int t = 0; t < length; ++t) {
          const Vec<S> grad_y = grad_sum[t];
          Vec<S> sum{};
#pragma GCC unroll 4
          for (int k = 0; k < K; ++k) {
            sum += weight[k] * grad_sum[t + K - 1 - k];
            grad_weight[k] += grad_y * x[t + k];
          }
          grad_biases[v] += grad_y;
          grad_sum[t] = sum;  // in place: later steps need no gradient before theirs
        }
      }
      store_block<S>(grad_tile, block, start, length, stride, grad.grad_x);
    }
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      store_tile<S>(grad_weights + v * K, block.b, e, 0, block.lanes(v), K, grad.grad_weight);
      if (grad.grad_bias.data) store_tile<S>(grad_biases + v, block.b, e, 0, block.lanes(v), 1, grad.grad_bias);
    }
  }
}

// Calls `launch` with the kernel width as a compile-time constant, or with 0 for a width other than that of the models.
template <typename Launch>
inline void with_width(int64_t width, const Launch& launch) {
  if (width == 4) {
    launch(std::integral_constant<int, 4>{});
  } else {
    launch(std::integral_constant<int, 0>{});
  }
}

template <typename S>
void conv_forward(const ConvInputs& in, const OutputView& y, const ChannelBlocks& blocks, int64_t begin, int64_t end) {
  with_width(in.width, [&](auto K) { conv_forward_blocks<S, K.value>(in, y, blocks, begin, end); });
}

template <typename S>
void conv_backward(const ConvInputs& in, const ConvGradients& grad, const ChannelBlocks& blocks, int64_t begin,
                   int64_t end) {
  with_width(in.width, [&](auto K) { conv_backward_blocks<S, K.value>(in, grad, blocks, begin, end); });
}

}  // namespace
