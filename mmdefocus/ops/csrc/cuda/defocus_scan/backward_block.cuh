// The phases in which a thread block takes one chunk through the backward pass of the De-focus scan.
#pragma once

#include "cuda/defocus_scan/scan_block.cuh"

namespace mmdefocus::cuda {

// Steps whose states and decays a thread holds in registers at a time; the states before them wait in shared memory.
constexpr int kRegisterSteps = 4;
constexpr int kCheckpoints = kChunk / kRegisterSteps;

template <int kStates>
struct BackwardShared {
  static constexpr int kThreads = Layout<kStates>::kThreads;
  Tile<kChunk> delta;
  Tile<kChunk> drive;   // delta u; then the sum over the states of gradient · B
  Tile<kChunk> y;       // y; then its gradient; then the sum over the states of gradient · change of the decay
  Tile<kChunk> grad_y;  // after the norm
  float rotated[kChunk][2 * kStates];
  float norms[kChunk][kBlockGroups], slopes[kChunk][kBlockGroups];
  // [first step / kRegisterSteps][channel of the thread]. What a warp has read of it takes the warp's gradients of
  // `rotated` at the same steps: see `grad_rotated`.
  float4 checkpoints[kCheckpoints][kThreadChannels][kThreads];
  float4 sums[4][kThreads];  // gradients of D and of dt_bias, by rows

  // Where a warp keeps its gradients of B and C at a step: 2 kStates floats in a row.
  __device__ __forceinline__ float* grad_rotated(int step, int warp) {
    constexpr int kWarpFloats = 32 * 4;  // of a warp in one row of checkpoints
    const int index = step % kRegisterSteps * 2 * kStates;
    float4* row = checkpoints[step / kRegisterSteps][index / kWarpFloats];
    return reinterpret_cast<float*>(row + 32 * warp) + index % kWarpFloats;
  }
  static_assert(kRegisterSteps * 2 * kStates <= kThreadChannels * 32 * 4 && (32 * 4) % (2 * kStates) == 0);
};

// By rows, and the state before the chunk: all that a chunk is computed from.
template <int kStates, typename T, int kPacks>
__device__ __forceinline__ void read_chunk(BackwardShared<kStates>& shared, States& h, RowPack<T> (&u)[kPacks],
                                           RowPack<T> (&z)[kPacks], RowPack<T> (&grad_y)[kPacks],
                                           const BackwardInputs<T>& inputs, const Share& share, int chunk,
                                           const ByStates<kStates>& place) {
  using Place = ByRows<kChunk, Layout<kStates>::kThreads>;
  const ScanInputs<T>& scan = inputs.scan;
  const Sizes& sizes = scan.sizes;
  const int first = chunk * kChunk;
  const int chunks = (sizes.length + kChunk - 1) / kChunk;
  RowPack<T> dt[kPacks];
  load_rows<Place>(u, scan.u, share, first, sizes.aligned);
  load_rows<Place>(dt, scan.dt, share, first, sizes.aligned);
  load_rows<Place>(z, scan.z, share, first, sizes.aligned);
  load_rows<Place>(grad_y, inputs.grad_y, share, first, sizes.aligned);
  load_states(h, inputs.chunk_states + share.offset(sizes, chunks, chunk, sizes.state), place, share.channels,
              sizes.state);
  load_projections<kStates>(shared.rotated, scan.rotated, share, first, sizes);
  fill_drives<Place>(shared.delta, shared.drive, u, dt, scan.dt_bias, share, first, sizes);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (Place::step(p) >= kChunk) continue;
    float gradients[kPackChannels];  // of y after the norm, which with D u is multiplied by silu(z)
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) gradients[i] = grad_y[p][i] * silu(z[p][i]);
    store_floats(&shared.grad_y[Place::step(p)][Place::channel()], gradients);
  }
}

// Groups that are not there get no norm later; that of zero keeps their channels out of all sums.
template <int kStates>
__device__ __forceinline__ void clear_norms(BackwardShared<kStates>& shared) {
  for (int i = threadIdx.x; i < kChunk * kBlockGroups; i += Layout<kStates>::kThreads) {
    shared.norms[i / kBlockGroups][i % kBlockGroups] = 0.0f;
    shared.slopes[i / kBlockGroups][i % kBlockGroups] = 0.0f;
  }
}

