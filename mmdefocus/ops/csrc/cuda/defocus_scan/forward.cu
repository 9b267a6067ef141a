// Forward pass of the De-focus scan, and the local final states of segments.
//
// One kernel does everything between the projections, so activations pass through global memory once: u, dt and z are
// read, y is written.
// Shapes: B batch, L tokens, E channels, N state, M segments per sequence.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cuda/common/launch.cuh"
#include "cuda/defocus_scan/scan_block.cuh"

namespace mmdefocus::cuda {

namespace {

// Resident threads per multiprocessor that the register allocation aims at. Divided among them, the 64 K registers are
// 80 (half types) or 96 (float32) per thread, which avoids spills.
template <typename T>
constexpr int kResidentThreads = sizeof(T) == 2 ? 768 : 640;

template <int kStates>
struct ForwardShared {
  Tile<kForwardSteps> delta;  // softplus(dt + dt_bias) / delta_scale
  Tile<kForwardSteps> drive;  // delta u, then y in the same place
  float rotated[kForwardSteps][2 * kStates];
  float inverse_rms[kForwardSteps][kBlockGroups];
};

// By rows: 1 / sqrt(mean of y² + eps) of the group of a pack, for groups of whole packs.
__device__ __forceinline__ float inverse_rms_of_pack(const float (&y)[kPackChannels], const Sizes& sizes) {
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kPackChannels; ++i) squares += y[i] * y[i];
  return rsqrtf(sum_over_group(squares, sizes.group_shift) * sizes.inverse_group_size + sizes.eps);
}

// The same for groups of any size: each of them at each step, also written to `saved` for the backward pass. Eight
// lanes sum one group: with groups of 64 channels, all threads have work, and the partial sums meet in three shuffles.
template <int kThreads>
__device__ __forceinline__ void compute_inverse_rms(float (&inverse_rms)[kForwardSteps][kBlockGroups], float* saved,
                                                    const Tile<kForwardSteps>& y, const Slice& slice, int first_step,
                                                    const Sizes& sizes) {
  const int groups = slice.channels / sizes.group_size;
  const int lane = threadIdx.x % 8;
  for (int i = threadIdx.x / 8; i < kForwardSteps * groups; i += kThreads / 8) {
    const int step = i / groups, group = i % groups;
    float squares = 0.0f;
    for (int c = lane; c < sizes.group_size; c += 8) {
      const float value = y[step][row_position(group * sizes.group_size + c)];
      squares += value * value;
    }
    squares = sum_of_eight_lanes(squares);
    if (lane == 0) {
      const float norm = rsqrtf(squares * sizes.inverse_group_size + sizes.eps);
      inverse_rms[step][group] = norm;
      const int64_t row = static_cast<int64_t>(slice.batch) * sizes.length + first_step + step;
      // One division of 64 bits: with two of 32 bits, the kernel for 32 states spills registers.
      const int64_t first = (row * sizes.channels + slice.first_channel) / sizes.group_size;
      if (first_step + step < slice.end) saved[first + group] = norm;
    }
  }
}

template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads, kResidentThreads<T> / Layout<kStates>::kThreads)
    forward_kernel(const ScanInputs<T> inputs, const ForwardArguments<T> out) {
  constexpr int kThreads = Layout<kStates>::kThreads;
  using Mapping = RowMapping<kForwardSteps, kThreads>;
  auto& shared = shared_memory<ForwardShared<kStates>>();
  const Sizes& sizes = inputs.sizes;
  const Slice slice(sizes);
  const StateMapping<kStates> mapping;
  const int channel = slice.first_channel + Mapping::channel();
  const int count = slice.channels - Mapping::channel();
  const int chunks = num_chunks(sizes.length);

  States rates, h;
  load_rates(rates, inputs.A, slice, mapping, sizes.state);
  const int64_t start = slice.offset(sizes, sizes.segments, slice.segment, sizes.state);
  load_states(h, out.initial_states == nullptr ? nullptr : out.initial_states + start, mapping, slice.channels,
              sizes.state);

  // No barrier at the end of an iteration: a thread overwrites at the start of the next one only the packs of delta and
  // drive that it alone reads by rows (or all threads before the barrier after the norms), and `rotated`, which all
  // threads finished reading before the barrier after the scan.
  for (int first = slice.begin; first < slice.end; first += kForwardSteps) {
    RowPack<T> u[Mapping::kPacks], dt[Mapping::kPacks], z[Mapping::kPacks];
    load_rows<Mapping>(u, inputs.u, slice, first, sizes.aligned);
    load_rows<Mapping>(dt, inputs.dt, slice, first, sizes.aligned);
    load_rows<Mapping>(z, inputs.z, slice, first, sizes.aligned);
    load_projections<kStates>(shared.rotated, inputs.rotated, slice, first, sizes);
    compute_drives<Mapping>(shared.delta, shared.drive, u, dt, inputs.dt_bias, slice, first, sizes);
    __syncthreads();  // by rows -> by states: delta, drive, B and C are complete

    for (int step = 0; step < kForwardSteps; step += kChunk) {
      if (first + step < slice.end) {
        const int64_t slab = slice.offset(sizes, chunks, (first + step) / kChunk, sizes.state);
        store_states(out.chunk_states + slab, h, mapping, slice.channels, sizes.state);
      }
      scan_steps<kChunk>(h, rates, step, shared.delta, shared.drive, shared.drive, shared.rotated, mapping);
    }
    __syncthreads();  // by states -> by rows: y is complete

    if (sizes.group_shift == 0) {
      compute_inverse_rms<kThreads>(shared.inverse_rms, out.inverse_rms, shared.drive, slice, first, sizes);
      __syncthreads();  // the norms of all groups are complete
    }
    // D is read again at each iteration, from L1: it would otherwise occupy eight registers during the scan.
    const RowPack<float> D = load_pack<kPackChannels>(inputs.D + channel, count, sizes.aligned);
#pragma unroll
    for (int p = 0; p < Mapping::kPacks; ++p) {
      const int step = Mapping::step(p);
      if (step >= kForwardSteps) continue;
      float y[kPackChannels];
      load_floats(y, &shared.drive[step][Mapping::position()]);
      const bool present = first + step < slice.end && count > 0;
      const int64_t place =
          (static_cast<int64_t>(slice.batch) * sizes.length + first + step) * sizes.channels + channel;
      if (sizes.group_shift > 0) {
        const float norm = inverse_rms_of_pack(y, sizes);
#pragma unroll
        for (int i = 0; i < kPackChannels; ++i) y[i] *= norm;
        if (present) out.inverse_rms[place >> sizes.group_shift] = norm;  // the same from all lanes of a group
      } else {
        float inverse_rms[kPackChannels];
        broadcast_groups(inverse_rms, shared.inverse_rms[step], Mapping::channel(), sizes.group_size);
#pragma unroll
        for (int i = 0; i < kPackChannels; ++i) y[i] *= inverse_rms[i];
      }
      if (!present) continue;
      RowPack<T> result;
      RowPack<Saved<T>> saved;
#pragma unroll
      for (int i = 0; i < kPackChannels; ++i) {
        saved.set(i, y[i]);
        result.set(i, (y[i] + D[i] * u[p][i]) * silu(z[p][i]));
      }
      store_pack(out.normed + place, saved, count, sizes.aligned);
      store_pack(out.y + place, result, count, sizes.aligned);
    }
  }
  if (slice.segment == sizes.segments - 1) {
    store_states(out.last_state + slice.offset(sizes, 1, 0, sizes.state), h, mapping, slice.channels, sizes.state);
  }
}

