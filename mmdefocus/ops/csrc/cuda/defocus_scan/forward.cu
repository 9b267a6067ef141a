// Forward pass of the De-focus scan.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cuda/common/launch.cuh"
#include "cuda/defocus_scan/scan_block.cuh"

namespace mmdefocus::cuda {

namespace {

// Threads that a multiprocessor holds at a time: of its 64 K registers, 80 or 96 for each, which suffices.
template <typename T>
constexpr int kResidentThreads = sizeof(T) == 2 ? 768 : 640;

template <int kStates>
struct ForwardShared {
  Tile<kForwardSteps> delta;
  Tile<kForwardSteps> drive;  // delta u, then y
  float rotated[kForwardSteps][2 * kStates];
  float norms[kForwardSteps][kBlockGroups];
};

// 1 / sqrt(mean of y² + eps) of each group at each step, by eight lanes.
template <int kThreads>
__device__ __forceinline__ void group_norms(float (&norms)[kForwardSteps][kBlockGroups], const Tile<kForwardSteps>& y,
                                            const Share& share, const Sizes& sizes) {
  const int groups = share.channels / sizes.group_size;
  const int lane = threadIdx.x % 8;
  for (int i = threadIdx.x / 8; i < kForwardSteps * groups; i += kThreads / 8) {
    const int step = i / groups, group = i % groups;
    float squares = 0.0f;
    for (int c = lane; c < sizes.group_size; c += 8) {
      const float value = y[step][group * sizes.group_size + c];
      squares += value * value;
    }
    squares = sum_of_eight_lanes(squares);
    if (lane == 0) norms[step][group] = rsqrtf(squares / sizes.group_size + sizes.eps);
  }
}

template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads, kResidentThreads<T> / Layout<kStates>::kThreads)
    forward_kernel(const ScanInputs<T> inputs, const ForwardOutputs<T> out) {
  constexpr int kThreads = Layout<kStates>::kThreads;
  using Place = ByRows<kForwardSteps, kThreads>;
  auto& shared = shared_memory<ForwardShared<kStates>>();
  const Sizes& sizes = inputs.sizes;
  const Share share(sizes);
  const ByStates<kStates> place;
  const int channel = share.first_channel + Place::channel();
  const int count = share.channels - Place::channel();
  const int chunks = (sizes.length + kChunk - 1) / kChunk;

  States rates, h;
  load_rates(rates, inputs.A, share, place, sizes.state);
  const int64_t start = share.offset(sizes, sizes.segments, share.segment, sizes.state);
  load_states(h, out.start_states == nullptr ? nullptr : out.start_states + start, place, share.channels, sizes.state);

  for (int first = share.begin; first < share.end; first += kForwardSteps) {
    RowPack<T> u[Place::kPacks], dt[Place::kPacks], z[Place::kPacks];
    load_rows<Place>(u, inputs.u, share, first, sizes.aligned);
    load_rows<Place>(dt, inputs.dt, share, first, sizes.aligned);
    load_rows<Place>(z, inputs.z, share, first, sizes.aligned);
    load_projections<kStates>(shared.rotated, inputs.rotated, share, first, sizes);
    fill_drives<Place>(shared.delta, shared.drive, u, dt, inputs.dt_bias, share, first, sizes);
    __syncthreads();

    for (int step = 0; step < kForwardSteps; step += kChunk) {
      if (first + step < share.end) {
        const int64_t slab = share.offset(sizes, chunks, (first + step) / kChunk, sizes.state);
        store_states(out.chunk_states + slab, h, place, share.channels, sizes.state);
      }
      scan_steps<kChunk>(h, rates, step, shared.delta, shared.drive, shared.drive, shared.rotated, place);
    }
    __syncthreads();

    group_norms<kThreads>(shared.norms, shared.drive, share, sizes);
    __syncthreads();

    const RowPack<float> D = load_pack<kPackChannels>(inputs.D + channel, count, sizes.aligned);
#pragma unroll
    for (int p = 0; p < Place::kPacks; ++p) {
      const int step = Place::step(p);
      if (step >= kForwardSteps || first + step >= share.end || count <= 0) continue;
      float y[kPackChannels], norms[kPackChannels];
      load_floats(y, &shared.drive[step][Place::channel()]);
      spread_groups(norms, shared.norms[step], Place::channel(), sizes.group_size);
      RowPack<T> result;
#pragma unroll
      for (int i = 0; i < kPackChannels; ++i) {
        result.set(i, (y[i] * norms[i] + D[i] * u[p][i]) * silu(z[p][i]));
      }
      store_pack(out.y.at(share.batch, first + step, channel), result, count, sizes.aligned);
    }
  }
  if (share.segment == sizes.segments - 1) {
    store_states(out.last_state + share.offset(sizes, 1, 0, sizes.state), h, place, share.channels, sizes.state);
  }
}

// The states at the end of every segment but the last, if it began with zeros.
template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads)
    summarize_forward_kernel(const ScanInputs<T> inputs, const SegmentSummaries out) {
  using Place = ByRows<kForwardSteps, Layout<kStates>::kThreads>;
  auto& shared = shared_memory<ForwardShared<kStates>>();
  const Sizes& sizes = inputs.sizes;
  const Share share(sizes);
  if (share.segment == sizes.segments - 1) return;
  const ByStates<kStates> place;

  States rates, h = {};
  load_rates(rates, inputs.A, share, place, sizes.state);
  float total[kThreadChannels] = {};
  for (int first = share.begin; first < share.end; first += kForwardSteps) {
    RowPack<T> u[Place::kPacks], dt[Place::kPacks];
    load_rows<Place>(u, inputs.u, share, first, sizes.aligned);
    load_rows<Place>(dt, inputs.dt, share, first, sizes.aligned);
    load_projections<kStates>(shared.rotated, inputs.rotated, share, first, sizes);
    fill_drives<Place>(shared.delta, shared.drive, u, dt, inputs.dt_bias, share, first, sizes);
    __syncthreads();
#pragma unroll 2
    for (int step = 0; step < kForwardSteps; ++step) {
      float delta[kThreadChannels], drive[kThreadChannels], B[kThreadStates];
      load_floats(delta, &shared.delta[step][place.channel]);
      load_floats(drive, &shared.drive[step][place.channel]);
      load_floats(B, &shared.rotated[step][place.state]);
      advance(h, rates, delta, drive, B);
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) total[c] += delta[c];
    }
    __syncthreads();
  }
  store_summary(out, h, total, share, place, sizes);
}