// With r = 1 / sqrt(mean of y² + eps) over a group: norms = r, slopes = r³ · mean of gradient · y, so that the gradient
// before the norm is r · gradient - slope · y. Eight lanes work on one group of one step.
template <int kStates>
__device__ __forceinline__ void group_norms(BackwardShared<kStates>& shared, const Share& share, const Sizes& sizes) {
  const int groups = share.channels / sizes.group_size;
  const int lane = threadIdx.x % 8;
  for (int i = threadIdx.x / 8; i < kChunk * groups; i += Layout<kStates>::kThreads / 8) {
    const int step = i / groups, group = i % groups;
    float squares = 0.0f, products = 0.0f;
    for (int c = lane; c < sizes.group_size; c += 8) {
      const float y = shared.y[step][group * sizes.group_size + c];
      squares += y * y;
      products += y * shared.grad_y[step][group * sizes.group_size + c];
    }
    squares = sum_of_eight_lanes(squares);
    products = sum_of_eight_lanes(products);
    if (lane == 0) {
      const float norm = rsqrtf(squares / sizes.group_size + sizes.eps);
      shared.norms[step][group] = norm;
      shared.slopes[step][group] = norm * norm * norm * products / sizes.group_size;
    }
  }
}

// By rows: replaces y by its gradient; calls visit(step, pack, y after the norm) on the way.
template <int kStates, typename Visit>
__device__ __forceinline__ void differentiate_norms(BackwardShared<kStates>& shared, const Share& share,
                                                    const Sizes& sizes, const Visit& visit) {
  using Place = ByRows<kChunk, Layout<kStates>::kThreads>;
  if (share.channels <= Place::channel()) return;
#pragma unroll
  for (int p = 0; p < Place::kPacks; ++p) {
    const int step = Place::step(p);
    if (step >= kChunk) continue;
    float y[kPackChannels], gradients[kPackChannels], norms[kPackChannels], slopes[kPackChannels];
    load_floats(y, &shared.y[step][Place::channel()]);
    load_floats(gradients, &shared.grad_y[step][Place::channel()]);
    spread_groups(norms, shared.norms[step], Place::channel(), sizes.group_size);
    spread_groups(slopes, shared.slopes[step], Place::channel(), sizes.group_size);
    float before[kPackChannels], normed[kPackChannels];
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) {
      normed[i] = norms[i] * y[i];
      before[i] = norms[i] * gradients[i] - slopes[i] * y[i];
    }
    store_floats(&shared.y[step][Place::channel()], before);
    visit(step, p, normed);
  }
}

// By states: from the gradients of y to those of all that enters the recurrence. `carried` is the gradient of the state
// after the chunk, and becomes that of the state before it.
template <int kStates>
__device__ __forceinline__ void reverse_steps(BackwardShared<kStates>& shared, States& carried, States& grad_A,
                                              const States& rates, const ByStates<kStates>& place) {
  using L = Layout<kStates>;
  const int state_lane = threadIdx.x % L::kStateLanes;
  const int channel_lane = threadIdx.x % 32 / L::kStateLanes;
  for (int first = kChunk - kRegisterSteps; first >= 0; first -= kRegisterSteps) {
    float h[kRegisterSteps + 1][kThreadChannels][kThreadStates];  // before each step, and after the last
    float decay[kRegisterSteps][kThreadChannels][kThreadStates];
#pragma unroll
    for (int c = 0; c < kThreadChannels; ++c) {
      load_floats(h[0][c], &shared.checkpoints[first / kRegisterSteps][c][threadIdx.x].x);
    }
#pragma unroll
    for (int k = 0; k < kRegisterSteps; ++k) {
      float delta[kThreadChannels], drive[kThreadChannels], B[kThreadStates];
      load_floats(delta, &shared.delta[first + k][place.channel]);
      load_floats(drive, &shared.drive[first + k][place.channel]);
      load_floats(B, &shared.rotated[first + k][place.state]);
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
        for (int s = 0; s < kThreadStates; ++s) {
          decay[k][c][s] = exp2_approx(delta[c] * rates[c][s]);
          h[k + 1][c][s] = decay[k][c][s] * h[k][c][s] + drive[c] * B[s];
        }
      }
    }
    __syncwarp();  // all lanes have read their checkpoints
#pragma unroll
    for (int k = kRegisterSteps - 1; k >= 0; --k) {
      const int step = first + k;
      float delta[kThreadChannels], drive[kThreadChannels], grad_y[kThreadChannels];
      float B[kThreadStates], C[kThreadStates];
      load_floats(delta, &shared.delta[step][place.channel]);
      load_floats(drive, &shared.drive[step][place.channel]);
      load_floats(grad_y, &shared.y[step][place.channel]);
      load_floats(B, &shared.rotated[step][place.state]);
      load_floats(C, &shared.rotated[step][kStates + place.state]);
      float by_channel[2 * kThreadChannels] = {};  // sums over the states: by way of the drive, by way of the decay
      float by_state[2 * kThreadStates] = {};      // sums over the channels: of B, of C
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
        for (int s = 0; s < kThreadStates; ++s) {
          const float gradient = carried[c][s] + grad_y[c] * C[s];
          by_state[kThreadStates + s] += grad_y[c] * h[k + 1][c][s];
          by_state[s] += gradient * drive[c];
          by_channel[c] += gradient * B[s];
          carried[c][s] = gradient * decay[k][c][s];
          const float change = carried[c][s] * h[k][c][s];
          by_channel[kThreadChannels + c] += change * rates[c][s];
          grad_A[c][s] += change * delta[c];
        }
      }
      reduce_scatter<L::kStateLanes, 1>(by_channel, threadIdx.x);
      reduce_scatter<L::kChannelLanes, L::kStateLanes>(by_state, threadIdx.x);
      __syncwarp();  // all lanes have read drive and grad_y
      if (state_lane < 2 * kThreadChannels) {
        Tile<kChunk>& tile = state_lane < kThreadChannels ? shared.drive : shared.y;
        tile[step][place.channel + state_lane % kThreadChannels] = by_channel[0];
      }
      float* grad_rotated = shared.grad_rotated(step, threadIdx.x / 32);
#pragma unroll
      for (int i = 0; i < 2 * kThreadStates / L::kChannelLanes; ++i) {
        const int index = channel_lane + i * L::kChannelLanes;  // first the states of B, then those of C
        grad_rotated[index / kThreadStates * kStates + place.state + index % kThreadStates] = by_state[i];
      }
    }
  }
}