// Local final states of all segments but the last, that is, from an initial state of zero. Only the recurrence runs: C,
// z and the norm do not affect states.
template <typename T, int kStates>
__global__ void __launch_bounds__(Layout<kStates>::kThreads)
    local_states_kernel(const ScanInputs<T> inputs, const LocalStates out) {
  using Mapping = RowMapping<kForwardSteps, Layout<kStates>::kThreads>;
  auto& shared = shared_memory<ForwardShared<kStates>>();
  const Sizes& sizes = inputs.sizes;
  const Slice slice(sizes);
  if (slice.segment == sizes.segments - 1) return;
  const StateMapping<kStates> mapping;

  States rates, h = {};
  load_rates(rates, inputs.A, slice, mapping, sizes.state);
  float total_delta[kThreadChannels] = {};
  for (int first = slice.begin; first < slice.end; first += kForwardSteps) {
    RowPack<T> u[Mapping::kPacks], dt[Mapping::kPacks];
    load_rows<Mapping>(u, inputs.u, slice, first, sizes.aligned);
    load_rows<Mapping>(dt, inputs.dt, slice, first, sizes.aligned);
    load_projections<kStates>(shared.rotated, inputs.rotated, slice, first, sizes);
    compute_drives<Mapping>(shared.delta, shared.drive, u, dt, inputs.dt_bias, slice, first, sizes);
    __syncthreads();  // by rows -> by states
#pragma unroll 2
    for (int step = 0; step < kForwardSteps; ++step) {
      float delta[kThreadChannels], drive[kThreadChannels], B[kThreadStates];
      load_floats(delta, &shared.delta[step][mapping.position]);
      load_floats(drive, &shared.drive[step][mapping.position]);
      load_floats(B, &shared.rotated[step][mapping.state]);
      step_states(h, rates, delta, drive, B);
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) total_delta[c] += delta[c];
    }
    __syncthreads();  // all threads have read the tiles that the next iteration overwrites
  }
  store_local_states(out, h, total_delta, slice, mapping, sizes);
}

template <int kStates, typename T>
cudaError_t forward_with(const ScanInputs<T>& inputs, const ForwardArguments<T>& out, cudaStream_t stream) {
  return launch(forward_kernel<T, kStates>, thread_blocks(inputs.sizes), Layout<kStates>::kThreads,
                sizeof(ForwardShared<kStates>), stream, inputs, out);
}

template <int kStates, typename T>
cudaError_t local_states_with(const ScanInputs<T>& inputs, const LocalStates& out, cudaStream_t stream) {
  return launch(local_states_kernel<T, kStates>, thread_blocks(inputs.sizes), Layout<kStates>::kThreads,
                sizeof(ForwardShared<kStates>), stream, inputs, out);
}

}  // namespace

template <typename T>
cudaError_t launch_forward(const ScanInputs<T>& inputs, const ForwardArguments<T>& out, cudaStream_t stream) {
  return inputs.sizes.state <= 16 ? forward_with<16>(inputs, out, stream) : forward_with<32>(inputs, out, stream);
}

template <typename T>
cudaError_t launch_local_states(const ScanInputs<T>& inputs, const LocalStates& out, cudaStream_t stream) {
  return inputs.sizes.state <= 16 ? local_states_with<16>(inputs, out, stream)
                                  : local_states_with<32>(inputs, out, stream);
}

#define INSTANTIATE(T)                                                                                    \
  template cudaError_t launch_forward<T>(const ScanInputs<T>&, const ForwardArguments<T>&, cudaStream_t); \
  template cudaError_t launch_local_states<T>(const ScanInputs<T>&, const LocalStates&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(c10::Half)
INSTANTIATE(c10::BFloat16)
#undef INSTANTIATE

}  // namespace mmdefocus::cuda
