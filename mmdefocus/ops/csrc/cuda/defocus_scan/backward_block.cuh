// The phases of the backward pass in which a thread block takes one chunk of the De-focus scan. See scan_block.cuh for
// the mappings "by rows" and "by states". Shapes: B batch, L tokens, E channels, N state, P state padded to 16 or 32.
#pragma once

#include "cuda/defocus_scan/scan_block.cuh"

namespace mmdefocus::cuda {

// Steps whose states and decays a thread holds in registers at a time, 64 floats. The states before each such group of
// steps are kept in shared memory as checkpoints: all 16 states of a chunk would not fit in either.
constexpr int kRegisterSteps = 4;
constexpr int kCheckpoints = kChunk / kRegisterSteps;

// What the gradient of y before the norm needs.
template <int kStates>
struct GradientShared {
  static constexpr int kThreads = Layout<kStates>::kThreads;
  Tile<kChunk> delta;
  Tile<kChunk> drive;      // delta u, then its gradient, in place: the sum over states of grad_h B
  Tile<kChunk> grad_y;     // gradient of the normed y
  Tile<kChunk> grad_scan;  // grad_y times the normed y, then the gradient of y, then that of delta through the decay,
                           // in units of 1 / ln(2)
  float rotated[kChunk][2 * kStates];
  float inverse_rms[kChunk][kBlockGroups], correction[kChunk][kBlockGroups];
};

template <int kStates>
struct BackwardShared : GradientShared<kStates> {
  using GradientShared<kStates>::kThreads;
  // [step / kRegisterSteps][channel of the thread][thread]. After a warp has read its checkpoints of a group of steps,
  // it reuses their memory for its gradients of `rotated` at these steps; see grad_rotated(). Separate memory would
  // lower the number of resident thread blocks.
  float4 checkpoints[kCheckpoints][kThreadChannels][kThreads];
  float4 sums[4][kThreads];  // gradients of D and dt_bias, by rows; 16 registers per thread would spill

  // The gradients of B and C of one warp at one step: 2 kStates floats.
  __device__ __forceinline__ float* grad_rotated(int step, int warp) {
    constexpr int kWarpFloats = 32 * 4;  // of one warp in one row of checkpoints
    const int index = step % kRegisterSteps * 2 * kStates;
    float4* row = checkpoints[step / kRegisterSteps][index / kWarpFloats];
    return reinterpret_cast<float*>(row + 32 * warp) + index % kWarpFloats;
  }
  static_assert(kRegisterSteps * 2 * kStates <= kThreadChannels * 32 * 4 && (32 * 4) % (2 * kStates) == 0);
};

// The norms of the chunk; zeros for groups that the last block of channels lacks, which keep the channels of their
// packs out of all sums.
template <int kStates>
__device__ __forceinline__ void load_norms(GradientShared<kStates>& shared, const float* saved, const Slice& slice,
                                           int first_step, const Sizes& sizes) {
  const int groups = slice.channels / sizes.group_size;
  const int64_t row = static_cast<int64_t>(slice.batch) * sizes.length + first_step;
#pragma unroll 1
  for (int i = threadIdx.x; i < kChunk * kBlockGroups; i += Layout<kStates>::kThreads) {
    const int step = i / kBlockGroups, group = i % kBlockGroups;
    const bool present = group < groups && first_step + step < slice.end;
    const int64_t first = (row + step) * (sizes.channels / sizes.group_size) + slice.first_channel / sizes.group_size;
    shared.inverse_rms[step][group] = present ? saved[first + group] : 0.0f;
    shared.correction[step][group] = 0.0f;
  }
}

// r mean of (grad normed) for each group at each step, with r the inverse of the root mean square: the gradient before
// the norm is r grad minus this times normed. Eight lanes sum one group.
template <int kStates>
__device__ __forceinline__ void sum_products(GradientShared<kStates>& shared, const Slice& slice, const Sizes& sizes) {
  const int groups = slice.channels / sizes.group_size;
  const int lane = threadIdx.x % 8;
  for (int i = threadIdx.x / 8; i < kChunk * groups; i += Layout<kStates>::kThreads / 8) {
    const int step = i / groups, group = i % groups;
    float sum = 0.0f;
    for (int c = lane; c < sizes.group_size; c += 8)
      sum += shared.grad_scan[step][row_position(group * sizes.group_size + c)];
    sum = sum_of_eight_lanes(sum);
    if (lane == 0) shared.correction[step][group] = shared.inverse_rms[step][group] * sum * sizes.inverse_group_size;
  }
}

// By rows, for groups of any size: replaces the products of a chunk by the gradients of y before the norm.
template <int kStates, typename T, int kPacks>
__device__ __forceinline__ void reverse_shared_norms(GradientShared<kStates>& shared, const float* norms,
                                                     const RowPack<T> (&normed)[kPacks], const Slice& slice,
                                                     int first_step, const Sizes& sizes) {
  using Mapping = RowMapping<kChunk, Layout<kStates>::kThreads>;
  load_norms(shared, norms, slice, first_step, sizes);
  __syncthreads();  // the norms and the products of all groups are complete
  sum_products(shared, slice, sizes);
  __syncthreads();  // the corrections of all groups are complete
  if (slice.channels <= Mapping::channel()) return;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int step = Mapping::step(p);
    if (step >= kChunk) continue;
    float gradients[kPackChannels], inverse_rms[kPackChannels], correction[kPackChannels];
    load_floats(gradients, &shared.grad_y[step][Mapping::position()]);
    broadcast_groups(inverse_rms, shared.inverse_rms[step], Mapping::channel(), sizes.group_size);
    broadcast_groups(correction, shared.correction[step], Mapping::channel(), sizes.group_size);
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) {
      gradients[i] = inverse_rms[i] * gradients[i] - correction[i] * normed[p][i];
    }
    store_floats(&shared.grad_scan[step][Mapping::position()], gradients);
  }
}

