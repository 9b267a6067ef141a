// Backward pass of the De-focus scan. It takes the chunks of a sequence in reverse, and recomputes the states of one
// chunk at a time from the state that the forward pass saved before it.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cuda/defocus_scan/backward_block.cuh"
#include "cuda/common/launch.cuh"

namespace mmdefocus::cuda {

namespace {

// Threads that a multiprocessor holds at a time: 128 of its 64 K registers for each.
constexpr int kResidentThreads = 512;

template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads, kResidentThreads / Layout<kStates>::kThreads)
    backward_kernel(const BackwardInputs<T> inputs, const BackwardOutputs<T> out) {
  using L = Layout<kStates>;
  using Place = ByRows<kChunk, L::kThreads>;
  auto& shared = shared_memory<BackwardShared<kStates>>();
  const Sizes& sizes = inputs.scan.sizes;
  const Share share(sizes);
  const ByStates<kStates> place;
  const int channel = share.first_channel + Place::channel();
  const int count = share.channels - Place::channel();

  clear_norms(shared);
  States rates, carried, grad_A = {};
  load_rates(rates, inputs.scan.A, share, place, sizes.state);
  const int64_t slab = share.offset(sizes, sizes.segments, share.segment, sizes.state);
  load_states(carried, out.end_gradients == nullptr ? nullptr : out.end_gradients + slab, place, share.channels,
              sizes.state);
#pragma unroll
  for (int i = 0; i < 4; ++i) shared.sums[i][threadIdx.x] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

  for (int chunk = (share.end - 1) / kChunk; chunk >= share.begin / kChunk; --chunk) {
    const int first = chunk * kChunk;
    RowPack<T> u[Place::kPacks], z[Place::kPacks], grad_y[Place::kPacks];
    States h;
    read_chunk(shared, h, u, z, grad_y, inputs, share, chunk, place);
    __syncthreads();

    for (int step = 0; step < kChunk; step += kRegisterSteps) {
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
        store_floats(&shared.checkpoints[step / kRegisterSteps][c][threadIdx.x].x, h[c]);
      }
      scan_steps<kRegisterSteps>(h, rates, step, shared.delta, shared.drive, shared.y, shared.rotated, place);
    }
    __syncthreads();

    group_norms(shared, share, sizes);
    __syncthreads();

    const RowPack<float> D = load_pack<kPackChannels>(inputs.scan.D + channel, count, sizes.aligned);
    const auto write_grad_z = [&](int step, int p, const float (&normed)[kPackChannels]) {
      if (first + step >= share.end) return;
      RowPack<T> grad_z;
#pragma unroll
      for (int i = 0; i < kPackChannels; ++i) {
        grad_z.set(i, grad_y[p][i] * (normed[i] + D[i] * u[p][i]) * silu_slope(z[p][i]));
      }
      store_pack(out.z.at(share.batch, first + step, channel), grad_z, count, sizes.aligned);
    };
    differentiate_norms(shared, share, sizes, write_grad_z);
    __syncthreads();

    reverse_steps(shared, carried, grad_A, rates, place);
    __syncthreads();

    write_rows(inputs, out, share, first, shared);
    write_grad_rotated(out.rotated, share, sizes, first, shared);
  }

  store_states(out.A + slab, grad_A, place, share.channels, sizes.state);
  if (share.segment == 0 && out.initial_state != nullptr) {
    store_states(out.initial_state + share.offset(sizes, 1, 0, sizes.state), carried, place, share.channels,
                 sizes.state);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * kBlockChannels; i += L::kThreads) {
    const int c = i % kBlockChannels;
    if (c >= share.channels) continue;
    const int quarter = i / kBlockChannels * 2 + c % kPackChannels / 4;
    float sum = 0.0f;
    for (int thread = c / kPackChannels; thread < L::kThreads; thread += kRowPacks) {
      sum += (&shared.sums[quarter][thread].x)[c % 4];
    }
    float* to = i < kBlockChannels ? out.D : out.dt_bias;
    to[share.offset(sizes, sizes.segments, share.segment, 1) + c] = sum;
  }
}

