// Depthwise causal convolution with SiLU, and its gradient.
//
// A thread takes a few neighbouring channels through a strip of tokens and holds the last kMaxWidth tokens in
// registers, so that every token is read once, plus kMaxWidth - 1 tokens before the strip. No shared memory and no
// barriers. Shapes: B batch, L tokens, E channels, K kernel width, S strips.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cuda/common/activations.cuh"
#include "cuda/causal_conv1d/arguments.h"
#include "cuda/common/launch.cuh"
#include "cuda/common/pack.cuh"

namespace mmdefocus::cuda {

namespace {

constexpr int kThreads = 128;

// The work of a thread: kChannels neighbouring channels through kSteps tokens.
template <int kChannels_, int kSteps>
struct Strip {
  static constexpr int kChannels = kChannels_;
  using Channels = float[kChannels];
  using Taps = Channels[kMaxWidth];  // newest last

  int batch, index, channel;
  int count;  // channels left in the row; 0 for threads past the end of the grid
  int begin, end;

  template <typename T>
  __device__ __forceinline__ explicit Strip(const ConvInputs<T>& inputs) {
    const int packs = (inputs.channels + kChannels - 1) / kChannels;
    const int64_t strips = num_strips(inputs.length, kSteps);
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    channel = static_cast<int>(thread % packs) * kChannels;
    index = static_cast<int>(thread / packs % strips);
    batch = static_cast<int>(thread / packs / strips);
    count = batch < inputs.batch ? inputs.channels - channel : 0;
    begin = index * kSteps;
    end = min(begin + kSteps, inputs.length);
  }