// By rows: everything from the activations of a chunk to delta, drive and the gradient of y before the norm. Calls
// visit(step, u, z, grad_y, normed) with each pack in the sequence, all that grad_z needs. The caller sets a barrier
// before it reads the tiles by states.
template <int kStates, typename T, typename Visit>
__device__ __forceinline__ void reverse_norms(GradientShared<kStates>& shared, const BackwardInputs<T>& inputs,
                                              const Slice& slice, int first_step, const Visit& visit) {
  using Mapping = RowMapping<kChunk, Layout<kStates>::kThreads>;
  constexpr int kPacks = Mapping::kPacks;
  const ScanInputs<T>& scan = inputs.scan;
  const Sizes& sizes = scan.sizes;
  const int channel = slice.first_channel + Mapping::channel();
  RowPack<T> u[kPacks], dt[kPacks], z[kPacks], grad_y[kPacks];
  RowPack<Saved<T>> normed[kPacks];
  load_rows<Mapping>(u, scan.u, slice, first_step, sizes.aligned);
  load_rows<Mapping>(dt, scan.dt, slice, first_step, sizes.aligned);
  load_rows<Mapping>(z, scan.z, slice, first_step, sizes.aligned);
  load_rows<Mapping>(grad_y, inputs.grad_y, slice, first_step, sizes.aligned);
  load_rows<Mapping>(normed, inputs.normed, slice, first_step, sizes.aligned);
  load_projections<kStates>(shared.rotated, scan.rotated, slice, first_step, sizes);
  compute_drives<Mapping>(shared.delta, shared.drive, u, dt, scan.dt_bias, slice, first_step, sizes);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int step = Mapping::step(p);
    if (step >= kChunk) continue;
    float gradients[kPackChannels], products[kPackChannels];  // y_out = (normed + D u) silu(z)
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) {
      gradients[i] = grad_y[p][i] * silu(z[p][i]);
      products[i] = gradients[i] * normed[p][i];
    }
    store_floats(&shared.grad_y[step][Mapping::position()], gradients);
    const bool present = first_step + step < slice.end && channel < slice.first_channel + slice.channels;
    if (present) visit(step, u[p], z[p], grad_y[p], normed[p]);
    if (sizes.group_shift > 0) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kPackChannels; ++i) sum += products[i];
      const float mean = sum_over_group(sum, sizes.group_shift) * sizes.inverse_group_size;
      const int64_t place =
          (static_cast<int64_t>(slice.batch) * sizes.length + first_step + step) * sizes.channels + channel;
      const float norm = present ? inputs.inverse_rms[place >> sizes.group_shift] : 0.0f;
#pragma unroll
      for (int i = 0; i < kPackChannels; ++i) products[i] = norm * (gradients[i] - mean * normed[p][i]);
    }
    store_floats(&shared.grad_scan[step][Mapping::position()], products);
  }
  if (sizes.group_shift == 0) reverse_shared_norms(shared, inputs.inverse_rms, normed, slice, first_step, sizes);
}