// By rows: what the chunk gives to the gradients of u, dt, dt_bias and D. Reading u and dt again, from a cache, is
// cheaper than the registers in which they would have to wait.
template <int kStates, typename T>
__device__ __forceinline__ void write_rows(const BackwardInputs<T>& inputs, const BackwardOutputs<T>& out,
                                           const Share& share, int first_step, BackwardShared<kStates>& shared) {
  using Place = ByRows<kChunk, Layout<kStates>::kThreads>;
  const Sizes& sizes = inputs.scan.sizes;
  const int channel = share.first_channel + Place::channel();
  const int count = share.channels - Place::channel();
  const RowPack<float> D = load_pack<kPackChannels>(inputs.scan.D + channel, count, sizes.aligned);
  const RowPack<float> bias = load_pack<kPackChannels>(inputs.scan.dt_bias + channel, count, sizes.aligned);
  float sums[2 * kPackChannels];  // of D, of dt_bias
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 four = shared.sums[i][threadIdx.x];
    sums[4 * i] = four.x;
    sums[4 * i + 1] = four.y;
    sums[4 * i + 2] = four.z;
    sums[4 * i + 3] = four.w;
  }
#pragma unroll
  for (int p = 0; p < Place::kPacks; ++p) {
    const int step = Place::step(p);
    if (step >= kChunk || first_step + step >= share.end) continue;
    const RowPack<T> u =
        load_pack<kPackChannels>(inputs.scan.u.at(share.batch, first_step + step, channel), count, sizes.aligned);
    const RowPack<T> dt =
        load_pack<kPackChannels>(inputs.scan.dt.at(share.batch, first_step + step, channel), count, sizes.aligned);
    float delta[kPackChannels], by_drive[kPackChannels], by_decay[kPackChannels], gradients[kPackChannels];
    load_floats(delta, &shared.delta[step][Place::channel()]);
    load_floats(by_drive, &shared.drive[step][Place::channel()]);
    load_floats(by_decay, &shared.y[step][Place::channel()]);
    load_floats(gradients, &shared.grad_y[step][Place::channel()]);
    RowPack<T> grad_u, grad_dt;
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) {
      const float grad_delta = u[i] * by_drive[i] + kLn2 * by_decay[i];
      const float grad_step = grad_delta * sizes.delta_factor * sigmoid(dt[i] + bias[i]);
      grad_dt.set(i, grad_step);
      grad_u.set(i, D[i] * gradients[i] + delta[i] * by_drive[i]);
      sums[i] += gradients[i] * u[i];
      sums[kPackChannels + i] += grad_step;
    }
    store_pack(out.u.at(share.batch, first_step + step, channel), grad_u, count, sizes.aligned);
    store_pack(out.dt.at(share.batch, first_step + step, channel), grad_dt, count, sizes.aligned);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    shared.sums[i][threadIdx.x] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
  }
}

// Adds up what the warps found for B and C.
template <int kStates>
__device__ __forceinline__ void write_grad_rotated(float* out, const Share& share, const Sizes& sizes, int first_step,
                                                   BackwardShared<kStates>& shared) {
  using L = Layout<kStates>;
  const int64_t row = static_cast<int64_t>(share.batch) * sizes.length + first_step;
  for (int i = 4 * threadIdx.x; i < kChunk * 2 * kStates; i += 4 * L::kThreads) {
    const int step = i / (2 * kStates), column = i % (2 * kStates);
    if (first_step + step >= share.end) continue;
    float sum[4] = {};
#pragma unroll
    for (int warp = 0; warp < L::kWarps; ++warp) {
      float four[4];
      load_floats(four, shared.grad_rotated(step, warp) + column);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += four[k];
    }
    store_floats(out + ((row + step) * sizes.channel_blocks + share.channel_block) * 2 * kStates + column, sum);
  }
}

}  // namespace mmdefocus::cuda