template <int kStates, typename T>
cudaError_t forward_with(const ScanInputs<T>& inputs, const ForwardOutputs<T>& out, cudaStream_t stream) {
  return launch(forward_kernel<T, kStates>, blocks(inputs.sizes), Layout<kStates>::kThreads,
                sizeof(ForwardShared<kStates>), stream, inputs, out);
}

template <int kStates, typename T>
cudaError_t summarize_with(const ScanInputs<T>& inputs, const SegmentSummaries& out, cudaStream_t stream) {
  return launch(summarize_forward_kernel<T, kStates>, blocks(inputs.sizes), Layout<kStates>::kThreads,
                sizeof(ForwardShared<kStates>), stream, inputs, out);
}

}  // namespace

template <typename T>
cudaError_t launch_forward(const ScanInputs<T>& inputs, const ForwardOutputs<T>& out, cudaStream_t stream) {
  return inputs.sizes.state <= 16 ? forward_with<16>(inputs, out, stream) : forward_with<32>(inputs, out, stream);
}

template <typename T>
cudaError_t launch_summarize_forward(const ScanInputs<T>& inputs, const SegmentSummaries& out, cudaStream_t stream) {
  return inputs.sizes.state <= 16 ? summarize_with<16>(inputs, out, stream) : summarize_with<32>(inputs, out, stream);
}

#define INSTANTIATE(T)                                                                                  \
  template cudaError_t launch_forward<T>(const ScanInputs<T>&, const ForwardOutputs<T>&, cudaStream_t); \
  template cudaError_t launch_summarize_forward<T>(const ScanInputs<T>&, const SegmentSummaries&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(c10::Half)
INSTANTIATE(c10::BFloat16)
#undef INSTANTIATE

}  // namespace mmdefocus::cuda
