// Backward pass of the De-focus scan, and the local gradients of the initial states of segments.
//
// Chunks are visited in reverse. The states of one chunk at a time are recomputed from the state that the forward pass
// saved before it: storing all states would take N times the memory of the activations.
// Shapes: B batch, L tokens, E channels, N state, M segments per sequence.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cuda/defocus_scan/backward_block.cuh"
#include "cuda/common/launch.cuh"

namespace mmdefocus::cuda {

namespace {

// Resident threads per multiprocessor that the register allocation aims at: 128 of the 64 K registers for each. Fewer
// threads would avoid the few spills, but leave fewer warps to hide the latency of memory and shuffles.
constexpr int kResidentThreads = 512;

template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads, kResidentThreads / Layout<kStates>::kThreads)
    backward_kernel(const BackwardInputs<T> inputs, const BackwardArguments<T> out) {
  using L = Layout<kStates>;
  using Mapping = RowMapping<kChunk, L::kThreads>;
  auto& shared = shared_memory<BackwardShared<kStates>>();
  const Sizes& sizes = inputs.scan.sizes;
  const Slice slice(sizes);
  const StateMapping<kStates> mapping;
  const int channel = slice.first_channel + Mapping::channel();
  const int count = slice.channels - Mapping::channel();

  States rates, grad_state, grad_A = {};
  load_rates(rates, inputs.scan.A, slice, mapping, sizes.state);
  const int64_t slab = slice.offset(sizes, sizes.segments, slice.segment, sizes.state);
  load_states(grad_state, out.grad_final_states == nullptr ? nullptr : out.grad_final_states + slab, mapping,
              slice.channels, sizes.state);
#pragma unroll
  for (int i = 0; i < 4; ++i) shared.sums[i][threadIdx.x] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

  // As in the forward pass, no barrier ends an iteration: the next one overwrites before its first barrier only packs
  // that the same thread read, norms that were read before the barrier ahead of the sweep, and `rotated`, which is last
  // read before the barrier after it.
  for (int chunk = (slice.end - 1) / kChunk; chunk >= slice.begin / kChunk; --chunk) {
    const int first = chunk * kChunk;
    States h;
    load_states(h, inputs.chunk_states + slice.offset(sizes, num_chunks(sizes.length), chunk, sizes.state), mapping,
                slice.channels, sizes.state);
    const RowPack<float> D = load_pack<kPackChannels>(inputs.scan.D + channel, count, sizes.aligned);
    reverse_norms(shared, inputs, slice, first,
                  [&](int step, const RowPack<T>& u, const RowPack<T>& z, const RowPack<T>& grad_y,
                      const RowPack<Saved<T>>& normed) {
                    RowPack<T> grad_z;
#pragma unroll
                    for (int i = 0; i < kPackChannels; ++i) {
                      grad_z.set(i, grad_y[i] * (normed[i] + D[i] * u[i]) * silu_derivative(z[i]));
                    }
                    store_pack(out.grad_z.at(slice.batch, first + step, channel), grad_z, count, sizes.aligned);
                  });
    __syncthreads();  // by rows -> by states: delta, drive, B, C and the gradient of y are complete

    store_checkpoints(shared, h, rates, mapping);
    reverse_steps(shared, grad_state, grad_A, rates, mapping);
    __syncthreads();  // by states -> by rows: all gradients of the chunk are complete

    store_activation_gradients(inputs, out, slice, first, shared);
    store_grad_rotated(out.grad_rotated, slice, sizes, first, shared);
  }

  store_states(out.grad_A + slab, grad_A, mapping, slice.channels, sizes.state);
  if (slice.segment == 0 && out.grad_initial_state != nullptr) {
    store_states(out.grad_initial_state + slice.offset(sizes, 1, 0, sizes.state), grad_state, mapping, slice.channels,
                 sizes.state);
  }
  // Gradients of D and dt_bias: by rows, kThreads / kRowPacks threads have the same channels. Their sums are added in a
  // fixed order, one channel per thread.
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * kBlockChannels; i += L::kThreads) {
    const int c = i % kBlockChannels;
    if (c >= slice.channels) continue;
    const int quarter = i / kBlockChannels * 2 + c % kPackChannels / 4;
    float sum = 0.0f;
    for (int thread = c / kPackChannels; thread < L::kThreads; thread += kRowPacks) {
      sum += (&shared.sums[quarter][thread].x)[c % 4];
    }
    float* to = i < kBlockChannels ? out.grad_D : out.grad_dt_bias;
    to[slice.offset(sizes, sizes.segments, slice.segment, 1) + c] = sum;
  }
}