// The gradient that every segment but the first adds to the state before it.
template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads)
    summarize_backward_kernel(const BackwardInputs<T> inputs, const SegmentSummaries out) {
  using Place = ByRows<kChunk, Layout<kStates>::kThreads>;
  auto& shared = shared_memory<BackwardShared<kStates>>();
  const Sizes& sizes = inputs.scan.sizes;
  const Share share(sizes);
  if (share.segment == 0) return;
  const ByStates<kStates> place;

  clear_norms(shared);
  States rates, carried = {};
  load_rates(rates, inputs.scan.A, share, place, sizes.state);
  float total[kThreadChannels] = {};
  for (int chunk = (share.end - 1) / kChunk; chunk >= share.begin / kChunk; --chunk) {
    RowPack<T> u[Place::kPacks], z[Place::kPacks], grad_y[Place::kPacks];
    States h;
    read_chunk(shared, h, u, z, grad_y, inputs, share, chunk, place);
    __syncthreads();
    scan_steps<kChunk>(h, rates, 0, shared.delta, shared.drive, shared.y, shared.rotated, place);
    __syncthreads();
    group_norms(shared, share, sizes);
    __syncthreads();
    differentiate_norms(shared, share, sizes, [](int, int, const float (&)[kPackChannels]) {});
    __syncthreads();
#pragma unroll 4
    for (int step = kChunk - 1; step >= 0; --step) {
      float delta[kThreadChannels], gradient[kThreadChannels], C[kThreadStates];
      load_floats(delta, &shared.delta[step][place.channel]);
      load_floats(gradient, &shared.y[step][place.channel]);
      load_floats(C, &shared.rotated[step][kStates + place.state]);
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
        total[c] += delta[c];
#pragma unroll
        for (int s = 0; s < kThreadStates; ++s) {
          carried[c][s] = (carried[c][s] + gradient[c] * C[s]) * exp2_approx(delta[c] * rates[c][s]);
        }
      }
    }
    __syncthreads();
  }
  store_summary(out, carried, total, share, place, sizes);
}

template <int kStates, typename T>
cudaError_t backward_with(const BackwardInputs<T>& inputs, const BackwardOutputs<T>& out, cudaStream_t stream) {
  return launch(backward_kernel<T, kStates>, blocks(inputs.scan.sizes), Layout<kStates>::kThreads,
                sizeof(BackwardShared<kStates>), stream, inputs, out);
}

template <int kStates, typename T>
cudaError_t summarize_with(const BackwardInputs<T>& inputs, const SegmentSummaries& out, cudaStream_t stream) {
  return launch(summarize_backward_kernel<T, kStates>, blocks(inputs.scan.sizes), Layout<kStates>::kThreads,
                sizeof(BackwardShared<kStates>), stream, inputs, out);
}

}  // namespace

template <typename T>
cudaError_t launch_backward(const BackwardInputs<T>& inputs, const BackwardOutputs<T>& out, cudaStream_t stream) {
  const bool narrow = inputs.scan.sizes.state <= 16;
  return narrow ? backward_with<16>(inputs, out, stream) : backward_with<32>(inputs, out, stream);
}

template <typename T>
cudaError_t launch_summarize_backward(const BackwardInputs<T>& inputs, const SegmentSummaries& out,
                                      cudaStream_t stream) {
  const bool narrow = inputs.scan.sizes.state <= 16;
  return narrow ? summarize_with<16>(inputs, out, stream) : summarize_with<32>(inputs, out, stream);
}

#define INSTANTIATE(T)                                                                                        \
  template cudaError_t launch_backward<T>(const BackwardInputs<T>&, const BackwardOutputs<T>&, cudaStream_t); \
  template cudaError_t launch_summarize_backward<T>(const BackwardInputs<T>&, const SegmentSummaries&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(c10::Half)
INSTANTIATE(c10::BFloat16)
#undef INSTANTIATE

}  // namespace mmdefocus::cuda
