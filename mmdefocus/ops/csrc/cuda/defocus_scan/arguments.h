// Arguments of the CUDA kernels of the De-focus scan, shared with the host functions that allocate and launch.
//
// Shapes: B batch, L tokens, E channels, N state, P state padded to 16 or 32, M segments per sequence that run in
// parallel, and `blocks` blocks of channels. Parameters, states and intermediate results are contiguous float32: the
// recurrence accumulates over thousands of steps, and half types would lose the small increments of a slow decay.
#pragma once

#include <c10/util/Half.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "common/segments.h"
#include "cuda/common/rows.h"
#include "cuda/defocus_scan/limits.h"

namespace mmdefocus::cuda {

constexpr int kBlockGroups = 8;      // norm groups per thread block, at most
constexpr int kRotaryThreads = 256;  // per thread block of the rotary kernels

// Kernels exist for two state sizes; a thread holds four states, so other sizes would leave lanes of a warp idle.
inline int padded_state(int state) { return state <= 16 ? 16 : kMaxState; }

struct Sizes {
  int batch, length, channels, state;
  int group_size;
  int group_shift;              // log2(group_size) if that is 3 to 6: whole packs of eight channels; otherwise 0
  int block_channels;           // per thread block: whole groups
  int channel_blocks;           // thread blocks side by side
  int segments, segment_steps;  // segment_steps is a multiple of kForwardSteps; the last segment may be shorter
  float inverse_delta_scale;    // multiplications in the kernels instead of divisions
  float inverse_group_size;
  float eps;
  bool aligned;  // all rows of channels may be accessed in units of 16 bytes
};

template <typename T>
struct Projections {
  Sizes sizes;
  const T *B, *C;  // (B, L, N), any strides
  int64_t B_strides[3], C_strides[3];
  const float *positions, *freq;  // (L), (N); null without rotation
};

template <typename T>
struct RotaryGradients {
  const float* grad_rotated;  // (B, L, blocks, 2P): one partial sum per block of channels
  T *grad_B, *grad_C;         // (B, L, N)
  float* grad_freq;           // (rotary_blocks, N): partial sums
};

template <typename T>
struct ScanInputs {
  Sizes sizes;
  Rows<const T> u, dt, z;        // (B, L, E)
  const float *A, *D, *dt_bias;  // (E, N), (E), (E)
  const float* rotated;          // (B, L, 2P): B, then C, both after the rotation and zero from N on
};

// The type of the normed y that the forward pass saves. Its values are at most sqrt(group_size), so float16 holds them,
// and rounds to 1/8 of the error of bfloat16.
template <typename T>
using Saved = std::conditional_t<sizeof(T) == 2, c10::Half, T>;

// The effect of a segment on the state: final state = exp(A total_delta) initial state + local final state. For the
// reverse-mode sweep, `states` are the local gradients of the initial states.
struct LocalStates {
  float* states;       // (B, M, E, N)
  float* total_delta;  // (B, M, E)
};

template <typename T>
struct ForwardArguments {
  const float* initial_states;  // (B, M, E, N), or null for zeros
  T* y;                         // (B, L, E)
  float* last_state;            // (B, E, N)
  float* chunk_states;          // (B, chunks, E, N): before the first step of every chunk
  Saved<T>* normed;             // (B, L, E): y after the norm, before skip connection and gate
  float* inverse_rms;           // (B, L, E / group_size)
};

template <typename T>
struct BackwardInputs {
  ScanInputs<T> scan;
  Rows<const T> grad_y;       // (B, L, E)
  const float* chunk_states;  // these three are saved by the forward pass
  Rows<const Saved<T>> normed;
  const float* inverse_rms;
};

template <typename T>
struct BackwardArguments {
  const float* grad_final_states;   // (B, M, E, N), or null for zeros
  Rows<T> grad_u, grad_dt, grad_z;  // (B, L, E)
  float* grad_A;                    // (B, M, E, N): one partial sum per segment
  float *grad_D, *grad_dt_bias;     // (B, M, E), likewise
  float* grad_rotated;              // (B, L, blocks, 2P): one partial sum per block of channels
  float* grad_initial_state;        // (B, E, N), or null
};

// Chunks of a sequence. The kernels call this instead of reading a member of Sizes: one more parameter made ptxas spill
// registers in the forward kernel.
__host__ __device__ inline int num_chunks(int length) { return (length + kChunk - 1) / kChunk; }

// Thread blocks of the rotary kernels, which have one thread for each pair of states.
inline int64_t rotary_blocks(const Sizes& sizes) {
  return ceil_div(static_cast<int64_t>(sizes.batch) * sizes.length * padded_state(sizes.state) / 2, kRotaryThreads);
}

// Each of these returns the error of its launch.
template <typename T>
cudaError_t launch_rotate(const Projections<T>& projections, float* rotated, cudaStream_t stream);
template <typename T>
cudaError_t launch_rotate_backward(const Projections<T>& projections, const RotaryGradients<T>& gradients,
                                   cudaStream_t stream);
template <typename T>
cudaError_t launch_forward(const ScanInputs<T>& inputs, const ForwardArguments<T>& out, cudaStream_t stream);
template <typename T>
cudaError_t launch_backward(const BackwardInputs<T>& inputs, const BackwardArguments<T>& out, cudaStream_t stream);
template <typename T>
cudaError_t launch_local_states(const ScanInputs<T>& inputs, const LocalStates& out, cudaStream_t stream);
template <typename T>
cudaError_t launch_local_state_gradients(const BackwardInputs<T>& inputs, const LocalStates& out, cudaStream_t stream);
// Replaces local final states by initial states, in place. `boundary_state` (B, E, N), or null for zeros, is the
// initial state of the first segment. With `reversed`, gradients pass from the last segment to the first.
cudaError_t launch_state_passing(const Sizes& sizes, const float* A, const float* boundary_state, bool reversed,
                                 const LocalStates& local, cudaStream_t stream);

}  // namespace mmdefocus::cuda