// By states: runs a chunk forward from `h`, the state before it, and keeps the states before each group of steps.
template <int kStates>
__device__ __forceinline__ void store_checkpoints(BackwardShared<kStates>& shared, States& h, const States& rates,
                                                  const StateMapping<kStates>& mapping) {
  for (int first = 0; first < kChunk; first += kRegisterSteps) {
#pragma unroll
    for (int c = 0; c < kThreadChannels; ++c) {
      store_floats(&shared.checkpoints[first / kRegisterSteps][c][threadIdx.x].x, h[c]);
    }
    if (first + kRegisterSteps == kChunk) break;
#pragma unroll
    for (int step = first; step < first + kRegisterSteps; ++step) {
      float delta[kThreadChannels], drive[kThreadChannels], B[kThreadStates];
      load_floats(delta, &shared.delta[step][mapping.position]);
      load_floats(drive, &shared.drive[step][mapping.position]);
      load_floats(B, &shared.rotated[step][mapping.state]);
      step_states(h, rates, delta, drive, B);
    }
  }
}

// By states: the reverse-mode sweep, from the gradients of y to those of B, C, the drive, delta and A. `grad_state` is
// the gradient of the state after the chunk, and becomes that of the state before it.
//
// Each group of kRegisterSteps steps is run forward from its checkpoint and then backward, so an exponential is
// computed twice per pass in total, and states never travel through global memory.
template <int kStates>
__device__ __forceinline__ void reverse_steps(BackwardShared<kStates>& shared, States& grad_state, States& grad_A,
                                              const States& rates, const StateMapping<kStates>& mapping) {
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
      load_floats(delta, &shared.delta[first + k][mapping.position]);
      load_floats(drive, &shared.drive[first + k][mapping.position]);
      load_floats(B, &shared.rotated[first + k][mapping.state]);
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
        for (int s = 0; s < kThreadStates; ++s) {
          decay[k][c][s] = exp2_approx(delta[c] * rates[c][s]);
          h[k + 1][c][s] = decay[k][c][s] * h[k][c][s] + drive[c] * B[s];
        }
      }
    }
    __syncwarp();  // all lanes have read their checkpoints, which grad_rotated() reuses
#pragma unroll
    for (int k = kRegisterSteps - 1; k >= 0; --k) {
      const int step = first + k;
      float delta[kThreadChannels], drive[kThreadChannels], grad_y[kThreadChannels];
      float B[kThreadStates], C[kThreadStates];
      load_floats(delta, &shared.delta[step][mapping.position]);
      load_floats(drive, &shared.drive[step][mapping.position]);
      load_floats(grad_y, &shared.grad_scan[step][mapping.position]);
      load_floats(B, &shared.rotated[step][mapping.state]);
      load_floats(C, &shared.rotated[step][kStates + mapping.state]);
      float channel_sums[2 * kThreadChannels] =
          {};                                    // sums over states: gradients of the drive, and of delta by the decay
      float state_sums[2 * kThreadStates] = {};  // sums over channels: gradients of B, then of C
#pragma unroll
      for (int c = 0; c < kThreadChannels; ++c) {
#pragma unroll
        for (int s = 0; s < kThreadStates; ++s) {
          const float grad_h = grad_state[c][s] + grad_y[c] * C[s];
          state_sums[kThreadStates + s] += grad_y[c] * h[k + 1][c][s];
          state_sums[s] += grad_h * drive[c];
          channel_sums[c] += grad_h * B[s];
          grad_state[c][s] = grad_h * decay[k][c][s];
          const float grad_exponent = grad_state[c][s] * h[k][c][s];  // d exp(x) = exp(x) dx
          channel_sums[kThreadChannels + c] += grad_exponent * rates[c][s];
          grad_A[c][s] += grad_exponent * delta[c];
        }
      }
      reduce_scatter<L::kStateLanes, 1>(channel_sums, threadIdx.x);
      reduce_scatter<L::kChannelLanes, L::kStateLanes>(state_sums, threadIdx.x);
      __syncwarp();  // all lanes have read the drive and grad_y that the sums overwrite
      if (state_lane < 2 * kThreadChannels) {
        Tile<kChunk>& tile = state_lane < kThreadChannels ? shared.drive : shared.grad_scan;
        tile[step][mapping.position + state_lane % kThreadChannels] = channel_sums[0];
      }
      float* grad_rotated = shared.grad_rotated(step, threadIdx.x / 32);
#pragma unroll
      for (int i = 0; i < 2 * kThreadStates / L::kChannelLanes; ++i) {
        const int index = channel_lane + i * L::kChannelLanes;  // first the states of B, then of C
        grad_rotated[index / kThreadStates * kStates + mapping.state + index % kThreadStates] = state_sums[i];
      }
    }
  }
}