  static int64_t thread_blocks(int64_t batch, int64_t length, int64_t channels) {
    const int64_t packs = (channels + kChannels - 1) / kChannels;
    return (batch * num_strips(length, kSteps) * packs + kThreads - 1) / kThreads;
  }
};

using ForwardStrip = Strip<8, kForwardStrip>;
using BackwardStrip = Strip<4, kBackwardStrip>;  // twice the windows per channel, so half the channels fit in registers

// Moves the window one token on. The loops unroll, and the moves vanish in the unrolled loop over tokens.
template <int kChannels>
__device__ __forceinline__ void shift(float (&window)[kMaxWidth][kChannels]) {
#pragma unroll
  for (int k = 0; k + 1 < kMaxWidth; ++k) {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) window[k][i] = window[k + 1][i];
  }
}

// One token; zeros before the sequence and after it.
template <typename T, typename S>
__device__ __forceinline__ void load_channels(float (&out)[S::kChannels], const ConvInputs<T>& inputs,
                                              const Rows<const T>& rows, const S& strip, int t) {
  const int count = 0 <= t && t < inputs.length ? strip.count : 0;
  const auto pack = load_pack<S::kChannels>(rows.at(strip.batch, t, strip.channel), count, inputs.aligned);
#pragma unroll
  for (int i = 0; i < S::kChannels; ++i) out[i] = pack[i];
}

template <typename T, typename S>
__device__ __forceinline__ void store_channels(const float (&in)[S::kChannels], const ConvInputs<T>& inputs,
                                               const Rows<T>& rows, const S& strip, int t) {
  Pack<T, S::kChannels> pack;
#pragma unroll
  for (int i = 0; i < S::kChannels; ++i) pack.set(i, in[i]);
  store_pack(rows.at(strip.batch, t, strip.channel), pack, strip.count, inputs.aligned);
}

// Kernels narrower than kMaxWidth get zeros for their oldest taps: one compiled kernel then serves every width. The
// taps of a thread lie 128 (or 64) bytes from those of the next one, so every load of a warp touches as many cache
// lines as it has lanes: kernels of kMaxWidth are read in a quarter of the loads, one channel at a time.
template <typename T, typename S>
__device__ __forceinline__ void load_parameters(float (&weight)[kMaxWidth][S::kChannels], float (&bias)[S::kChannels],
                                                const ConvInputs<T>& inputs, const S& strip) {
  const auto biases =
      load_pack<S::kChannels>(inputs.bias + strip.channel, inputs.bias == nullptr ? 0 : strip.count, true);
#pragma unroll
  for (int i = 0; i < S::kChannels; ++i) {
    const int64_t channel = strip.channel + i;
    bias[i] = biases[i];
    const int count = i < strip.count ? inputs.width : 0;
    if (count == kMaxWidth) {
      const auto taps = load_pack<kMaxWidth>(inputs.weight + channel * kMaxWidth, count, true);
#pragma unroll
      for (int k = 0; k < kMaxWidth; ++k) weight[k][i] = taps[k];
    } else {
#pragma unroll
      for (int k = 0; k < kMaxWidth; ++k) {
        const int tap = k - (kMaxWidth - inputs.width);
        weight[k][i] = tap >= 0 && i < strip.count ? inputs.weight[channel * inputs.width + tap] : 0.0f;
      }
    }
  }
}

// The convolution of channel i at the newest token of the window.
template <int kChannels>
__device__ __forceinline__ float convolve(const float (&weight)[kMaxWidth][kChannels], float bias,
                                          const float (&x)[kMaxWidth][kChannels], int i) {
#pragma unroll
  for (int k = 0; k < kMaxWidth; ++k) bias += weight[k][i] * x[k][i];
  return bias;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) conv_forward_kernel(const ConvInputs<T> inputs, const Rows<T> y) {
  const ForwardStrip strip(inputs);
  if (strip.count <= 0) return;
  ForwardStrip::Taps weight, x;
  ForwardStrip::Channels bias;
  load_parameters(weight, bias, inputs, strip);
#pragma unroll
  for (int k = 1; k < kMaxWidth; ++k) load_channels(x[k], inputs, inputs.x, strip, strip.begin - kMaxWidth + k);
#pragma unroll 4
  for (int t = strip.begin; t < strip.end; ++t) {
    shift(x);
    load_channels(x[kMaxWidth - 1], inputs, inputs.x, strip, t);
    ForwardStrip::Channels result;
#pragma unroll
    for (int i = 0; i < ForwardStrip::kChannels; ++i) {
      const float sum = convolve(weight, bias[i], x, i);
      result[i] = inputs.silu ? silu(sum) : sum;
    }
    store_channels(result, inputs, y, strip, t);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    conv_backward_kernel(const ConvInputs<T> inputs, const ConvGradients<T> gradients) {
  constexpr int kChannels = BackwardStrip::kChannels;
  constexpr int kLast = kMaxWidth - 1;
  const BackwardStrip strip(inputs);
  if (strip.count <= 0) return;
  BackwardStrip::Taps weight, x, grad_weight = {};
  BackwardStrip::Taps grad_sums = {};  // gradients of the sums before the activation, for the window of tokens
  BackwardStrip::Channels bias, grad_bias = {};
  load_parameters(weight, bias, inputs, strip);
#pragma unroll
  for (int k = 1; k < kMaxWidth; ++k) load_channels(x[k], inputs, inputs.x, strip, strip.begin - kMaxWidth + k);
  // The gradient of x_t depends on the outputs t .. t + K - 1, so the loop runs kLast tokens past the strip. Those
  // count for the gradients of the parameters in the next strip only.
#pragma unroll 4
  for (int t = strip.begin; t < strip.end + kLast; ++t) {
    shift(x);
    shift(grad_sums);
    BackwardStrip::Channels grad_y;
    load_channels(x[kLast], inputs, inputs.x, strip, t);
    load_channels(grad_y, inputs, gradients.grad_y, strip, t);
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      const float gradient = inputs.silu ? grad_y[i] * silu_derivative(convolve(weight, bias[i], x, i)) : grad_y[i];
      grad_sums[kLast][i] = gradient;
      if (t < strip.end) {
        grad_bias[i] += gradient;
#pragma unroll
        for (int k = 0; k < kMaxWidth; ++k) grad_weight[k][i] += gradient * x[k][i];
      }
    }
    if (t < strip.begin + kLast) continue;
    BackwardStrip::Channels grad_x;  // of the oldest token of the window: all outputs that depend on it are known
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      grad_x[i] = 0.0f;
#pragma unroll
      for (int k = 0; k < kMaxWidth; ++k) grad_x[i] += weight[kLast - k][i] * grad_sums[k][i];
    }
    store_channels(grad_x, inputs, gradients.grad_x, strip, t - kLast);
  }
  const int64_t part = strip.batch * num_strips(inputs.length, kBackwardStrip) + strip.index;
  float* to = gradients.grad_parameters + part * (kMaxWidth + 1) * inputs.channels + strip.channel;
  const bool aligned = inputs.channels % kChannels == 0;
#pragma unroll
  for (int k = 0; k <= kMaxWidth; ++k) {
    Pack<float, kChannels> sums;
#pragma unroll
    for (int i = 0; i < kChannels; ++i) sums.set(i, k < kMaxWidth ? grad_weight[k][i] : grad_bias[i]);
    store_pack(to + k * static_cast<int64_t>(inputs.channels), sums, strip.count, aligned);
  }
}

}  // namespace

template <typename T>
cudaError_t launch_conv_forward(const ConvInputs<T>& inputs, const Rows<T>& y, cudaStream_t stream) {
  const int64_t blocks = ForwardStrip::thread_blocks(inputs.batch, inputs.length, inputs.channels);
  return launch(conv_forward_kernel<T>, blocks, kThreads, 0, stream, inputs, y);
}

template <typename T>
cudaError_t launch_conv_backward(const ConvInputs<T>& inputs, const ConvGradients<T>& gradients, cudaStream_t stream) {
  const int64_t blocks = BackwardStrip::thread_blocks(inputs.batch, inputs.length, inputs.channels);
  return launch(conv_backward_kernel<T>, blocks, kThreads, 0, stream, inputs, gradients);
}

#define INSTANTIATE(T)                                                                             \
  template cudaError_t launch_conv_forward<T>(const ConvInputs<T>&, const Rows<T>&, cudaStream_t); \
  template cudaError_t launch_conv_backward<T>(const ConvInputs<T>&, const ConvGradients<T>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(c10::Half)
INSTANTIATE(c10::BFloat16)
#undef INSTANTIATE

}  // namespace mmdefocus::cuda