// Local gradients of the initial states of all segments but the first, that is, with a gradient of zero for their final
// states.
template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads)
    local_state_gradients_kernel(const BackwardInputs<T> inputs, const LocalStates out) {
  auto& shared = shared_memory<GradientShared<kStates>>();
  const Sizes& sizes = inputs.scan.sizes;
  const Slice slice(sizes);
  if (slice.segment == 0) return;
  const StateMapping<kStates> mapping;

  States rates, grad_state = {};
  load_rates(rates, inputs.scan.A, slice, mapping, sizes.state);
  float total_delta[kThreadChannels] = {};
  for (int chunk = (slice.end - 1) / kChunk; chunk >= slice.begin / kChunk; --chunk) {
    reverse_norms(shared, inputs, slice, chunk * kChunk, [](auto&&...) {});
    __syncthreads();  // by rows -> by states
#pragma unroll 4
    for (int step = kChunk - 1; step >= 0; --step) {
      float delta[kThreadChannels], gradient[kThreadChannels], C[kThreadStates];
      load_floats(delta, &shared.delta[step][mapping.position]);
      load_floats(gradient, &shared.grad_scan[step][mapping.position]);
      load_floats(C, &shared.rotated[step][kStates + mapping.state]);
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
        total_delta[c] += delta[c];
#pragma unroll
        for (int s = 0; s < kThreadStates; ++s) {
          grad_state[c][s] = (grad_state[c][s] + gradient[c] * C[s]) * exp2_approx(delta[c] * rates[c][s]);
        }
      }
    }
    __syncthreads();  // all threads have read the tiles that the next iteration overwrites
  }
  store_local_states(out, grad_state, total_delta, slice, mapping, sizes);
}

template <int kStates, typename T>
cudaError_t backward_with(const BackwardInputs<T>& inputs, const BackwardArguments<T>& out, cudaStream_t stream) {
  return launch(backward_kernel<T, kStates>, thread_blocks(inputs.scan.sizes), Layout<kStates>::kThreads,
                sizeof(BackwardShared<kStates>), stream, inputs, out);
}

template <int kStates, typename T>
cudaError_t local_state_gradients_with(const BackwardInputs<T>& inputs, const LocalStates& out, cudaStream_t stream) {
  return launch(local_state_gradients_kernel<T, kStates>, thread_blocks(inputs.scan.sizes), Layout<kStates>::kThreads,
                sizeof(GradientShared<kStates>), stream, inputs, out);
}

}  // namespace

template <typename T>
cudaError_t launch_backward(const BackwardInputs<T>& inputs, const BackwardArguments<T>& out, cudaStream_t stream) {
  const bool narrow = inputs.scan.sizes.state <= 16;
  return narrow ? backward_with<16>(inputs, out, stream) : backward_with<32>(inputs, out, stream);
}

template <typename T>
cudaError_t launch_local_state_gradients(const BackwardInputs<T>& inputs, const LocalStates& out, cudaStream_t stream) {
  const bool narrow = inputs.scan.sizes.state <= 16;
  return narrow ? local_state_gradients_with<16>(inputs, out, stream)
                : local_state_gradients_with<32>(inputs, out, stream);
}

#define INSTANTIATE(T)                                                                                          \
  template cudaError_t launch_backward<T>(const BackwardInputs<T>&, const BackwardArguments<T>&, cudaStream_t); \
  template cudaError_t launch_local_state_gradients<T>(const BackwardInputs<T>&, const LocalStates&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(c10::Half)
INSTANTIATE(c10::BFloat16)
#undef INSTANTIATE

}  // namespace mmdefocus::cuda