// By rows: gradients of u and dt of the chunk, and its contribution to those of dt_bias and D. u and dt are read again,
// mostly from L2: holding them through the sweep would take 16 registers per thread of a kernel that has none left.
template <int kStates, typename T>
__device__ __forceinline__ void store_activation_gradients(const BackwardInputs<T>& inputs,
                                                           const BackwardArguments<T>& out, const Slice& slice,
                                                           int first_step, BackwardShared<kStates>& shared) {
  using Mapping = RowMapping<kChunk, Layout<kStates>::kThreads>;
  const Sizes& sizes = inputs.scan.sizes;
  const int channel = slice.first_channel + Mapping::channel();
  const int count = slice.channels - Mapping::channel();
  const RowPack<float> D = load_pack<kPackChannels>(inputs.scan.D + channel, count, sizes.aligned);
  const RowPack<float> bias = load_pack<kPackChannels>(inputs.scan.dt_bias + channel, count, sizes.aligned);
  float sums[2 * kPackChannels];  // gradients of D, then of dt_bias
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 four = shared.sums[i][threadIdx.x];
    sums[4 * i] = four.x;
    sums[4 * i + 1] = four.y;
    sums[4 * i + 2] = four.z;
    sums[4 * i + 3] = four.w;
  }
#pragma unroll
  for (int p = 0; p < Mapping::kPacks; ++p) {
    const int step = Mapping::step(p);
    if (step >= kChunk || first_step + step >= slice.end) continue;
    const RowPack<T> u =
        load_pack<kPackChannels>(inputs.scan.u.at(slice.batch, first_step + step, channel), count, sizes.aligned);
    const RowPack<T> dt =
        load_pack<kPackChannels>(inputs.scan.dt.at(slice.batch, first_step + step, channel), count, sizes.aligned);
    float delta[kPackChannels], grad_drive[kPackChannels], grad_decay[kPackChannels], gradients[kPackChannels];
    load_floats(delta, &shared.delta[step][Mapping::position()]);
    load_floats(grad_drive, &shared.drive[step][Mapping::position()]);
    load_floats(grad_decay, &shared.grad_scan[step][Mapping::position()]);
    load_floats(gradients, &shared.grad_y[step][Mapping::position()]);
    RowPack<T> grad_u, grad_dt;
#pragma unroll
    for (int i = 0; i < kPackChannels; ++i) {
      // Rates are those of powers of 2, hence ln(2).
      const float grad_delta = u[i] * grad_drive[i] + kLn2 * grad_decay[i];
      const float dt_gradient = grad_delta * sizes.inverse_delta_scale * sigmoid(dt[i] + bias[i]);
      grad_dt.set(i, dt_gradient);
      grad_u.set(i, D[i] * gradients[i] + delta[i] * grad_drive[i]);
      sums[i] += gradients[i] * u[i];
      sums[kPackChannels + i] += dt_gradient;
    }
    store_pack(out.grad_u.at(slice.batch, first_step + step, channel), grad_u, count, sizes.aligned);
    store_pack(out.grad_dt.at(slice.batch, first_step + step, channel), grad_dt, count, sizes.aligned);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    shared.sums[i][threadIdx.x] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
  }
}

// Adds the gradients of B and C over the warps, in a fixed order, and writes the partial sum of this thread block.
template <int kStates>
__device__ __forceinline__ void store_grad_rotated(float* out, const Slice& slice, const Sizes& sizes, int first_step,
                                                   BackwardShared<kStates>& shared) {
  using L = Layout<kStates>;
  const int64_t row = static_cast<int64_t>(slice.batch) * sizes.length + first_step;
  for (int i = 4 * threadIdx.x; i < kChunk * 2 * kStates; i += 4 * L::kThreads) {
    const int step = i / (2 * kStates), column = i % (2 * kStates);
    if (first_step + step >= slice.end) continue;
    float sum[4] = {};
#pragma unroll
    for (int warp = 0; warp < L::kWarps; ++warp) {
      float four[4];
      load_floats(four, shared.grad_rotated(step, warp) + column);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += four[k];
    }
    store_floats(out + ((row + step) * sizes.channel_blocks + slice.channel_block) * 2 * kStates + column, sum);
  }
}

}  // namespace mmdefocus::cuda
